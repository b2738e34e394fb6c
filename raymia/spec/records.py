"""The records of an audit."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from raymia.spec.base import Paths, Strict
from raymia.spec.images import (
    Deep,
    Fit,
    ImageNeighbors,
    ImageTrainingSpec,
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
from raymia.spec.training import RecordFormat, TrainingSpec


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


class ImageRecordsSpec(RecordsSection):
    """Images that are scored.

    A path is a folder of images, a table with a column of images or of paths to them, a tar of the
    WebDataset layout, or a pattern of these; local or any fsspec URL.
    """

    what = "images"
    takes = (ImageNeighbors, SelfGeneratedReference, SamplesTarget, ImageTrainingSpec)
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


RECORDS = Kinds(TextRecordsSpec, ImageRecordsSpec)
DEFAULT_RECORDS = "text"
"""Their kind where a file does not say it."""
