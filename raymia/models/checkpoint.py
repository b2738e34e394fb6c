"""What every family of models gives: a checkpoint that is resolved from its files' headers.

A family is a folder beside this file, with a ``resolver`` (its checkpoint, and what it can be asked
or why it is refused), a ``loader`` (what an actor loads it from) and its ``memory``. None of the
three loads a model, or imports one's library where it is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from raymia.evidence.answers import MADE_BY, MODEL_NEEDS
from raymia.models.loaders import Loader
from raymia.models.source import ADAPTER_CONFIG, PROVENANCE, read_json
from raymia.models.watch import Unchanged, Watch, not_watched
from raymia.spec import PoolSpec
from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest
from raymia.util.once import Once

CONFIGS = ("config.json", "model_index.json", ADAPTER_CONFIG)
"""Names of files that say what a model is made of."""


@dataclass(frozen=True)
class Capabilities:
    """What a model gives of :data:`raymia.evidence.answers.MODEL_NEEDS`.

    Attributes
    ----------
    family : of models it is of, for messages.
    gives : their names.
    lacks : why it does not give others, for a person to read; for those that are not in it a plain
        reason is made.
    """

    family: str
    gives: frozenset[str]
    lacks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = {*self.gives, *self.lacks} - {*MODEL_NEEDS}
        if unknown or self.gives & {*self.lacks}:
            raise ValueError(f"{self.family}: gives {self.gives}, and lacks {self.lacks}")

    def why_not(self, wanted: Iterable[str]) -> list[str]:
        """The reasons why a model lacks what is wanted, one for each thing.

        Parameters
        ----------
        wanted : their names; others are of no concern here.
        """
        missing = {MADE_BY.get(name, name) for name in {*wanted} - self.gives} - self.gives
        reasons = (
            self.lacks.get(name, f"a model of the kind {self.family} does not give {what}")
            for name, what in MODEL_NEEDS.items()
            if name in missing
        )
        return list(dict.fromkeys(reasons))


@dataclass(frozen=True)
class AnyCheckpoint(ABC):
    """A model resolved, small, for actors.

    Attributes
    ----------
    fingerprint : hash of everything that can change an answer.
    """

    fingerprint: str = field(default="", kw_only=True)

    family: ClassVar[str]
    """What plans, reports and attacks call the family."""
    computes: ClassVar[bool] = True
    """Whether an actor holds the model itself, and not a connection to it."""

    @property
    def answers_like(self) -> str:
        """The family that it answers as, so that their answers can be compared."""
        return self.family

    @property
    @abstractmethod
    def label(self) -> str:
        """What plans and reports call it."""

    @abstractmethod
    def loader(self, pool: PoolSpec) -> Loader:
        """How an actor of a pool loads it."""

    def watch(self) -> Unchanged:
        """Look at its files as they are now, before :meth:`FileCheckpoint.check` hashes them.

        Returns
        -------
        Raises RaymiaError where they were written to since. For a model that is no files it does
        nothing.
        """
        return not_watched

    def pool(self, given: PoolSpec) -> PoolSpec:
        """The pool that it is asked by, of that which the audit file gives its role."""
        return given if self.computes else given.without_gpus

    @property
    def capabilities(self) -> Capabilities:
        """What it can be asked."""
        return Capabilities(self.family, frozenset())

    @property
    def tokenization(self) -> str | None:
        """Hash of what decides how texts are cut into tokens; None where that is not known."""
        return None

    @property
    def reading(self) -> str | None:
        """Hash of all that decides what records are read as, where its model has `readings`
        (:class:`raymia.models.causal.readings.Readings`) that may be passed on; else None."""
        return None

    def describe(self) -> str:
        """A few facts, for a person to read."""
        return self.family

    def architecture(self, _: Once) -> Any:
        """See :func:`architecture`."""
        return type(self).__name__


@dataclass(frozen=True)
class FileCheckpoint(AnyCheckpoint):
    """A model in a folder.

    Attributes
    ----------
    path : the folder.
    quantization, dtype : what it is loaded in.
    """

    path: str
    quantization: str
    dtype: str

    @property
    def label(self) -> str:
        return self.path

    @property
    def folders(self) -> list[Path]:
        """All that it is read from."""
        return [Path(self.path)]

    def architecture(self, once: Once) -> Any:
        files = sorted(file for folder in self.folders for file in once(_configs, folder))
        return [[once(_config_hash, file) for file in files], self.quantization, self.dtype]

    @abstractmethod
    def take_fingerprint(self, once: Once) -> str:
        """Hash everything in its folders that can change an answer, and what it is loaded with.

        Two copies of the same files have the same fingerprint wherever they lie.
        """

    def with_fingerprint(self, once: Once | None = None) -> Self:
        """The same with the fingerprint of the files as they are now."""
        return replace(self, fingerprint=self.take_fingerprint(once or Once()))

    def watch(self) -> Unchanged:
        return Watch(self).check

    def check(self, once: Once | None = None) -> None:
        """Refuse files other than those that the plan was made for.

        A folder that changed, or another machine's stale copy of it, would file one checkpoint's
        answers under the key of another.

        Raises
        ------
        RaymiaError
            Naming both fingerprints.
        """
        try:
            found = self.take_fingerprint(once or Once())
        except (OSError, InputError) as error:
            found = f"none: {error}"
        if found != self.fingerprint:
            raise RaymiaError(
                f"{self.label}: these are not the files that the audit was "
                f"planned with (fingerprint {found}, expected {self.fingerprint}). Every machine "
                "must see the same checkpoint, and nothing may write to it during an audit"
            )


def architecture(checkpoint: AnyCheckpoint | None, once: Once | None = None) -> Any:
    """What says how much a model computes: its config files, quantization and precision.

    Parameters
    ----------
    checkpoint : None stands for what is no model.
    once : of all checkpoints that are looked at together.
    """
    return "NoneType" if checkpoint is None else checkpoint.architecture(once or Once())


def _configs(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.json") if file.name in CONFIGS]


def _config_hash(file: Path) -> str:
    config = read_json(file)
    return digest({key: value for key, value in config.items() if key not in PROVENANCE})
