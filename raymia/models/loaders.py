"""Small recipes from which an actor loads its model; what travels to a worker, never weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from raymia.models.causal.adapters import AdapterError, switchable_method
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.model import Endpoint, connect
from raymia.models.image_source import ImageCheckpoint, image_fingerprint
from raymia.models.source import Checkpoint, fingerprint
from raymia.util.errors import RaymiaError
from raymia.util.once import Once


class Loader(Protocol):
    """Loads a model that probes can be put to."""

    @property
    def checkpoint(self) -> AnyCheckpoint | None:
        """The files or the server, and the fingerprint that the planner saw; None where no model is
        loaded."""

    def load(self) -> Any:
        """Load the model on the machine this is called on."""


@dataclass(frozen=True)
class Sharing:
    """What models have in common that are served by one copy of the base's weights in memory.

    The base is the same folder in the same quantization and dtype, and what is put on it can be
    switched: the bare base, and adapters of one :func:`switchable_method`.

    Attributes
    ----------
    base : where the base is, and how it is loaded.
    method : of the adapters; None while there is the bare base alone.
    """

    base: tuple[Any, ...]
    method: str | None

    def joined(self, other: Sharing | None) -> Sharing | None:
        """What both have in common; None where one copy does not serve both."""
        if other is None or self.base != other.base:
            return None
        if None not in (self.method, other.method) and self.method != other.method:
            return None
        return Sharing(self.base, self.method or other.method)


def _check(checkpoint: Checkpoint | ImageCheckpoint, once: Once | None = None) -> None:
    """Refuse files other than those the plan was made for.

    A folder that changed, or another machine's stale copy of it, would file one checkpoint's
    answers under the key of another.
    """
    try:
        if isinstance(checkpoint, ImageCheckpoint):
            found = image_fingerprint(checkpoint)
        else:
            found = fingerprint(checkpoint, once)
    except OSError as error:
        found = f"none: {error}"
    if found != checkpoint.fingerprint:
        raise RaymiaError(
            f"{checkpoint.label}: these are not the files that the audit was "
            f"planned with (fingerprint {found}, expected {checkpoint.fingerprint}). Every machine "
            "must see the same checkpoint, and nothing may write to it during an audit"
        )


@dataclass(frozen=True)
class CausalLMLoader:
    """Loads a causal language model."""

    checkpoint: Checkpoint
    batch_tokens: int

    @cached_property
    def sharing(self) -> Sharing | None:
        """What it has in common with those that can be held beside it; None where none can."""
        c = self.checkpoint
        method = None if c.adapter is None else switchable_method(c.adapter)
        if c.adapter is not None and method is None:
            return None
        base = (c.path, c.gguf_file, c.quantization, c.dtype, c.trust_remote_code)
        return Sharing(base, method)

    def load(self) -> Any:
        from raymia.models.causal.model import load_causal_lm

        _check(self.checkpoint)
        return load_causal_lm(self.checkpoint, batch_tokens=self.batch_tokens)


@dataclass(frozen=True)
class EndpointLoader:
    """Connects to a language model behind an endpoint, whose limits ``actors`` workers share."""

    checkpoint: Endpoint
    actors: int

    def load(self) -> Any:
        return connect(self.checkpoint, share=self.actors)


@dataclass(frozen=True)
class ImageModelLoader:
    """Loads a model of images."""

    checkpoint: ImageCheckpoint
    batch_images: int

    def load(self) -> Any:
        _check(self.checkpoint)
        if self.checkpoint.family == "autoencoder":
            from raymia.models.autoencoders.model import load_autoencoder

            return load_autoencoder(self.checkpoint, batch_images=self.batch_images)
        if self.checkpoint.family == "pixels":
            from raymia.models.pixels.model import load_pixel_model

            return load_pixel_model(self.checkpoint, batch_images=self.batch_images)
        from raymia.models.denoisers.model import load_denoiser

        return load_denoiser(self.checkpoint, batch_images=self.batch_images)


@dataclass(frozen=True)
class MaskFillerLoader:
    """Loads a T5-like model that fills masks."""

    checkpoint: Checkpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.paraphrasers.mask_filler import load_mask_filler

        _check(self.checkpoint)
        return load_mask_filler(self.checkpoint.path, batch_tokens=self.batch_tokens)


def sharing_of(loader: Loader) -> Sharing | None:
    """What models that share the base's weights with this one must have; None where none do."""
    return loader.sharing if isinstance(loader, CausalLMLoader) else None


def load_together(loaders: Sequence[Loader]) -> Callable[[int], Any]:
    """Load models of which every two share their base, the base once.

    Returns
    -------
    From a loader's place to its model, ready to be asked; the one before is so no longer. For a
    model that cannot be loaded it raises why; the others can be asked all the same.
    """
    family = [loader for loader in loaders if isinstance(loader, CausalLMLoader)]
    if len(family) < len(loaders) or len(loaders) == 1:
        (only,) = loaders
        model = only.load()
        return lambda _: model
    once = Once()
    wrong: dict[int, str] = {}
    for number, loader in enumerate(family):
        try:
            _check(loader.checkpoint, once)
        except RaymiaError as error:
            wrong[number] = str(error)
    sound, use = _load_sound(family, wrong)

    def ready(number: int) -> Any:
        if number in wrong:
            raise RaymiaError(wrong[number])
        return use(sound.index(number))

    return ready


def _load_sound(
    family: Sequence[CausalLMLoader], wrong: dict[int, str]
) -> tuple[list[int], Callable[[int], Any]]:
    """Load those of a family that can be; of what cannot, the reason is added to ``wrong``.

    An adapter that does not fit may leave parts of itself on the base, so the base is loaded anew
    without it.
    """
    from raymia.models.causal.model import CausalLMFamily

    while sound := [number for number in range(len(family)) if number not in wrong]:
        chosen = [family[number] for number in sound]
        try:
            loaded = CausalLMFamily(
                [one.checkpoint for one in chosen], [one.batch_tokens for one in chosen]
            )
            return sound, loaded.use
        except AdapterError as error:
            wrong |= {
                number: str(error)
                for number in sound
                if family[number].checkpoint.adapter == error.folder
            }
    return [], [].__getitem__


@dataclass(frozen=True)
class CausalInfillerLoader:
    """Loads a causal language model that fills spans."""

    checkpoint: Checkpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.causal.model import load_causal_lm
        from raymia.models.paraphrasers.infiller import CausalInfiller

        _check(self.checkpoint)
        return CausalInfiller(load_causal_lm(self.checkpoint, batch_tokens=self.batch_tokens))
