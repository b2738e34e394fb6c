"""The shadows of a training of images: the same training, on random halves of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from raymia.models.autoencoders.vae.config import AutoencoderConfig
from raymia.prepare.captioned import Captioned
from raymia.prepare.denoiser_files import resolve_trainable
from raymia.prepare.image_split import ImageSplit, written_split
from raymia.prepare.target_job import finish
from raymia.prepare.text_split import Record, TextSplit, draw_halves
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.prepare.train_denoiser import train_denoiser
from raymia.prepare.trainer import Progress
from raymia.records.base import RecordSet
from raymia.records.images import pixels_array, read_image_records
from raymia.spec import ImageRecordsSpec
from raymia.spec.from_training import read_training
from raymia.spec.images import AutoencoderTrainingSpec, DiffusionTrainingSpec
from raymia.spec.target_training import DpSpec
from raymia.storage.manifest import MANIFEST_FILE
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.hashing import digest

OF_A_MODEL = (
    "config", "pipeline", "pipeline_fingerprint", "from_weights", "network", "base", "method",
    "captions", "prediction_type",
)  # fmt: skip
"""Keys of a manifest by which one shadow is as another."""


class TrainedOnImages:
    """A target that was trained on images, by its manifest, and the shadows that it may have.

    Parameters
    ----------
    manifest : of jobs/train_diffusion.py, jobs/train_vae.py or jobs/train_lora.py.

    Raises
    ------
    InputError
        If it was edited.
    """

    def __init__(self, manifest: Path) -> None:
        self.folder = manifest.resolve().parent
        self.content, _ = read_training(self.folder / manifest.name, "shadows")

    @property
    def private(self) -> DpSpec | None:
        given = self.content.get("privacy")
        return None if given is None else DpSpec(**{k: given[k] for k in DpSpec.model_fields})

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be checked of what shadows begin with."""
        if not self.content.get("from_weights") or "pipeline_fingerprint" in self.content:
            return ()
        return (
            f"shadows: the manifest of {self.folder} does not say what {self.content['pipeline']} "
            "held when the target was trained, as it was written by an earlier version: it could "
            "not be checked that shadows begin with the same weights",
        )

    @cached_property
    def images(self) -> RecordSet:
        """All that the target was drawn from, members and held out."""
        sides = {
            side: [str(self.folder / name) for name in self.content["records"][side]]
            for side in ("members", "non_members")
        }
        given = ImageRecordsSpec(**{**self.content["records"], **sides})
        channels, height, width = self.content["image_shape"]
        return read_image_records(given, (channels, height, width))

    def halves(self, count: int) -> list[TextSplit]:
        """Which images each of so many shadows is trained on, by id and group."""
        ids, groups = (self.images.table[key].to_pylist() for key in ("record_id", "group"))
        pool = [Record(one, "", group) for one, group in zip(ids, groups, strict=True)]
        return draw_halves(pool, count, self.content["seed"])

    def finished(self, out: Path, number: int, half: TextSplit) -> dict[str, Any] | None:
        """The manifest of a shadow that is finished; None for one that is not.

        Raises
        ------
        InputError
            If the folder holds another training.
        """
        if not (out / MANIFEST_FILE).is_file():
            return None
        manifest, _ = read_training(out / MANIFEST_FILE, "shadows")
        if manifest.get("run") != self._run(number, half):
            raise InputError(
                f"shadows: {out} is a shadow of another training; remove the folder of the shadows"
            )
        return manifest

    def train(self, out: Path, number: int, half: TextSplit, progress: Progress) -> None:
        """Train a shadow, from where it was stopped, and write its manifest.

        Raises
        ------
        InputError
            If the base is another one now, or the training diverges.
        """
        split = self._split(out, number, half)
        what = {key: self.content[key] for key in OF_A_MODEL if key in self.content}
        model = {**what, "run": self._run(number, half)}
        settings: AutoencoderTrainingSpec | DiffusionTrainingSpec
        if "config" in self.content:
            settings = AutoencoderTrainingSpec(**self.content["training"])
            facts = train_autoencoder(
                split.members,
                AutoencoderConfig.model_validate(self.content["config"]),
                settings,
                out,
                seed=self._seed(number),
                progress=progress,
                measure_on=split.held_out,
                checkpoint_every=settings.epochs,
                dp=self.private,
            )
        else:
            settings = DiffusionTrainingSpec(**self.content["training"])
            facts = train_denoiser(
                self._captioned(split.members, split.member_captions),
                settings=settings,
                out=out,
                seed=self._seed(number),
                progress=progress,
                measure_on=self._captioned(split.held_out, split.held_out_captions),
                checkpoint_every=settings.steps,
                dp=self.private,
                **self._denoiser(),
            )
        finish(out, self.content["data"], model, settings, split, 0, facts, self.private)

    def _denoiser(self) -> Mapping[str, Any]:
        """What is trained: a LoRA, the weights of a pipeline, or a fresh network like the target's.

        Raises
        ------
        InputError
            If what they begin with is not what the target began with.
        """
        base = self.content.get("base")
        if base is not None:
            pipeline = _same(base["model"], base["fingerprint"], is_frozen=True)
            method = {key: value for key, value in self.content["method"].items() if key != "kind"}
            return {"pipeline": pipeline, "lora": method}
        if self.content["from_weights"]:
            pipeline = _same(self.content["pipeline"], self.content.get("pipeline_fingerprint"))
            return {"pipeline": pipeline, "from_weights": True}
        return {"pipeline": self.folder / self.content["checkpoints"][-1]["folder"]}

    def _captioned(self, images: Any, captions: Sequence[str] | None) -> Captioned:
        """Images as the target was trained on them: a fresh network is told no captions."""
        takes_captions = "base" in self.content or self.content["pipeline"] is not None
        return Captioned(images, tuple(captions) if takes_captions and captions else None)

    def _split(self, out: Path, number: int, half: TextSplit) -> ImageSplit:
        table, places = self.images.table, self.content["records"]
        rows = {one: row for row, one in enumerate(table["record_id"].to_pylist())}
        payloads = table["payload"].to_pylist()
        channels, height, width = self.content["image_shape"]
        captions = groups = None
        if "caption_column" in places:
            captions = [payload["caption"] or "" for payload in payloads]
        if "group_column" in places:
            groups = table["group"].to_pylist()
        inside, outside = (
            np.array([rows[one.id] for one in side]) for side in (half.members, half.held_out)
        )
        images = pixels_array(payloads, (channels, height, width))
        return written_split(images, captions, groups, inside, outside, self._seed(number), out)

    def _seed(self, number: int) -> int:
        drawn = generator(self.content["seed"], "seed of a shadow", number)
        return int(drawn.integers(2**31))

    def _run(self, number: int, half: TextSplit) -> str:
        """Hash all that a shadow is a function of."""
        model = {key: self.content[key] for key in OF_A_MODEL if key in self.content}
        return digest(
            {
                "model": {key: part for key, part in model.items() if key != "captions"},
                "training": self.content["training"],
                "privacy": self.content.get("privacy"),
                "members": sorted(one.id for one in half.members),
                "held_out": sorted(one.id for one in half.held_out),
                "seed": self._seed(number),
            }
        )


def _same(pipeline: str, fingerprint: str | None, *, is_frozen: bool = False) -> Path:
    """The folder of a pipeline, if it holds what it held when the target was trained.

    Parameters
    ----------
    fingerprint : of what it held; None where that is not known.

    Raises
    ------
    InputError
        If it holds something else.
    """
    folder = Path(pipeline)
    if fingerprint is not None:
        found = resolve_trainable(folder, is_frozen=is_frozen).fingerprint
        if found != fingerprint:
            raise InputError(
                f"shadows: {folder} is another base than the target was trained on (fingerprint "
                f"{found}, expected {fingerprint}); put that one back"
            )
    return folder
