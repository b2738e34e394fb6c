"""The records of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from raymia.spec.base import Paths, Strict
from raymia.spec.image_training import LoraTrainingSpec
from raymia.spec.images import (
    Deep,
    Fit,
    ImageNeighbors,
    ImageTrainingSpec,
    Prediction,
    SelfGeneratedReference,
)
from raymia.spec.kinds import Kinds, RecordsSection
from raymia.spec.models import EndpointTarget, SamplesTarget
from raymia.spec.neighbors import (
    InfillNeighbors,
    MaskFillNeighbors,
    NamedNeighbors,
    SubstituteNeighbors,
)
from raymia.spec.references import SelfPromptReference
from raymia.spec.target_training import TargetTrainingSpec
from raymia.spec.training import RecordFormat, TrainingSpec
from raymia.storage.manifest import ManifestKind
from raymia.util.errors import InputError


class CorpusSpec(Strict):
    """Texts whose token frequencies stand for those of language at large (DC-PDD)."""

    files: Paths = Field(description="tables, as those of records")
    text_column: str = Field(default="text", description="name of the column that holds the text")


class TextRecordsSpec(RecordsSection):
    """Texts that are scored.

    A path is a table (JSONL, JSON, CSV, TSV, Parquet, or text of one record a line; .gz and .zst
    too), a folder of tables, or a pattern; local or any fsspec URL.
    """

    what = "texts"
    takes = (
        MaskFillNeighbors,
        InfillNeighbors,
        NamedNeighbors,
        SubstituteNeighbors,
        SelfPromptReference,
        EndpointTarget,
        CorpusSpec,
        TrainingSpec,
    )
    training_file = TargetTrainingSpec
    manifest = ManifestKind(
        "raymia training",
        "`raymia train` (kind: 'raymia training'); list checkpoints of other trainings as "
        "`manifest` under `targets`",
    )
    manifest_says_recipe = True

    kind: Literal["text"] = Field(default="text", description="may be left out")
    members: Paths = Field(default=[], description="files of records the targets were trained on")
    non_members: Paths = Field(
        default=[], description="files of held-out records from the same distribution"
    )
    candidates: Paths = Field(
        default=[], description="files of records whose membership is unknown; scored, not measured"
    )
    population: Paths = Field(
        default=[],
        description="files of texts that are no members and are not scored: RMIA's population, "
        "the prefix of ReCaLL, what quantile regression is fitted on",
    )
    known_members: Paths = Field(
        default=[],
        description="files of members that are not scored: the second prefix of CON-ReCall",
    )
    not_for_models = ("config",)

    format: RecordFormat | None = Field(
        default=None,
        description="what a record is, where its columns leave it open: a text, a conversation, "
        "a prompt and its completion, tokens with labels, or a preference; see chat.md",
    )
    side: Literal["chosen", "rejected"] = Field(
        default="chosen", description="which answer of a preference is scored by itself"
    )
    text_column: str = Field(default="text", description="name of the column that holds the text")
    group_column: str | None = Field(
        default=None,
        description="name of a column that says which records belong together, such as a document; "
        "groups are measured beside records",
    )

    @property
    def are_judged(self) -> bool:
        return self.are_pairs or self.format == "unpaired"

    @property
    def are_pairs(self) -> bool:
        return self.format == "preference"

    @classmethod
    def audit_of(cls, manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
        training = dict(manifest["training"])
        if "template" in training:
            training["template"] = str(path.parent / training["template"])
        base = manifest["base"]
        keys = ("model", "revision", "trust_remote_code")
        base = {key: base[key] for key in keys if base.get(key)}
        if manifest["quantization"] != "none":
            base["quantization"] = manifest["quantization"]
        own = base if manifest["method"]["kind"] != "full" else {}
        if base.get("trust_remote_code"):
            own = {"trust_remote_code": True, **own}
        metrics = {}
        if manifest["split"].get("inclusion") is not None:
            metrics["inclusion"] = manifest["split"]["inclusion"]
        if manifest["privacy"] is not None:  # a smaller delta's bound could not refute the claim
            metrics["delta"] = manifest["privacy"]["delta"]
        return {
            "name": manifest["name"],
            "records": _beside(path, manifest["records"]),
            "training": training,
            "targets": [{"manifest": str(path), **own}],
            "references": {"base": base},
            **({"metrics": metrics} if metrics else {}),
        }


class ImageRecordsSpec(RecordsSection):
    """Images that are scored.

    A path is a folder of images, a table with a column of images or of paths to them, a tar of the
    WebDataset layout, or a pattern of these; local or any fsspec URL.
    """

    what = "images"
    takes = (ImageNeighbors, SelfGeneratedReference, SamplesTarget, ImageTrainingSpec)
    training_file = LoraTrainingSpec
    manifest = ManifestKind("raymia training of images", "a training of images")
    not_for_models = (
        "gguf_file",
        "max_tokens",
        "long_texts",
        "stride",
        "window_bos",
        "trust_remote_code",
    )

    kind: Literal["image"] = Field(description="tells images from texts")
    members: Paths = Field(default=[], description="images the targets were trained on")
    non_members: Paths = Field(default=[], description="held-out images from the same distribution")
    candidates: Paths = Field(
        default=[], description="images whose membership is unknown; scored, not measured"
    )
    population: Paths = Field(
        default=[],
        description="images that are no members and are not scored: what quantile regression is "
        "fitted on",
    )
    image_column: str = Field(
        default="image", description="name of the column that holds images, or paths to them"
    )
    caption_column: str | None = Field(
        default=None,
        description="name of the column of captions, for models that are conditioned on text, also "
        "of a `metadata.jsonl` in a folder; in a folder or tar, the suffix of the files that hold "
        "them, such as `txt`",
    )
    class_column: str | None = Field(
        default=None,
        description="name of the column of classes, whole numbers from 0 on, for models that are "
        "conditioned on one; as `caption_column`, and in its place",
    )
    folder_prompts: bool = Field(
        default=False,
        description="whether folders are called as kohya's scripts read them: of `10_name` images "
        "are seen ten times an epoch, and `name` is the caption of those without a file of their "
        "own",
    )
    group_column: str | None = Field(
        default=None,
        description="name of a column that says which records belong together; groups are measured "
        "beside records",
    )
    fit: Fit = Field(
        default="exact",
        description="what is done to an image that has another size than the models take: set it "
        "aside, cut its longer side and scale it, pad it with black, or scale it",
    )
    sixteen_bit: Deep = Field(
        default="set_aside",
        description="what is done to an image of 16 bits per channel: set it aside, or take the "
        "higher 8, as Pillow and OpenCV do",
    )

    @model_validator(mode="after")
    def _check_one_condition(self) -> Self:
        captions = self.caption_column is not None or self.folder_prompts
        if captions and self.class_column is not None:
            raise ValueError(
                "give either `caption_column` or `class_column`; audit models of the other kind in "
                "a file of their own, and `folder_prompts` where there are captions"
            )
        return self

    @classmethod
    def check_manifest(cls, manifest: Mapping[str, Any], path: Path, where: str) -> None:
        if "records" not in manifest:
            raise InputError(
                f"{where}: {path} does not say where its images are, as manifests do now; name "
                "members.parquet and non_members.parquet beside it under `records`, and it as "
                "`manifest` under `targets`"
            )

    @classmethod
    def audit_of(cls, manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
        target: dict[str, Any] = {"manifest": str(path)}
        found = {"records": _beside(path, manifest["records"]), "targets": [target]}
        if "base" in manifest:  # of LoRAs
            base = {"model": manifest["base"]["model"]}
            target |= base
            captions = manifest["captions"]
            is_captioned = captions["column"] or captions["instance_prompt"] is not None
            found["references"] = {"base": base}
            trained = manifest["training"]
            learned = manifest.get("prediction_type")
            found["training"] = {
                "flip": trained["flip"], "timesteps": trained.get("timesteps", "uniform"),
                "noise_offset": 0.0, "snr_gamma": 0.0, "prior_preservation": [],
                **({"caption_dropout": 0.0} if is_captioned else {}),
                **({"prediction": learned} if learned in get_args(Prediction) else {}),
            }  # fmt: skip
        deltas = {one["privacy"]["delta"] for one in manifest["checkpoints"] if "privacy" in one}
        return {**found, "metrics": {"delta": max(deltas)}} if deltas else found


def _beside(manifest: Path, records: Mapping[str, Any]) -> dict[str, Any]:
    """The section `records` of a manifest, whose files lie beside it."""
    sides = ("members", "non_members")
    return {**records, **{s: [str(manifest.parent / name) for name in records[s]] for s in sides}}


RECORDS: Kinds[RecordsSection] = Kinds(TextRecordsSpec, ImageRecordsSpec)
DEFAULT_RECORDS = "text"
"""Their kind where a file does not say it."""


def section_of(content: Mapping[str, Any]) -> type[RecordsSection] | None:
    """The kind that the records of a file are of; None for one that is not known."""
    records = content.get("records")
    said = records if isinstance(records, dict) else {}
    return RECORDS.tagged(said.get("kind", DEFAULT_RECORDS))
