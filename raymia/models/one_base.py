"""Loading models that share a base's weights: the base once, and all adapters that fit it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from raymia.util.errors import InputError, RaymiaError
from raymia.util.once import Once


class AdapterError(InputError):
    """An adapter that cannot be put on its base; ``adapter`` says where it lies."""

    adapter = ""


class OnBase(Protocol):
    """A model that is a base, or has adapters on one."""

    @property
    def adapter_places(self) -> tuple[str, ...]: ...

    def check(self, once: Once | None = None) -> None: ...


class LoaderOnBase(Protocol):
    """What loads such a model."""

    @property
    def checkpoint(self) -> OnBase: ...


AnyLoader = TypeVar("AnyLoader", bound=LoaderOnBase)


def load_on_one_base(
    loaders: Sequence[AnyLoader], load: Callable[[Sequence[AnyLoader]], Callable[[int], Any]]
) -> Callable[[int], Any]:
    """Load models that share their base, but for those that cannot be loaded.

    Parameters
    ----------
    load : of loaders, from the place of one to its model; raises AdapterError.

    Returns
    -------
    From a loader's place to its model; for one that cannot be loaded it raises why.
    """
    once = Once()
    wrong: dict[int, str] = {}
    for number, loader in enumerate(loaders):
        try:
            loader.checkpoint.check(once)
        except RaymiaError as error:
            wrong[number] = str(error)
    sound, use = _load_sound(loaders, load, wrong)

    def ready(number: int) -> Any:
        if number in wrong:
            raise RaymiaError(wrong[number])
        return use(sound.index(number))

    return ready


def _load_sound(
    loaders: Sequence[AnyLoader],
    load: Callable[[Sequence[AnyLoader]], Callable[[int], Any]],
    wrong: dict[int, str],
) -> tuple[list[int], Callable[[int], Any]]:
    """Load those that can be; of what cannot, the reason is added to ``wrong``.

    An adapter that does not fit may leave parts of itself on the base, so the base is loaded anew
    without it.
    """
    while sound := [number for number in range(len(loaders)) if number not in wrong]:
        try:
            return sound, load([loaders[number] for number in sound])
        except AdapterError as error:
            wrong |= {
                number: str(error)
                for number in sound
                if error.adapter in loaders[number].checkpoint.adapter_places
            }
    return [], [].__getitem__
