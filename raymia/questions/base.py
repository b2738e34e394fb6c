"""What a question is: what is put to a model about records, and the evidence that it gives.

The engine, the store and the planner know questions by this page alone, whatever the records are.
A question that attacks may ask is one registered class; see :func:`register_question`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa

from raymia.evidence.answers import MODEL_NEEDS, add_answer_name, drop_answer_name, holder_of
from raymia.evidence.integrity import learn_schema
from raymia.evidence.store import EvidenceKey
from raymia.spec import AuditSpec
from raymia.spec.images import Shape
from raymia.util.plugins import (
    NAME,
    Portable,
    check_name,
    check_names,
    code_digest,
    is_in,
    is_outside,
    note_registered,
    on_forget,
    origin,
    unwritten,
)

RECORD = 0
"""Neighbor index of the record itself; its neighbors are numbered from 1."""

KEY_FIELDS = [("record_id", pa.string()), ("neighbor", pa.int16())]
"""Columns that every table of evidence begins with; its last is ``error``, a string."""

ACCESS = (
    "generated text",
    "log-probabilities",
    "answers to any input",
    "distribution of each token",
    "weights",
)
"""What an auditor must be able to get from a model, the least first."""

_KIND = re.compile(r"[a-z][a-z0-9_.]*")


@dataclass(frozen=True)
class Item:
    """One question's subject: a record, or one neighbor of it.

    ``payload`` is None where a neighbor could not be made; the answer then says so.
    """

    record_id: str
    neighbor: int
    payload: Any


@dataclass(frozen=True)
class Setup:
    """What a question is set up from.

    Attributes
    ----------
    spec : the audit file.
    family : of the model that is asked, as "causal" or "denoiser".
    population, known_members : payloads that are no records, by record id.
    neighbors : of the neighbors that stages make, by their names in the audit file: how many per
        record, the hash of their key, and their place among the names.
    latent_shape : of what the network of a model of images sees.
    """

    spec: AuditSpec
    family: str = "causal"
    population: Mapping[str, Any] = field(default_factory=dict)
    known_members: Mapping[str, Any] = field(default_factory=dict)
    neighbors: Mapping[str, tuple[int, str, int]] = field(default_factory=dict)
    latent_shape: Shape | None = None

    @property
    def seed(self) -> int:
        return self.spec.seed


class Question(Portable, ABC):
    """A question that a kind of model can answer.

    Subclasses are frozen dataclasses: their fields are what a question is set up with, so that it
    is small and can be sent to where the model is. By default a question is asked once about each
    record, whose own payload its items carry.

    Class attributes
    ----------------
    kind : names the evidence table.
    version : of the code that computes the answer: whoever changes what an answer is raises it, and
        old evidence is not read as new.
    schema : columns of the table: :data:`KEY_FIELDS`, what the question is about, and ``error``, a
        string that says why there is no answer.
    subject : what an item's payload is: the record's own for every index, or the neighbor's for
        indices from 1.
    makes_neighbors : the answers have a column ``payload``: what later questions are asked about.

    Of questions that attacks ask:

    name : what attacks call it in ``asks``.
    records : the kinds of records it is about.
    families : of models that can answer it. Several classes may have one name, each for families of
        its own.
    needs : what it needs of a model that not every model of these families gives; of
        :data:`raymia.evidence.answers.MODEL_NEEDS`.
    access : what an auditor must be able to get from a model to put it; of :data:`ACCESS`.
    cost : queries per record in the audit file's own counts: n neighbors, s swaps or strengths of a
        perturbation, z pairs of noise, m samples, t timesteps and draws or latent draws, i steps of
        the inversion and back, p, c and k timesteps, r reduced captions, o captions of others, d
        steps of a search.
    section : of `probes` in the audit file that sets it up, where there is one.
    always_asked : asked of every model that is asked at all.
    includes : classes it is a subclass of whose answers its own contain; they are not asked beside
        it.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    schema: ClassVar[pa.Schema]
    subject: ClassVar[Literal["record", "neighbor"]] = "record"
    makes_neighbors: ClassVar[bool] = False

    name: ClassVar[str]
    records: ClassVar[tuple[str, ...]] = ("text",)
    families: ClassVar[frozenset[str]] = frozenset({"causal"})
    needs: ClassVar[frozenset[str]] = frozenset()
    access: ClassVar[str] = "log-probabilities"
    cost: ClassVar[str] = "1"
    section: ClassVar[str | None] = None
    always_asked: ClassVar[bool] = False
    includes: ClassVar[tuple[type[Any], ...]] = ()

    code: ClassVar[str | None] = None
    """Hash of the code of a question from outside, which is part of its key."""

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        """The question as the audit file sets it up; several where it is put in several ways."""
        del setup
        return [cls()]

    @classmethod
    def lacking(cls, spec: AuditSpec) -> str | None:
        """What an audit file does not give that this question needs, as "needs ...; add ..."; None
        where it gives everything."""
        return lacking_neighbors(spec) if cls.subject == "neighbor" else None

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        """Whether it costs more than an audit file pays for that does not mention it: attacks that
        ask it are then run only where they are named."""
        del spec
        return False

    @property
    def label(self) -> str:
        """What plans call it: its name, or ``name.variant`` where it is put in several ways."""
        return self.name

    @property
    def names(self) -> frozenset[str]:
        """All names that attacks may ask it by."""
        return frozenset({self.name, *(kind.name for kind in self.includes)})

    def indices(self) -> range:
        """Neighbor indices that are asked about for each record."""
        return range(RECORD, RECORD + 1)

    @property
    def neighbors_place(self) -> int:
        """Whose neighbors it makes or is about, where an audit has several kinds of them: their
        place among their names. No part of a key."""
        return 0

    def key_parts(self) -> Mapping[str, Any]:
        """Everything that changes an answer but the model itself and the code."""
        return {}

    @property
    def passes(self) -> int:
        """Passes through the model per item, as far as that is a fixed number."""
        return 1

    def prepare(self, model: Any, items: Sequence[Item]) -> None:
        """Do what needs no device, as tokenizing, before the question is put: in another thread,
        while the model is asked something else, right before it is asked, or not at all."""

    @abstractmethod
    def ask(self, model: Any, items: Sequence[Item]) -> pa.Table:
        """Put the question; one row per item, with an answer or with an error."""

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> Any:
        """The answers as attacks read them.

        Parameters
        ----------
        table : all answers that are stored; None where there are none.
        ids : of the records, in the order in which attacks read them.
        """
        raise NotImplementedError(f"no attack reads what {type(self).__name__} is answered")


Kind = TypeVar("Kind", bound=type[Question])
_REGISTRY: list[type[Question]] = []


def register_question(kind: Kind) -> Kind:
    """Make a question known by its name among those on its records; a decorator.

    Raises
    ------
    ValueError
        If it does not say what it is, needs something that nobody knows, or has the name or the
        kind of another.
    """
    title = f"question {getattr(kind, 'name', kind.__name__)!r}"
    for attribute, pattern in (("name", NAME), ("kind", _KIND)):
        check_name(title, attribute, getattr(kind, attribute, None), pattern)
    for attribute, at_least in (("records", 1), ("families", 1), ("needs", 0)):
        check_names(title, attribute, getattr(kind, attribute), at_least)
    version = getattr(kind, "version", None)
    if type(version) is not int or version < 1:
        raise ValueError(
            f"{title}: its version should be a whole number from 1, but is {version!r}"
        )
    schema = getattr(kind, "schema", None)
    if not isinstance(schema, pa.Schema) or any(
        name not in schema.names or schema.field(name).type != type_
        for name, type_ in (*KEY_FIELDS, ("error", pa.string()))
    ):
        raise ValueError(
            f"{title}: its schema should have the columns record_id (string), neighbor (int16) and "
            "error (string)"
        )
    for attribute, known in (("needs", MODEL_NEEDS), ("access", ACCESS)):
        value = getattr(kind, attribute)
        given = {value} if isinstance(value, str) else {*value}
        if unknown := sorted(given - {*known}):
            raise ValueError(
                f"{title}: no {attribute} {unknown[0]!r}; there are: {', '.join(known)}"
            )
    if kind.lay_out is Question.lay_out:
        raise ValueError(f"{title} does not say how its answers are laid out; give it `lay_out`")
    if missing := unwritten(kind):
        raise ValueError(f"{title} lacks {missing}, which it has to define")
    for records in kind.records:
        _check_is_new(kind, records, title)
        _check_says_families(kind, records, title)
    if is_outside(kind):
        kind.code = code_digest(kind)
    for records in kind.records:
        add_answer_name(records, kind.name)
    learn_schema(kind.kind, schema)
    _REGISTRY.append(kind)
    note_registered(kind)
    return kind


def _check_is_new(kind: type[Question], records: str, title: str) -> None:
    holder_of(records)
    for other in _REGISTRY:
        if records not in other.records:
            continue
        if other.name == kind.name and other.families & kind.families:
            raise ValueError(
                f"two questions on {records} records are named {kind.name!r}: one of "
                f"{origin(other)}, and one of {origin(kind)}; rename one"
            )
        if is_outside(kind) and other.name == kind.name and not is_outside(other):
            raise ValueError(f"{title} has the name of one of raymia's own on {records} records")
    for other in filter(is_outside, _REGISTRY):
        if other.kind == kind.kind and other.name != kind.name:  # it could be the same key
            raise ValueError(
                f"{title}: the kind {kind.kind!r} is that of the question {other.name!r} of "
                f"{origin(other)}; use another"
            )
    if is_outside(kind) and (
        kind.kind.startswith("neighbors.")
        or any(other.kind == kind.kind for other in _REGISTRY if not is_outside(other))
    ):
        raise ValueError(f"{title}: the kind {kind.kind!r} is one of raymia's own; use another")


def _check_says_families(kind: type[Question], records: str, title: str) -> None:
    """Refuse what has them of the base class, which are those of texts, and is on other records."""
    if kind.families is not Question.families or records in Question.records:
        return
    known = sorted({family for other in registered(records) for family in other.families})
    raise ValueError(
        f"{title}: give it `families`, the kinds of models that can answer it, as "
        f"frozenset({{{(known or ['family'])[0]!r}}}); questions on {records} records are for "
        f"{', '.join(known) or 'none so far'}"
    )


@on_forget
def _forget(module: str) -> None:
    for kind in [kind for kind in _REGISTRY if is_in(kind, module)]:
        _REGISTRY.remove(kind)
        for records in kind.records:
            if not any(o.name == kind.name and records in o.records for o in _REGISTRY):
                drop_answer_name(records, kind.name)


def registered(records: str) -> list[type[Question]]:
    """All questions on a kind of records, those of one name for different families of models."""
    return [kind for kind in _REGISTRY if records in kind.records]


def lacking_neighbors(spec: AuditSpec) -> str | None:
    """What an audit file lacks that has no neighbors of records."""
    if spec.neighbors is not None:
        return None
    return "compares records with their neighbors; add a section `neighbors`"


def variants(count: int) -> range:
    """Indices of a record's neighbors, samples or copies: from 1."""
    return range(RECORD + 1, RECORD + 1 + count)


def row_key(item: Item) -> dict[str, Any]:
    """The columns that every row of evidence has."""
    return {"record_id": item.record_id, "neighbor": item.neighbor}


def evidence_key(question: Question, fingerprint: str) -> EvidenceKey:
    """The key of what one model answers to one question."""
    parts = {"model": fingerprint, "version": question.version, **question.key_parts()}
    if question.code is not None:
        parts["code"] = question.code
    return EvidenceKey(question.kind, parts)
