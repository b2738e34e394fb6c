"""What attacks ask, as questions that are set up, and the answers as attacks read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, reduce
from operator import and_, or_
from typing import Any

import pyarrow as pa

from raymia.attacks import Attack
from raymia.evidence.answers import answer_names, holder_of
from raymia.questions.base import Question, Setup, registered
from raymia.util.errors import RaymiaError
from raymia.util.plugins import describe_error, is_outside, origin


def questions_for(records: str, setup: Setup, asks: Iterable[str]) -> list[tuple[str, Question]]:
    """The questions to put to a model, each with its label, in the order in which they are put.

    Parameters
    ----------
    records : their kind.
    asks : names of questions, as attacks have them.

    Raises
    ------
    RaymiaError
        For a name that no question has, or none that the model's family can answer.
    """
    wanted = {*asks}
    unknown = wanted.difference(answer_names(records))
    kinds = [kind for kind in registered(records) if setup.family in kind.families]
    unanswered = unknown or wanted.difference(kind.name for kind in kinds)
    if unanswered:
        raise RaymiaError(
            f"no question {sorted(unanswered)[0]!r} on {records} records for models of the kind "
            f"{setup.family}"
        )
    chosen = {kind.name: kind for kind in kinds if kind.name in wanted or kind.always_asked}
    for kind in [*chosen.values()]:
        for other in kind.includes:
            chosen.pop(other.name, None)
    ordered = [chosen[name] for name in answer_names(records) if name in chosen]
    return [(question.label, question) for kind in ordered for question in kind.set_up(setup)]


def model_evidence(
    records: str,
    answers: Iterable[tuple[str, Question, pa.Table | None]],
    ids: Sequence[str],
) -> Any:
    """The answers of one model to its questions, as attacks on a kind of records read them.

    Parameters
    ----------
    answers : labels, questions, and all answers that are stored.
    ids : of the records.
    """
    found: dict[str, Any] = {}
    for label, question, table in answers:
        for other in question.includes:
            found[other.name] = _laid_out(other, question, table, ids)
        name, _, variant = label.partition(".")
        if variant:
            found.setdefault(name, {})[variant] = _laid_out(type(question), question, table, ids)
        else:
            found[name] = _laid_out(type(question), question, table, ids)
    return holder_of(records).of(found, len(ids))


def _laid_out(
    kind: type[Any], question: Question, table: pa.Table | None, ids: Sequence[str]
) -> Any:
    """Answers to a question as a class of questions lays them out: its own, or one it includes."""
    try:
        return kind.lay_out(question, table, ids)
    except Exception as error:
        if isinstance(error, RaymiaError) or not is_outside(kind):
            raise
        raise RaymiaError(
            f"question {kind.name} of {origin(kind)}: its `lay_out` ended with "
            f"{describe_error(error, kind)}. Fix it, or take the attacks that ask it out of "
            "`attacks`"
        ) from error


def questions_of(attack: type[Attack], records: str) -> list[list[type[Question]]]:
    """For each name that an attack asks, the questions that have it."""
    kinds = registered(records)
    return [[kind for kind in kinds if kind.name == name] for name in attack.asks]


def asks_about_neighbors(attack: Attack, records: str) -> bool:
    """Whether a stage has to make neighbors for what an attack asks."""
    return _asks_about_neighbors(type(attack), records)


@cache
def _asks_about_neighbors(attack: type[Attack], records: str) -> bool:
    named = questions_of(attack, records)
    return any(kind.subject == "neighbor" for kinds in named for kind in kinds)


def families_for(attack: Attack, records: str) -> frozenset[str] | None:
    """The families of models that can answer all that an attack asks, and that it names in its
    needs; None for any, where it asks nothing."""
    sets = [
        reduce(or_, (kind.families for kind in kinds))
        for kinds in questions_of(type(attack), records)
    ]
    known = (kind.families for kind in registered(records))
    if only := attack.all_needs & reduce(or_, known, frozenset()):
        sets.append(only)
    return reduce(and_, sets) if sets else None


def model_needs(attack: Attack, records: str, family: str) -> frozenset[str]:
    """What an attack and its questions need of a model."""
    kinds = (kind for kinds in questions_of(type(attack), records) for kind in kinds)
    own = (kind.needs for kind in kinds if family in kind.families)
    return reduce(or_, own, attack.all_needs)


def costs(records: str) -> Mapping[str, str]:
    """Queries per record of each question, by its name."""
    return {kind.name: kind.cost for kind in reversed(registered(records))}
