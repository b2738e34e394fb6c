"""What the audit file says of images: neighbors, questions, references."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from raymia.spec.base import Paths, Share, Strict
from raymia.spec.kinds import MadeReference, NeighborsSection, TrainingSection

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""
Fit = Literal["exact", "crop", "pad", "stretch"]
Deep = Literal["set_aside", "high_byte"]
Sampler = Literal["ddim", "ddpm"]
TrainedCrop = Literal["center", "random", "bucket", "none"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
TimestepSampling = Literal["uniform", "logit_normal", "mode"]
Perturbation = Literal[
    "crop", "brightness", "contrast", "saturation", "hue", "rotation", "perspective",
    "downsampling", "jpeg", "blur",
]  # fmt: skip


class ImageNeighbors(NeighborsSection):
    """Neighbors of an image: one perturbation at growing strengths; made beside the model.

    `auto` makes those of every kind in `among` and lets attacks use the kind that tells members
    best on a tenth of the records, which they then do not score, or on a shadow.
    """

    kind: Perturbation | Literal["auto"] = Field(default="crop", description="what is done to it")
    strengths: list[float] | None = Field(
        default=None,
        min_length=1,
        description="default: ten of each kind, given in docs/images.md; not with auto",
    )
    among: list[Perturbation] = Field(
        default=["crop", "rotation", "perspective", "downsampling", "jpeg", "blur"],
        min_length=1,
        description="the kinds that auto chooses from",
    )

    @model_validator(mode="after")
    def _strengths_are_of_one_kind(self) -> Self:
        if self.kind == "auto" and self.strengths is not None:
            raise ValueError("`strengths` are those of one kind; leave them out with kind auto")
        return self

    @field_validator("among")
    @classmethod
    def _each_once(cls, among: list[Perturbation]) -> list[Perturbation]:
        twice = [kind for kind in dict.fromkeys(among) if among.count(kind) > 1]
        if twice:
            raise ValueError(f"{twice[0]} comes {among.count(twice[0])} times; name each kind once")
        return among

    @property
    def kinds(self) -> list[Perturbation]:
        """The perturbations that are asked about."""
        return self.among if self.kind == "auto" else [self.kind]


Step = int | float
"""A place on a model's path to noise: a timestep, which is whole, or a share of the path."""
Timestep = Annotated[int, Field(ge=0)]
Place = Timestep | Share
Timesteps = Annotated[list[Place], Field(min_length=1)]


class DenoisingSpec(Strict):
    """The denoising error of a diffusion model."""

    timesteps: Timesteps = Field(
        default=[50, 100, 150, 200, 250, 300, 350, 400, 450, 500],
        description="of the model's noise schedule, or shares of it",
    )
    draws: int = Field(default=1, ge=1, le=1000, description="noise draws per timestep")
    noise: Literal["shared", "independent"] = Field(
        default="shared",
        description="whether a record and its neighbors are given the same noise; independent is "
        "what PFAMI's released code does",
    )


class InversionSpec(Strict):
    """The error of a step up and a step back after DDIM inversion (SecMI)."""

    timestep: Place = Field(
        default=100, description="where the error is measured, or a share of the noise schedule"
    )
    step: Place = Field(
        default=10, description="from one step to the next, a share where `timestep` is one"
    )

    @model_validator(mode="after")
    def _whole_steps(self) -> Self:
        if isinstance(self.timestep, int) != isinstance(self.step, int):
            raise ValueError("`timestep` and `step` should both be timesteps, or both be shares")
        count = self.timestep / self.step if self.step else 0
        if count < 1 or abs(count - round(count)) > 1e-6:
            raise ValueError(
                f"timestep {self.timestep} should be a multiple of step {self.step}, at least one"
            )
        if isinstance(self.timestep, float) and self.timestep + self.step > 1 - 1e-6:
            raise ValueError(
                "the error is measured after one step more than `timestep`, which should end "
                f"before 1, where all is noise, but {self.timestep} and {self.step} are "
                f"{self.timestep + self.step:g}; give smaller shares"
            )
        return self

    @property
    def steps(self) -> int:
        """How many there are on the way."""
        return round(self.timestep / self.step)


class TimestepsSpec(Strict):
    """At which timesteps a question that draws no noise is asked."""

    timesteps: Timesteps = Field(
        default=[100, 200, 300], description="of the noise schedule, or shares of it"
    )


class AveragedSpec(Strict):
    """The noise that a diffusion model sees on average over draws (SimA-MC)."""

    timesteps: Timesteps = Field(
        default=[100, 200, 300], description="of the noise schedule, or shares of it"
    )
    pairs: int = Field(
        default=8, ge=1, le=1000, description="of draws per timestep, a draw and its opposite"
    )


class ElboSpec(Strict):
    """The terms of the evidence lower bound of an autoencoder."""

    draws: int = Field(default=10, ge=1, le=1000, description="latent draws per image")


class DescentSpec(Strict):
    """The search for the latents that an autoencoder reproduces an image from best."""

    steps: int = Field(default=100, ge=1, le=10_000, description="steps of Adam per image")
    rate: float = Field(default=0.05, gt=0, description="of the steps, in latent units")


class CaptionsSpec(Strict):
    """With which captions, beside its own, models are asked about a record."""

    reductions: int = Field(
        default=4, ge=1, le=20, description="reduced captions, the empty one among them"
    )
    timesteps: Timesteps = Field(
        default=[200, 400, 600], description="of the noise schedule, or shares of it"
    )
    others: int = Field(
        default=2, ge=1, le=20, description="captions of the population in its own's place"
    )


class DiffusionTrainingSpec(Strict):
    """How a diffusion model is trained."""

    steps: int = Field(default=1_000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=32, ge=1, description="images per step")
    learning_rate: float = Field(default=2e-4, gt=0, description="after the warm-up; falls to zero")
    warmup: int = Field(default=100, ge=0, description="steps over which the rate rises")
    ema: Share | None = Field(
        default=None, description="decay of a running mean of the weights, which is what is saved"
    )
    flip: bool = Field(default=False, description="mirror half of the images")
    crop: bool = Field(default=False, description="cut out a part at random and scale it")
    timesteps: Literal["uniform", "logit_normal"] = Field(
        default="uniform",
        description="how they are drawn: evenly, or more often in the middle of the path, as SD3's "
        "(the logistic function of a normal number)",
    )

    @property
    def warm_up_problems(self) -> list[str]:
        """What is wrong with the warm-up; an autoencoder has none."""
        if self.warmup < self.steps:
            return []
        return [
            f"the warm-up of {self.warmup} steps should be shorter than the training of "
            f"{self.steps}; make warmup smaller"
        ]

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where timesteps say nothing new, keys are those from before they could be chosen."""
        content: dict[str, Any] = dump(self)
        if content.get("timesteps") == "uniform":
            del content["timesteps"]
        return content


class ImageTrainingSpec(TrainingSection):
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
    max_caption_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens that a T5 or a Gemma read of a caption; default: as many as in the "
        "model's pipeline",
    )
    clip_skip: int | None = Field(
        default=None,
        ge=1,
        description="from which layer of its CLIP a Stable Diffusion 1 or 2 was given captions, "
        "counted from the last, which is 1; default: 1",
    )
    guidance: float | None = Field(
        default=None,
        ge=0,
        description="that a network was told which takes one, as FLUX.1's; default: 1",
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
        "the `center` or at `random`; `bucket`, of several shapes, asked about as squares; or "
        "`none`, stretched. In place of `records.fit`",
    )
    interpolation: Interpolation | None = Field(
        default=None, description="how they were scaled, with `crop`; default: bilinear"
    )
    flip: bool | None = Field(
        default=None, description="whether half of the steps saw the mirror image"
    )
    prediction: Prediction | None = Field(
        default=None,
        description="what the network learned to predict; default: what its scheduler file says",
    )
    zero_terminal_snr: bool | None = Field(
        default=None,
        description="whether the noise schedule was rescaled to end in noise alone; default: as "
        "its scheduler file says",
    )
    noise_offset: float | None = Field(
        default=None, ge=0, description="how far each channel's noise was shifted"
    )
    timesteps: TimestepSampling | None = Field(
        default=None, description="how timesteps were drawn in training"
    )
    snr_gamma: float | None = Field(
        default=None, ge=0, description="gamma of the min-SNR weights of timesteps; 0 for none"
    )
    prior_preservation: Paths = Field(
        default=[],
        description="class images of DreamBooth, which the base made: no member is one of them",
    )


class AutoencoderTrainingSpec(Strict):
    """How an autoencoder is trained."""

    epochs: int = Field(default=100, ge=1, description="passes over the images")
    batch_size: int = Field(
        default=64, ge=2, description="images per step, at most; epochs are cut into equal steps"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="of Adam; constant")


class SelfGeneratedReference(MadeReference):
    """A model of the target's kind, trained on images that the target itself generated.

    The image side of `self_prompt`: it knows the domain as the target does, and has not seen the
    members.
    """

    kind: Literal["self_generated"] = Field(description="tells this reference from a model")
    base: str | None = Field(
        default=None,
        description="name of the reference of kind model that is trained further; default: a fresh "
        "model of the target's architecture",
    )
    images: int = Field(default=1_000, ge=2, description="how many images the target generates")
    prompts: Paths = Field(
        default=[],
        description="files of captions that are none of a record's, which a target that takes "
        "captions generates images of, in turn: a line each, or tables",
    )
    prompt_column: str = Field(default="caption", description="name of the prompts' column")
    instance_prompt: str | None = Field(
        default=None, description="one caption for all images, as that of a DreamBooth training"
    )
    sampler: Sampler = Field(
        default="ddim", description="`ddpm` draws noise on the way, `ddim` does not"
    )
    guidance: float = Field(
        default=1.0,
        ge=0,
        description="how far captions pull, by classifier-free guidance; 1 is the model itself",
    )
    sampling_steps: int = Field(default=50, ge=1, description="steps of the sampler per image")
    generation_batch: int = Field(default=64, ge=1, description="images generated side by side")
    training: DiffusionTrainingSpec = Field(
        default=DiffusionTrainingSpec(), description="how the reference is trained on them"
    )

    @model_validator(mode="after")
    def _captions_are_given_once(self) -> Self:
        if self.prompts and self.instance_prompt is not None:
            raise ValueError("give either `prompts` or `instance_prompt`")
        return self

    def small(self, items: int, steps: int) -> Self:
        steps = min(self.training.steps, steps)
        few = {"steps": steps, "warmup": min(self.training.warmup, steps - 1)}
        return self.model_copy(update={
            "images": min(self.images, max(items, self.generation_batch)),
            "training": self.training.model_copy(update=few),
        })  # fmt: skip
