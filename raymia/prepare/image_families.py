"""What each family of models of images does for a self-generated reference: its models generate,
and another is trained as they were."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from raymia.models.autoencoders.resolver import AutoencoderCheckpoint
from raymia.models.denoisers.resolver import ADAPTER, DenoiserCheckpoint
from raymia.models.image_source import ImageModel
from raymia.util.errors import InputError

if TYPE_CHECKING:
    from raymia.prepare.self_generated import SelfGeneratedRecipe
    from raymia.prepare.trainer import Progress

Images = npt.NDArray[np.uint8]
"""[images, channels, height, width]."""


class ImageFamily(ABC):
    """A family whose models generate images, and can be trained here."""

    trains_further: ClassVar[bool] = True
    """Whether a reference may go on from the weights of a base."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Keys of a reference that change nothing."""
    smallest_batch: ClassVar[int] = 1
    """Images that a step of the training takes at least."""

    @abstractmethod
    def load(self, checkpoint: Any, batch_images: int) -> Any:
        """Load a model that is to generate."""

    @abstractmethod
    def generate(
        self, model: Any, recipe: SelfGeneratedRecipe, numbers: Sequence[int], progress: Progress
    ) -> Images:
        """Images of some numbers, which a loaded model generates."""

    @abstractmethod
    def train(
        self,
        recipe: SelfGeneratedRecipe,
        images: Images,
        out: Path,
        seed: int,
        progress: Progress,
    ) -> dict[str, Any]:
        """Train a model on images, save it in a folder, and return the facts of the training."""


Kind = TypeVar("Kind", bound=type[ImageFamily])
_FAMILIES: dict[str, ImageFamily] = {}


def generates(family: str) -> Callable[[Kind], Kind]:
    """Make known what a family does; a decorator."""

    def decorate(kind: Kind) -> Kind:
        _FAMILIES[family] = kind()
        return kind

    return decorate


def family_of(target: ImageModel) -> ImageFamily:
    """What the family of a target does.

    Raises
    ------
    InputError
        If its models generate nothing.
    """
    family = find_family(target)
    if family is None:
        raise InputError(
            f"{target.path} is of the family {target.family}, which generates no images here; "
            "leave out the reference of `kind: self_generated`"
        )
    return family


def find_family(target: ImageModel) -> ImageFamily | None:
    """What the family of a target does; None where it does nothing."""
    return _FAMILIES.get(target.trained_as)


@generates(DenoiserCheckpoint.family)
class Denoisers(ImageFamily):
    """Diffusion models, which are trained further or from the beginning."""

    def load(self, checkpoint: DenoiserCheckpoint, batch_images: int) -> Any:
        from raymia.models.denoisers.model import load_denoiser

        return load_denoiser(checkpoint, batch_images=batch_images)

    def generate(
        self, model: Any, recipe: SelfGeneratedRecipe, numbers: Sequence[int], progress: Progress
    ) -> Images:
        from raymia.prepare.generate_images import generate_images

        spec = recipe.spec
        return generate_images(
            model, numbers, seed=recipe.seed, steps=spec.sampling_steps,
            batch=spec.generation_batch, progress=progress, captions=recipe.captions,
            sampler=spec.sampler, guidance=spec.guidance,
        )  # fmt: skip

    def train(
        self,
        recipe: SelfGeneratedRecipe,
        images: Images,
        out: Path,
        seed: int,
        progress: Progress,
    ) -> dict[str, Any]:
        from raymia.prepare.captioned import Captioned, cycled
        from raymia.prepare.train_denoiser import train_denoiser

        assert isinstance(recipe.trained, DenoiserCheckpoint), "others have families of their own"
        captions = cycled(recipe.captions, len(images)) if recipe.captions else None
        return train_denoiser(
            Captioned(images, captions), Path(recipe.trained.path), recipe.spec.training, out,
            seed=seed, progress=progress, from_weights=recipe.base is not None,
            lora=self.lora(recipe), size=recipe.trained.shape[1:],
            told=recipe.trained.query.told,
        )  # fmt: skip

    def lora(self, recipe: SelfGeneratedRecipe) -> Mapping[str, Any] | None:
        """The LoRA that is trained in place of a network."""
        del recipe
        return None


@generates(ADAPTER)
class Adapters(Denoisers):
    """Diffusion models with an adapter; a reference is a fresh one of its shape on its base."""

    trains_further = False

    def lora(self, recipe: SelfGeneratedRecipe) -> Mapping[str, Any]:
        from raymia.models.denoisers.lora import peft_settings

        assert isinstance(recipe.target, DenoiserCheckpoint), "others have no adapters"
        return peft_settings(recipe.target.placed)


@generates(AutoencoderCheckpoint.family)
class Autoencoders(ImageFamily):
    """Autoencoders, of which a reference is a fresh one of the target's architecture."""

    trains_further = False
    unused = frozenset({
        "prompts", "prompt_column", "instance_prompt", "sampler", "guidance", "sampling_steps",
        "training.warmup", "training.ema", "training.flip", "training.crop", "training.timesteps",
    })  # fmt: skip
    smallest_batch = 2  # one image alone has no statistics

    def load(self, checkpoint: AutoencoderCheckpoint, batch_images: int) -> Any:
        from raymia.models.autoencoders.model import load_autoencoder

        return load_autoencoder(checkpoint, batch_images=batch_images)

    def generate(
        self, model: Any, recipe: SelfGeneratedRecipe, numbers: Sequence[int], progress: Progress
    ) -> Images:
        from raymia.prepare.generate_images import decode_prior

        spec = recipe.spec
        return decode_prior(
            model, numbers, seed=recipe.seed, batch=spec.generation_batch, progress=progress
        )

    def train(
        self,
        recipe: SelfGeneratedRecipe,
        images: Images,
        out: Path,
        seed: int,
        progress: Progress,
    ) -> dict[str, Any]:
        from raymia.prepare.train_autoencoder import train_like
        from raymia.spec import AutoencoderTrainingSpec

        training = recipe.spec.training
        settings = AutoencoderTrainingSpec(
            epochs=math.ceil(training.steps * training.batch_size / len(images)),
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
        )
        folder = Path(recipe.trained.path)
        return train_like(folder, images, settings, out, seed=seed, progress=progress)
