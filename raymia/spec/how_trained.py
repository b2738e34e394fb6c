"""How targets of images were trained: what records are made of, and what they are asked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from raymia.spec.base import Paths, Strict
from raymia.spec.training import TrainingSpec

TrainedCrop = Literal["center", "random", "none"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
TimestepSampling = Literal["uniform", "logit_normal", "mode"]


class ImageTrainingSpec(Strict):
    """How a target of images was trained; what is not said is assumed, and the report says what.

    docs/images.md says what the scripts of diffusers and of kohya call these.
    """

    instance_prompt: str | None = Field(
        default=None,
        description="the one caption of all images, as in DreamBooth, in place of those of the "
        "records",
    )
    caption_dropout: float | None = Field(
        default=None, ge=0, le=1, description="share of steps in which the caption was left out"
    )
    resolution: int | None = Field(
        default=None,
        ge=2,
        description="height and width that images were brought to; default: what the model is made "
        "for",
    )
    crop: TrainedCrop | None = Field(
        default=None,
        description="how: the shorter side scaled to the resolution, and the rest cut off about "
        "the `center` or at `random`; or `none`, stretched. In place of `records.fit`",
    )
    interpolation: Interpolation | None = Field(
        default=None, description="how they were scaled, with `crop`; default: bilinear"
    )
    flip: bool | None = Field(
        default=None, description="whether half of the steps saw the mirror image"
    )
    noise_offset: float | None = Field(
        default=None, ge=0, description="how far each channel's noise was shifted"
    )
    timesteps: TimestepSampling | None = Field(
        default=None, description="how timesteps were drawn in training"
    )
    snr_gamma: float | None = Field(
        default=None, gt=0, description="gamma of the min-SNR weights of timesteps"
    )
    prior_preservation: Paths = Field(
        default=[],
        description="class images of DreamBooth, which the base made: no member is one of them",
    )


class OfImages(dict[str, Any]):
    """What an audit file says of the training of a target of images, as it stands there."""


TRAININGS = (TrainingSpec.__name__, ImageTrainingSpec.__name__)
"""Tags by which pydantic tells what `training` holds."""


def _kind_of_training(value: Any) -> str:
    return TRAININGS[isinstance(value, OfImages | ImageTrainingSpec)]


AnyTraining = Annotated[
    Annotated[TrainingSpec, Tag(TRAININGS[0])] | Annotated[ImageTrainingSpec, Tag(TRAININGS[1])],
    Discriminator(_kind_of_training),
]


def with_trainings_of_images(content: Any) -> Any:
    """The content of an audit file, where each `training` is one of images if the records are."""
    records = content.get("records") if isinstance(content, dict) else None
    kind = records.get("kind") if isinstance(records, dict) else getattr(records, "kind", None)
    if kind != "image":
        return content
    content = _marked(content)
    if isinstance(targets := content.get("targets"), list):
        content = {**content, "targets": [_marked(target) for target in targets]}
    return content


def _marked(section: Any) -> Any:
    said = section.get("training") if isinstance(section, Mapping) else None
    return {**section, "training": OfImages(said)} if isinstance(said, dict) else section
