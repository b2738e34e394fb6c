"""A training of a LoRA from its file to its manifest: resolve, split, train, seal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.prepare.captioned import Captioned
from raymia.prepare.denoiser_files import resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings, lora_weights
from raymia.prepare.image_split import ImageSplit
from raymia.prepare.private import Privacy
from raymia.prepare.private_images import plan_images
from raymia.prepare.target_job import Drawn, finish, progress_bar, read_and_split
from raymia.prepare.train_denoiser import train_denoiser
from raymia.spec import ImageRecordsSpec
from raymia.spec.image_training import LoraTrainingSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.util.errors import InputError


@dataclass(frozen=True)
class ResolvedLora:
    """A training that can begin; no weights are loaded.

    Attributes
    ----------
    lora : keys of PEFT's config.
    split : members and held-out images, which are written.
    set_aside : images that could not be used.
    settings : with the steps that the epochs come to.
    privacy : of a private training.
    """

    spec: LoraTrainingSpec
    base: DenoiserCheckpoint
    lora: dict[str, Any]
    split: ImageSplit
    set_aside: int
    settings: DiffusionTrainingSpec
    privacy: Privacy | None = None

    @property
    def trained_weights(self) -> int:
        """Numbers in the LoRA."""
        return lora_weights(self.spec.method, self.base)


def resolve_lora(spec: LoraTrainingSpec, out: Path | None = None) -> ResolvedLora:
    """Check all that a training names, and draw its images.

    Parameters
    ----------
    out : the folder that they are written in; None for nowhere.

    Raises
    ------
    InputError
        For anything wrong in what was given.
    """
    base = resolve_trainable(Path(spec.base), is_frozen=True)
    _check_captions(spec, base)
    lora = lora_settings(spec.method, base)
    given = spec.records
    records = ImageRecordsSpec(
        kind="image",
        candidates=given.files,
        image_column=given.image_column,
        caption_column=given.caption_column,
        group_column=given.group_column,
        fit=given.fit,
    )
    split, set_aside = read_and_split(
        records,
        base.shape,
        Drawn(spec.split.members, spec.split.held_out, spec.seed, out),
        one_caption=given.instance_prompt,
        enlarges=given.upscale,
    )
    members = len(split.members)
    settings = _settings(spec, members)
    privacy = plan_images(spec.dp, members, settings.batch_size, settings.steps)
    return ResolvedLora(spec, base, lora, split, set_aside, settings, privacy)


def run_lora_training(spec: LoraTrainingSpec) -> dict[str, Any]:
    """Train, and write images, checkpoints and manifest; what is finished is not trained again.

    Returns
    -------
    The manifest.

    Raises
    ------
    InputError
        For anything wrong in what was given, before weights are loaded, and for a training that
        diverges.
    """
    found = resolve_lora(spec, Path(spec.output))
    base, split, settings = found.base, found.split, found.settings
    with progress_bar(f"{spec.name}: steps", settings.steps) as progress:
        facts = train_denoiser(
            Captioned(split.members, split.member_captions),
            Path(spec.base),
            settings,
            Path(spec.output),
            seed=spec.seed,
            progress=progress,
            measure_on=Captioned(split.held_out, split.held_out_captions),
            checkpoint_every=spec.checkpoint_every or settings.steps,
            lora=found.lora,
            dp=spec.dp,
        )
    model = {
        "name": spec.name,
        "base": {
            "model": str(Path(spec.base).resolve()),
            "fingerprint": base.fingerprint,
            "parameters": base.parameters,
        },
        "method": {"kind": spec.method.kind, **found.lora},
        "captions": {
            "column": spec.records.caption_column,
            "instance_prompt": spec.records.instance_prompt,
            "empty": sum(not caption for caption in split.member_captions or ()),
        },
        "prediction_type": facts["prediction_type"],
    }
    data = ", ".join(spec.records.files)
    return finish(Path(spec.output), data, model, settings, split, found.set_aside, facts, spec.dp)


def _settings(spec: LoraTrainingSpec, members: int) -> DiffusionTrainingSpec:
    """How it is trained, in steps."""
    settings = spec.training
    if members < settings.batch_size:
        raise InputError(
            f"training.batch_size: a step takes {settings.batch_size} images, and {members} are "
            "trained on; give more members, or a smaller batch_size"
        )
    if spec.epochs is not None:
        steps = math.ceil(spec.epochs * members / settings.batch_size)
        settings = settings.model_copy(update={"steps": steps})
    if settings.warm_up_problems:
        raise InputError([f"training.warmup: {problem}" for problem in settings.warm_up_problems])
    return settings


def _check_captions(spec: LoraTrainingSpec, base: DenoiserCheckpoint) -> None:
    """Refuse captions where the base is told none, and none where it is told some."""
    keys = ("caption_column", "instance_prompt")
    given = [key for key in keys if getattr(spec.records, key) is not None]
    if given and not base.is_captioned:
        raise InputError(
            f"records.{given[0]}: {base.path} has no text encoder, so that it cannot be told a "
            "caption; leave it out, or give a base that has one"
        )
    if not given and base.is_captioned:
        raise InputError(
            f"records: {base.path} is conditioned on captions; name their column as "
            "`caption_column`, or give one `instance_prompt` for all images, which may be empty"
        )
