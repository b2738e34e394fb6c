"""Sections of the audit file that come in kinds, most of them told apart by their key ``kind``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
)

from pydantic import Discriminator, Field, GetCoreSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema

from raymia.spec.base import DataPath, Name, Paths, Strict
from raymia.storage.manifest import ManifestKind

if TYPE_CHECKING:
    from raymia.spec.target_training import ShadowsSpec

Section = TypeVar("Section", bound=Strict)


class Kinds(Generic[Section]):
    """What a section may be. Stands in the annotation of its key, and can be added to.

    Who adds to it rebuilds the model that has the key; see :func:`raymia.spec.audit.learn_kind`.
    """

    def __init__(self, *sections: type[Section]) -> None:
        self.sections = list(sections)

    @property
    def tags(self) -> set[str]:
        """What the key ``kind`` may be."""
        return {tag for section in self.sections for tag in self._tags_of(section)}

    def _tags_of(self, section: type[Section]) -> set[str]:
        return tags_of(section)

    def add(self, section: type[Section]) -> None:
        """Take another section along.

        Raises
        ------
        ValueError
            If it cannot be told from one that there is.
        """
        if taken := sorted(self.tags & self._tags_of(section)):
            raise ValueError(
                f"the section {section.__name__} is called {taken[0]!r} in audit files, as another "
                "is; rename it"
            )
        self.sections.append(section)

    def tagged(self, tag: Any) -> type[Section] | None:
        """The section whose key ``kind`` is this; None where there is none."""
        found = (one for one in self.sections if isinstance(tag, str) and tag in tags_of(one))
        return next(found, None)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        union: Any = Union[tuple(self.sections)]  # noqa: UP007
        return handler.generate_schema(Annotated[union, Field(discriminator="kind")])


class KindsByName(Kinds[Section]):
    """What a section without a key ``kind`` may be; the tag of each is the name of its class.

    Parameters
    ----------
    which : says of what stands in the file which of the sections it is.
    """

    def __init__(self, which: Callable[[Any], type[Strict]], *sections: type[Section]) -> None:
        super().__init__(*sections)
        self.which = which

    def _tags_of(self, section: type[Section]) -> set[str]:
        return {section.__name__}

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        tagged: Any = tuple(Annotated[one, Tag(one.__name__)] for one in self.sections)
        union: Any = Union[tagged]  # noqa: UP007
        return handler.generate_schema(Annotated[union, Discriminator(self._tag)])

    def _tag(self, value: Any) -> str:
        is_one = type(value) in self.sections
        return type(value).__name__ if is_one else self.which(value).__name__


def tags_of(section: type[Strict]) -> set[str]:
    """What the key ``kind`` of a section may be."""
    return set(_values(section.model_fields["kind"].annotation))


def _values(literal: Any) -> Iterator[str]:
    for value in get_args(literal):
        yield from [value] if isinstance(value, str) else _values(value)


class TrainingFile(Strict):
    """A file that `raymia train` reads: how a model is trained whose members are known."""

    name: Name = Field(default="target", description="name of the training")
    output: DataPath = Field(description="folder of checkpoints, records and `manifest.json`")
    seed: int = Field(default=0, ge=0, description="of the split, the weights and the order")

    def asked_shadows(self) -> ShadowsSpec | None:
        """The shadows that are trained beside the target; None for none."""
        return None


class RecordsSection(Strict):
    """The records of an audit, of some kind.

    Class attributes
    ----------------
    what : what one calls them, in the plural.
    takes : the other sections that fit them: neighbors, references that are made, targets that are
        not given as weights, how targets were trained, a corpus.
    not_for_models : keys of a model that mean nothing for theirs.
    training_file : what `raymia train` reads where a model is trained on such records; None where
        it trains none.
    manifest : the kind of the manifest of a training on them; None where there is none.
    manifest_says_recipe : whether it says how references are trained that a target makes.
    """

    what: ClassVar[str]
    takes: ClassVar[tuple[type[Strict], ...]] = ()
    not_for_models: ClassVar[tuple[str, ...]] = ()
    training_file: ClassVar[type[TrainingFile] | None] = None
    manifest: ClassVar[ManifestKind | None] = None
    manifest_says_recipe: ClassVar[bool] = False

    kind: str = Field(description="of the records")
    members: Paths = Field(default=[], description="records the targets were trained on")
    non_members: Paths = Field(
        default=[], description="held-out records from the same distribution"
    )
    candidates: Paths = Field(
        default=[], description="records whose membership is unknown; scored, not measured"
    )
    population: Paths = Field(
        default=[], description="records that are no members and are not scored"
    )
    split: Literal["randomized"] | None = Field(
        default=None,
        description="`randomized` states that members and non-members are a random split of one "
        "set of records; it is printed, and an alarm of the shift check is then a note",
    )

    @property
    def are_judged(self) -> bool:
        """Whether each says of its answer that it was wanted, or that it was not."""
        return False

    @property
    def are_pairs(self) -> bool:
        """Whether each has two answers, of which one was preferred."""
        return False

    @classmethod
    def check_manifest(cls, manifest: Mapping[str, Any], path: Path, where: str) -> None:
        """Refuse the manifest of a training, as it stands at a path, that says too little.

        Parameters
        ----------
        where : stands before messages.

        Raises
        ------
        InputError
        """

    @classmethod
    def audit_of(cls, manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """What an audit of a training's checkpoints says; see :meth:`check_manifest`."""
        raise NotImplementedError(f"{cls.__name__} should say what an audit of a training is")

    @model_validator(mode="after")
    def _not_empty(self) -> RecordsSection:
        if not (self.members or self.non_members or self.candidates):
            raise ValueError("give at least one path under members, non_members or candidates")
        return self


class NeighborsSection(Strict):
    """What makes the neighbors of a record."""

    kind: str = Field(description="of what makes them")

    def named(self) -> Mapping[str, NeighborsSection]:
        """The sections that it consists of, by their names; one alone has none and is called ""."""
        return {"": self}


class OtherTarget(Strict):
    """A target that is not given as weights.

    Class attributes
    ----------------
    about : says that it is of some kind of records, for a message.
    told_by : its key that no other target has.
    is_generated : whether it is no model, but records that one generated.
    """

    about: ClassVar[str]
    told_by: ClassVar[str]
    is_generated: ClassVar[bool] = False

    name: Name = Field(description="what the report calls it")


class TrainingSection(Strict):
    """How targets were trained; it has no key ``kind``, as the records say which it is."""


class MadeReference(Strict):
    """A reference that is made, for each target anew, of what the target itself generates."""

    kind: str = Field(description="tells this reference from a model")
    base: str | None = Field(
        default=None, description="name of the reference of kind model that is trained further"
    )

    def small(self, items: int, steps: int) -> MadeReference:
        """The same with no more work than tells how long it takes.

        Parameters
        ----------
        items : that the target generates, at least.
        steps : optimizer steps, at most.
        """
        raise NotImplementedError(f"{type(self).__name__} should say what less work of it is")
