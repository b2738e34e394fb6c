"""How targets of images were trained: what records are prepared and asked with, what is assumed
where it is not said, and what else one should know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from raymia.models.denoisers.as_trained import (
    as_trained,
    check_resolution,
    check_skip,
    usual_tokens,
)
from raymia.models.denoisers.query import GUIDANCE, Told
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.denoisers.schedules import FLOW
from raymia.models.image_source import ImageCheckpoint
from raymia.records.pixels import Preparation
from raymia.spec import AuditSpec, ImageRecordsSpec, ImageTrainingSpec, TargetSpec
from raymia.util.errors import InputError

FIT_IN_WORDS = {
    "exact": "were of the models' size",
    "crop": "were cut to the models' aspect about the center and scaled, as `records.fit` says",
    "pad": "were padded with black, as `records.fit` says",
    "stretch": "were stretched, as `records.fit` says",
}
OF_DENOISERS = ("instance_prompt", "caption_dropout", "max_caption_tokens", "guidance",
                "noise_offset", "timesteps", "snr_gamma", "prior_preservation", "prediction",
                "zero_terminal_snr", "clip_skip")  # fmt: skip
"""Keys that are of diffusion models alone."""
OF_THE_SCHEDULE = ("prediction", "zero_terminal_snr")
"""Keys that say what a network learned on which path to noise."""
OF_HEADERS = (*OF_THE_SCHEDULE, "clip_skip")
"""Keys that are taken from the headers of LoRAs where the audit file does not say them."""


@dataclass(frozen=True)
class Said:
    """What is said of how one target was trained, and where.

    Attributes
    ----------
    training : by the audit file.
    written : by the headers of the target's LoRAs, each key with its value and the file.
    """

    where: str
    training: ImageTrainingSpec | None
    written: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    @property
    def known(self) -> ImageTrainingSpec:
        """What either says that decides how the model is asked."""
        own = self.training or ImageTrainingSpec()
        more = {key: self.written[key][0] for key in OF_HEADERS if key in self.written}
        return own.model_copy(
            update={key: value for key, value in more.items() if getattr(own, key) is None}
        )


def said_of(spec: AuditSpec, places: Sequence[str]) -> dict[str, Said]:
    """What is said of each target, by its own key or the audit's."""
    found = {}
    for place, target in zip(places, spec.targets, strict=True):
        own = target.training if isinstance(target, TargetSpec) else None
        training, where = (spec.training, "training") if own is None else (own, f"{place}.training")
        assert training is None or isinstance(training, ImageTrainingSpec), "others are refused"
        found[target.name] = Said(where, training)
    return found


def preparation_of(records: ImageRecordsSpec, said: Mapping[str, Said]) -> Preparation:
    """How all images are prepared, which is how those of the trainings were.

    Raises
    ------
    InputError
        If the trainings differ in it, or `records.fit` says otherwise.
    """
    trainings = [one for one in said.values() if one.training is not None]
    ways = {(one.known.crop, one.known.interpolation): one.where for one in trainings}
    if not ways:
        return Preparation(records.fit)
    if len(ways) > 1:
        raise InputError(
            f"{' and '.join(ways.values())}: images were prepared in several ways (crop, "
            "interpolation), and the records of one file are prepared in one; audit the targets in "
            "files of their own"
        )
    ((crop, interpolation), where) = next(iter(ways.items()))
    if crop is None:
        if interpolation is not None:
            raise InputError(f"{where}.interpolation: it is of `crop`; say how images were cut")
        return Preparation(records.fit)
    if "fit" in records.model_fields_set:
        raise InputError(f"{where}.crop: give either this or records.fit, which is {records.fit}")
    fit: Literal["stretch", "scale_and_cut"] = "stretch" if crop == "none" else "scale_and_cut"
    return Preparation(fit, interpolation or "bilinear")


def read_as_trained(
    checkpoint: ImageCheckpoint, said: Said, name: str, *, has_captions: bool
) -> ImageCheckpoint:
    """A model as it is asked about records of a training.

    Parameters
    ----------
    has_captions : whether the records have captions of their own.

    Raises
    ------
    InputError
        For what the training says and such a model cannot have been trained with.
    """
    training, where = said.known, said.where
    if not isinstance(checkpoint, DenoiserCheckpoint):
        strange = [key for key in OF_DENOISERS if key in training.model_fields_set]
        if strange:
            raise InputError(
                f"{where}.{strange[0]}: it is of diffusion models, and {name} is of the family "
                f"{checkpoint.family}"
            )
        if training.resolution not in (None, checkpoint.shape[1]):
            raise InputError(
                f"{where}.resolution: {name} takes images of {checkpoint.shape[2]} x "
                f"{checkpoint.shape[1]} alone, but got {training.resolution}"
            )
        return checkpoint
    for key in ("instance_prompt", "caption_dropout"):
        if getattr(training, key) is not None and not checkpoint.is_captioned:
            raise InputError(f"{where}.{key}: {name} is not conditioned on text; leave it out")
    if training.max_caption_tokens is not None and not checkpoint.face.lengths:
        raise InputError(
            f"{where}.max_caption_tokens: {name} has no T5 or Gemma that reads captions, and a "
            "CLIP is asked with as many tokens as it has positions for, also where a training read "
            "longer captions in chunks; leave it out"
        )
    if training.guidance is not None and not checkpoint.query.takes_guidance:
        raise InputError(f"{where}.guidance: {name} is told no guidance; leave it out")
    if training.clip_skip is not None:
        if not checkpoint.face.skips_layers:
            raise InputError(
                f"{where}.clip_skip: it is of Stable Diffusion 1 and 2, and {name} is of the "
                f"family {checkpoint.face.name}, whose layer is always the same; leave it out"
            )
        check_skip(checkpoint, training.clip_skip, f"{where}.clip_skip")
    for key in OF_THE_SCHEDULE:
        if getattr(training, key) is not None and checkpoint.prediction == FLOW:
            raise InputError(f"{where}.{key}: {name} was trained by flow matching; leave it out")
    told = Told(
        training.max_caption_tokens,
        training.guidance,
        training.prediction,
        training.zero_terminal_snr,
        training.clip_skip,
    )
    prompt = training.instance_prompt
    if training.caption_dropout == 1:
        if prompt is not None:
            raise InputError(
                f"{where}.caption_dropout: where all captions were dropped, instance_prompt was, "
                "too; leave it out"
            )
        prompt = "" if has_captions else None
    if training.resolution is None:
        return as_trained(checkpoint, prompt, checkpoint.query.size, told)
    check_resolution(checkpoint, training.resolution, f"{where}.resolution")
    return as_trained(checkpoint, prompt, (training.resolution, training.resolution), told)


def references_as_trained(
    references: Mapping[str, ImageCheckpoint],
    targets: Mapping[str, ImageCheckpoint],
    shadows: Collection[str],
) -> tuple[dict[str, ImageCheckpoint], dict[tuple[str, str], ImageCheckpoint]]:
    """References as they are asked for the first target, and for others that are asked otherwise,
    by their name and the target's.

    Parameters
    ----------
    shadows : names of references that were trained as the targets were.
    """
    found, otherwise = dict(references), {}
    for name, reference in references.items():
        for number, (target_name, target) in enumerate(targets.items()):
            read = _with_query_of(reference, target, is_shadow=name in shadows)
            if number == 0:
                found[name] = read
            elif read.fingerprint != found[name].fingerprint:
                otherwise[name, target_name] = read
    return found, otherwise


def _with_query_of(
    reference: ImageCheckpoint, target: ImageCheckpoint, *, is_shadow: bool
) -> ImageCheckpoint:
    if not isinstance(reference, DenoiserCheckpoint) or not isinstance(target, DenoiserCheckpoint):
        return reference
    prompt = target.query.prompt if reference.is_captioned else None
    size = target.query.size if target.query.is_resized else reference.query.size
    told = target.query.told if reference.face.name == target.face.name else Told()
    if not is_shadow:  # what it learned to predict, its own scheduler file says
        told = replace(told, **dict.fromkeys(OF_THE_SCHEDULE))
    return as_trained(reference, prompt, size, told)


def assumed_of(
    said: Said, name: str, model: ImageCheckpoint, records: ImageRecordsSpec
) -> list[str]:
    """What is not said of a training, each as a sentence; where nothing is said at all, only what
    the model itself is told with each image."""
    denoiser = model if isinstance(model, DenoiserCheckpoint) else None
    unsaid = {} if denoiser is None else _told_with_images(said.known, name, denoiser, records)
    if said.training is not None:
        unsaid |= _of_the_training(said.known, denoiser, records)
    return [f"{said.where}: it is assumed that {line}" for line, is_so in unsaid.items() if is_so]


def _told_with_images(
    training: ImageTrainingSpec, name: str, model: DenoiserCheckpoint, records: ImageRecordsSpec
) -> dict[str, bool]:
    has_captions = records.caption_column is not None or records.folder_prompts
    is_said = training.instance_prompt is not None or training.caption_dropout == 1
    height, width = model.query.size
    return {
        f"{name} was trained with empty captions; say `instance_prompt`, or name the "
        "`caption_column` of the records": model.is_captioned and not (has_captions or is_said),
        f"{name} was told of each image that it was {width} x {height} and that nothing was cut "
        "off; it is asked so, and where it was told otherwise, scores may show less than what "
        "leaks": model.face.is_told_of_cuts,
        f"{name} read {usual_tokens(model)} tokens of each caption, with padding; say "
        "`max_caption_tokens` where its training read another number": (
            model.face.sees_padding and training.max_caption_tokens is None
        ),
        f"{name} was told a guidance of {GUIDANCE:g} with each image; say `guidance` where its "
        "training told it another": model.query.takes_guidance and training.guidance is None,
    }


def _of_the_training(
    training: ImageTrainingSpec, model: DenoiserCheckpoint | None, records: ImageRecordsSpec
) -> dict[str, bool]:
    is_captioned = model is not None and model.is_captioned
    prediction = FLOW if model is None else model.prediction
    schedule = "ends in noise alone" if model is not None and model.ends_in_noise else "is plain"
    return {
        f"images {FIT_IN_WORDS[records.fit]}; say `crop` where the training prepared them "
        "otherwise": training.crop is None,
        "images were scaled by bilinear interpolation; say `interpolation` where they were scaled "
        "otherwise": training.crop is not None and training.interpolation is None,
        "no image was mirrored; say `flip` where some were": training.flip is None,
        "no caption was dropped; say `caption_dropout` where some were": is_captioned
        and training.caption_dropout is None,
        "captions were read by the last layer of the text encoder; say `clip_skip` where it was "
        "one before": model is not None and model.face.skips_layers and training.clip_skip is None,
        "no class images were trained on; name them as `prior_preservation` where some were": (
            is_captioned and "prior_preservation" not in training.model_fields_set
        ),
        "noise had no offset; say `noise_offset` where it had one": model is not None
        and training.noise_offset is None,
        "timesteps were drawn uniformly; say `timesteps` where they were not": model is not None
        and training.timesteps is None,
        "timesteps were weighted alike; say `snr_gamma` where min-SNR weighted them": (
            prediction != FLOW and training.snr_gamma is None
        ),
        f"a network predicts {prediction}, as its scheduler file says; say `prediction` where it "
        "was trained to predict something else, which that file need not say": prediction != FLOW
        and training.prediction is None,
        f"the noise schedule {schedule}, as a network's scheduler file says; say "
        "`zero_terminal_snr` where the training had it otherwise": prediction != FLOW
        and training.zero_terminal_snr is None,
    }


def facts_of(said: Said, records: ImageRecordsSpec) -> list[str]:
    """What a training says that changes what scores mean and not what is asked, as sentences."""
    training, lines = said.known, []
    if training.instance_prompt is not None:
        own = records.caption_column is not None or records.folder_prompts
        instead = ", and not with the captions that they have" if own else ""
        caption = repr(training.instance_prompt)
        lines.append(f"models are asked about records with the caption {caption}{instead}")
    dropped = training.caption_dropout
    if dropped == 1:
        lines.append("all captions were dropped, and models are asked with the empty one")
    elif dropped:
        lines.append(
            f"captions were dropped in {dropped:.0%} of the steps: models are asked with captions, "
            "and the empty one, which attacks on captions compare with, was trained on them too"
        )
    if training.crop == "random":
        lines.append(
            "images were cut at random, and are asked about as they are cut in the center, which "
            "few steps saw: scores show less than what leaks, and neighbors of kind crop little"
        )
    if training.crop == "bucket":
        lines.append(
            "images were trained in buckets of their own aspect, and are asked about as squares, "
            "cut in the center: scores show less than what leaks of those that are no squares"
        )
    if training.flip:
        lines.append(
            "images were mirrored at random, and are asked about as they are, which half of the "
            "steps saw"
        )
    if training.noise_offset:
        lines.append(
            f"noise had an offset of {training.noise_offset:g}; attacks draw it without one, the "
            "same for members and others"
        )
    weights = [
        f"timesteps were drawn by {training.timesteps}"
        if training.timesteps not in (None, "uniform")
        else "",
        f"they were weighted by min-SNR with gamma {training.snr_gamma:g}"
        if training.snr_gamma
        else "",
    ]
    if any(weights):
        lines.append(
            f"{' and '.join(filter(None, weights))}; attacks weigh those under `probes` alike, and "
            "leakage is where the training looked most"
        )
    return [f"{said.where}: {line}" for line in lines]
