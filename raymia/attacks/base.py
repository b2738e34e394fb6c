"""What an attack is: a pure function from evidence to one score per record.

A score is higher the more likely the record is a member; NaN says that the attack has none for it.
Attacks import neither Ray nor models.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from raymia.attacks.means import Means
from raymia.evidence.answers import MODEL_NEEDS, answer_names
from raymia.util.errors import InputError
from raymia.util.plugins import (
    Portable,
    check_name,
    check_names,
    describe_error,
    is_in,
    note_registered,
    on_forget,
    origin,
    unwritten,
)

Scores = npt.NDArray[np.float64]

MIN_LOSS = 1e-6
"""Floor of a mean loss that is divided by, so that certainty gives no infinity."""

MIN_VARIANCE = 1e-6
"""Floor of a variance that is divided by, so that no spread at all gives no infinity."""


EVERY = "every"
"""Stands for all kinds of records."""

NEEDS: Mapping[str, str] = {
    "reference": "runs once with each reference, as ``name@reference``",
    "reference_if_given": "runs alone, and once more with each reference, as ``name@reference``",
    "shadows": "reads `evidence.shadows`, the answers of the audit's shadows",
    "shadows_if_given": "is given the audit's shadows where it has some, and runs without them too",
    "population": "reads `evidence.population`, the answers on records that are no members",
    "corpus": "reads `evidence.corpus`, how often each token occurs in a corpus",
    "judged_answers": "reads `evidence.signs`, whether the scored answer was wanted or not",
    "labels": "is fitted on some records, of which it is told which are members, to judge others; "
    "with `shadows_if_given` on shadows where there are some",
    "units": "is fitted on some records to judge others, and reads `evidence.units`, what must not "
    "be split between the two",
    "other_scores": "reads `evidence.labelled`, the scores of the audit's attacks that are fitted "
    "on no label of its records, and which records are members",
    **MODEL_NEEDS,
}
"""All that an attack may need beside answers: of the audit, and of the model."""


@dataclass(frozen=True)
class Attack(Portable, ABC):
    """Base of every attack; subclasses are dataclasses whose fields are the attack's parameters.

    Class attributes
    ----------------
    name : what audit files and reports call it.
    title, source, formula : for `raymia attacks` and the report.
    records : the kinds of records it can judge, as "text" or "image"; :data:`EVERY` for one that
        asks nothing about them.
    asks : names of the questions it has asked of the target, and of the reference alike; the
        answers are fields of :class:`raymia.evidence.text.ModelEvidence`, or in its ``answers``.
    min_population : records of the population without which it has no score.
    needs : what else it needs, of :data:`NEEDS`. What its questions need of a model they say
        themselves.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    records: ClassVar[tuple[str, ...]] = ("text",)
    asks: ClassVar[tuple[str, ...]] = ("tokens",)
    needs: ClassVar[frozenset[str]] = frozenset()
    min_population: ClassVar[int] = 0

    @property
    def all_needs(self) -> frozenset[str]:
        """What it needs with its parameters."""
        return self.needs

    @property
    def looks_at_all(self) -> bool:
        """Whether a record's score depends on the records that it is scored with, though they are
        none of its needs: as where one variance is taken of all. Other attacks may be given some
        records at a time."""
        return False

    def is_fitted_on_labels(self, has_shadows: bool) -> bool:
        """Whether it is fitted on which of the audit's records are members, so that the scores of
        some records hold the labels of others."""
        if "labels" in self.needs:
            return not (has_shadows and "shadows_if_given" in self.needs)
        return "other_scores" in self.needs

    def unserved(self, means: Means) -> list[str]:  # noqa: ARG002
        """What it asks for, with its parameters, that an audit does not give, each in a sentence
        that says what is there and what to write. It is then refused where it is named, and left
        out otherwise; what it does not say here ends the run when it is scored."""
        return []

    @abstractmethod
    def score(self, evidence: Any) -> Scores:
        """Score every record, [records]; higher means member, NaN means no score.

        Parameters
        ----------
        evidence : :class:`raymia.evidence.text.TextEvidence`, or ``ImageEvidence`` for images.
        """


@dataclass(frozen=True)
class NamedAttack:
    """An attack as it stands in the report: ``statistic`` or ``statistic@reference``, and behind it
    ``+neighbors`` where the audit file has neighbors by name; `where` is its place in that."""

    label: str
    attack: Attack
    reference: str | None
    neighbors: str = ""
    where: str = field(default="attacks", compare=False)


@dataclass(frozen=True)
class InSpace(Attack):
    """Base of attacks on mean log-probabilities or, in their place, on their exponentials.

    Parameters
    ----------
    space : "log", or "probability" for the geometric mean of the token probabilities, which is one
        over the perplexity.
    """

    space: str = "log"

    def __post_init__(self) -> None:
        if self.space not in ("probability", "log"):
            raise ValueError(f"space should be 'probability' or 'log', but got {self.space!r}")

    def likelihood(self, mean_log_prob: Scores) -> Scores:
        """Mean log-probabilities taken to the attack's space."""
        return np.exp(mean_log_prob) if self.space == "probability" else mean_log_prob


Kind = TypeVar("Kind", bound=type[Attack])
_REGISTRY: dict[tuple[str, str], type[Attack]] = {}


def register(kind: Kind) -> Kind:
    """Make an attack known by its name among those on its records; a decorator.

    Raises
    ------
    ValueError
        If it does not say what it is, asks or needs something that nobody knows, or has the name
        of another.
    """
    title = f"attack {getattr(kind, 'name', kind.__name__)!r}"
    check_name(title, "name", getattr(kind, "name", None))
    check_names(title, "records", kind.records, at_least=1)
    for attribute in ("asks", "needs"):
        check_names(title, attribute, getattr(kind, attribute))
    for records in kind.records:
        for (on, name), other in _REGISTRY.items():
            if name == kind.name and (records == on or EVERY in (records, on)):
                raise ValueError(
                    f"two attacks on {records} records are named {name!r}: one of {origin(other)}, "
                    f"and one of {origin(kind)}; rename one"
                )
        known = [] if records == EVERY else answer_names(records)
        _check_known(kind, "asks", kind.asks, known, f"question on {records}s")
    _check_known(kind, "needs", kind.needs, NEEDS, "need")
    for attribute in ("title", "source", "formula"):
        if not isinstance(getattr(kind, attribute, None), str):
            raise ValueError(f"{title} should say its {attribute} in a text")
    if missing := unwritten(kind):
        raise ValueError(f"{title} lacks {missing}, which it has to define")
    _REGISTRY.update({(records, kind.name): kind for records in kind.records})
    note_registered(kind)
    return kind


@on_forget
def _forget(module: str) -> None:
    for key in [key for key, kind in _REGISTRY.items() if is_in(kind, module)]:
        del _REGISTRY[key]


def _check_known(
    kind: type[Attack], attribute: str, given: Collection[str], known: Collection[str], what: str
) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"attack {kind.name!r} {attribute} {name!r}, and there is no such {what};{hint} "
                f"there are: {', '.join(known)}"
            )


def registry(records: str = "text") -> dict[str, type[Attack]]:
    """All attacks on a kind of records by name, in order of their names."""
    found = {name: kind for (on, name), kind in _REGISTRY.items() if on in (records, EVERY)}
    return dict(sorted(found.items()))


def kinds_of_records() -> list[str]:
    """The kinds of records that there are attacks on."""
    return [on for on in dict.fromkeys(on for on, _ in _REGISTRY) if on != EVERY]


def build(name: str, parameters: dict[str, Any], where: str, records: str = "text") -> Attack:
    """Make an attack from its name and parameters, with errors that name the key.

    Examples
    --------
    >>> build("min_k", {"share": 0.1}, "attacks[0]")
    MinK(share=0.1)
    """
    kinds = registry(records)
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{where}: no attack {name!r};{hint} there are: {', '.join(kinds)}. One of your own "
            "is known where its file or module is named, as --plugin or under `plugins`"
        )
    kind = kinds[name]
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{where}: attack {name!r} has no parameter {unknown[0]!r};{hint} "
            f"it has: {', '.join(known) or 'none'}"
        )
    title = f"{where}: attack {name!r}"
    required = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    if missing := [key for key in required if key not in parameters]:
        raise InputError(f"{title} has to be given {', '.join(missing)}")
    defaults = {f.name: f.default for f in fields(kind)}
    for key, value in parameters.items():
        default = defaults[key]
        is_flag = isinstance(default, bool)
        if (is_flag or isinstance(default, int)) and (
            not isinstance(value, int) or is_flag != isinstance(value, bool)
        ):
            raise InputError(f"{title}: {key} should be like {default!r}, but got {value!r}")
    try:
        return kind(**parameters)
    except ValueError as error:
        raise InputError(f"{title}: {error}") from None
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        if isinstance(error, TypeError) and given:
            raise InputError(f"{title}: a parameter is of the wrong type: {given}") from None
        raise InputError(f"{title} cannot be made: {describe_error(error, kind)}") from error


Answer = TypeVar("Answer")


def answered(answer: Answer | None) -> Answer:
    """What was answered to a question that the attack asks, which it is always given."""
    if answer is None:
        raise ValueError("this attack was not given the answers to a question it asks")
    return answer


def mean_of_present(values: Scores) -> Scores:
    """Mean over the last axis, NaN entries left out; NaN where nothing is left.

    Examples
    --------
    >>> mean_of_present(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])).tolist()
    [2.0, nan]
    """
    present = ~np.isnan(values)
    counts = present.sum(axis=-1)
    totals = np.where(present, values, 0.0).sum(axis=-1)
    means: Scores = np.divide(totals, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means


def when_no_score(kind: type[Attack]) -> str:
    """When a record has no score from an attack, in the words of its docstring; empty where that
    says nothing."""
    said = " ".join((kind.__doc__ or "").split())
    _, found, rest = said.partition("No score ")
    return f"{found}{rest.partition('.')[0]}." if found else ""
