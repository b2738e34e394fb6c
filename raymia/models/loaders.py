"""Small recipes from which an actor loads its model; what travels to a worker, never weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.memory import Memory
from raymia.models.watch import Unchanged, not_watched
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.checkpoint import AnyCheckpoint


@dataclass(frozen=True)
class Sharing:
    """What models have in common that are served by one copy of the base's weights in memory.

    Attributes
    ----------
    base : where the base is, and how it is loaded.
    method : of the adapters, which can be switched; None while there is the bare base alone.
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


class Loader(ABC):
    """Loads a model that questions can be put to.

    Attributes
    ----------
    checkpoint : the files or the server, and the fingerprint that the planner saw; None where no
        model is loaded.
    """

    checkpoint: AnyCheckpoint | None

    @abstractmethod
    def load(self) -> Any:
        """Load the model on the machine this is called on, if it is what the planner saw."""

    def watch(self) -> Unchanged:
        """See :meth:`raymia.models.checkpoint.AnyCheckpoint.watch`; to be called before loading."""
        return not_watched if self.checkpoint is None else self.checkpoint.watch()

    def memory(self, _: Once) -> Memory | None:
        """What an actor holds, about; None where no file says."""
        return None

    @property
    def sharing(self) -> Sharing | None:
        """What models that share the base's weights with this one must have; None where none do."""
        return None

    def load_with(self, _: Sequence[Loader]) -> Callable[[int], Any]:
        """Load this model and others, of which every two share their base, the base once.

        Returns
        -------
        From a model's place, this one's the first, to the model; see :func:`load_together`.
        """
        raise ValueError(f"{type(self).__name__} shares no base")


def load_together(loaders: Sequence[Loader]) -> Callable[[int], Any]:
    """Load models of which every two share their base, the base once.

    Returns
    -------
    From a loader's place to its model, ready to be asked; the one before is so no longer. For a
    model that cannot be loaded it raises why; the others can be asked all the same.
    """
    first, *others = loaders
    if others:
        return first.load_with(others)
    model = first.load()
    return lambda _: model
