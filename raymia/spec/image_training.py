"""The training file of images: a LoRA of a diffusion model whose members are known."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raymia.spec.base import DataPath, Paths, Strict, Weights
from raymia.spec.images import DiffusionTrainingSpec, Fit
from raymia.spec.kinds import Kinds, TrainingFile
from raymia.spec.methods import DoraMethod, LoraMethod, LowRank
from raymia.spec.prices import CostsSpec
from raymia.spec.target_training import DpSpec

IMAGE_METHODS = Kinds(LoraMethod, DoraMethod)


class TrainedImagesSpec(Strict):
    """Images of which some, drawn at random, are trained on."""

    kind: Literal["image"] = Field(description="tells images from texts")
    files: Paths = Field(min_length=1, description="folders, tables or tars, as an audit reads")
    image_column: str = Field(default="image", description="of a table")
    caption_column: str | None = Field(
        default=None, description="of a table, or suffix of the files beside images, such as txt"
    )
    instance_prompt: str | None = Field(default=None, description="one caption for all images")
    group_column: str | None = Field(
        default=None,
        description="of a table; images of one group are all trained on, or all held out",
    )
    fit: Fit = Field(default="exact", description="what is done to images of another size")
    upscale: bool = Field(default=False, description="scale images up that are smaller than that")

    @model_validator(mode="after")
    def _one_caption(self) -> TrainedImagesSpec:
        if self.caption_column is not None and self.instance_prompt is not None:
            raise ValueError(
                "an image is trained on with one caption; give either `caption_column` or "
                "`instance_prompt`"
            )
        return self


class ImageSplitSpec(Strict):
    """How many images are drawn, and on which side."""

    members: int = Field(ge=1, description="images that are trained on")
    held_out: int = Field(ge=1, description="images that are not")


class LoraTrainingSpec(TrainingFile):
    """One training of a LoRA: base, images, method, options."""

    output: DataPath = Field(description="folder of checkpoints, images and `manifest.json`")
    base: Weights = Field(description="folder of the diffusers pipeline that is adapted")
    records: TrainedImagesSpec = Field(description="what is trained on, and what is held out")
    split: ImageSplitSpec = Field(description="how many images are drawn")
    method: Annotated[LowRank, IMAGE_METHODS] = Field(
        default=LoraMethod(), description="what of the network is changed; by default attention"
    )
    training: DiffusionTrainingSpec = Field(
        default=DiffusionTrainingSpec(), description="options of the training"
    )
    epochs: float | None = Field(
        default=None, gt=0, description="passes over the members, in place of `training.steps`"
    )
    checkpoint_every: int | None = Field(
        default=None, ge=1, description="steps from one checkpoint to the next; the last is kept"
    )
    dp: DpSpec | None = Field(default=None, description="private training, of raymia[train]")
    costs: CostsSpec | None = Field(default=None, description="prices, for `raymia plan`")

    @field_validator("method", mode="before")
    @classmethod
    def _name_is_a_method(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _go_together(self) -> LoraTrainingSpec:
        if self.dp is not None and isinstance(self.method, DoraMethod):
            raise ValueError(
                "dp: opacus does not find the gradients of single images in a DoRA; take `lora`"
            )
        if self.epochs is not None and "steps" in self.training.model_fields_set:
            raise ValueError("give either `epochs` or `training.steps`")
        return self
