"""Which records a report shows: what an auditor looks at first, on the most exposed targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.inputs.base import Inputs
from raymia.metrics.summary import Metrics
from raymia.results.ranking import TargetRanking, leading, rank, strength_across
from raymia.results.wording import first_to_read

Rows = npt.NDArray[np.int64]
MAX_TARGETS = 3
MAX_EXAMPLES = 4


class ScoreColumns(Protocol):
    """The scores of a run."""

    def column(self, target: str, attack: str) -> Scores:
        """Scores of one attack on a target, [records]; NaN for none."""


@dataclass(frozen=True)
class Shown:
    """A record that is shown, and where it stands.

    Attributes
    ----------
    row : its place among the records.
    card : what every kind of example says of it; the fields of :class:`raymia.results.example`.
    """

    row: int
    card: dict[str, Any]


class Leaders:
    """The targets whose records are shown, and the attack that leads on each.

    Parameters
    ----------
    names : of the targets that have scores.
    metrics : of these scores.
    """

    def __init__(self, inputs: Inputs, names: Sequence[str], metrics: Sequence[Metrics]) -> None:
        self.inputs = inputs
        self.rankings = {ranking.target: ranking for ranking in rank(metrics)}
        self.shown = _shown_targets(names, self.rankings)

    def on(self, target: str, scores: ScoreColumns) -> NamedAttack:
        """The attack that is best on a target; where nothing is measured, the one to read first of
        those with scores."""
        attacks = {named.label: named for named in self.inputs.attacks_on(target)}
        ranking = self.rankings.get(target)
        if ranking is not None and ranking.measured:
            combined = {
                label for label, named in attacks.items() if "other_scores" in named.attack.needs
            }
            return attacks[leading(ranking, combined).attack]
        kinds = {name: spec.kind for name, spec in self.inputs.spec.references.items()}
        hinted = first_to_read({named.attack.name for named in attacks.values()}, kinds)
        order = [label for label in (hinted, "pfami", "loss", *attacks) if label in attacks]
        scored = (x for x in order if np.isfinite(scores.column(target, x)).any())
        return attacks[next(scored, order[0])]


def _shown_targets(names: Sequence[str], rankings: dict[str, TargetRanking]) -> set[str]:
    """The targets whose records are shown: the most exposed, then those without metrics."""
    measured = [r for r in rankings.values() if r.measured]
    measured.sort(key=strength_across(measured), reverse=True)
    first = [ranking.target for ranking in measured]
    return {*list(dict.fromkeys([*first, *names]))[:MAX_TARGETS]}


def shown_records(
    inputs: Inputs, target: str, leader: NamedAttack, scores: Scores
) -> Iterator[Shown]:
    """Four records of a target by falling score: the most exposed member, candidate and non-member
    and the least exposed member by the leading attack's score, then the next members."""
    records = inputs.records.table
    labels = pc.fill_null(records["is_member"].cast(pa.int8()), -1).to_numpy()
    classes = {
        label: _ranked(scores, labels == number)
        for label, number in ((True, 1), (False, 0), (None, -1))
    }
    others = scores[classes[False]]
    for row in choose_rows(scores, classes):
        label, score = records["is_member"][row].as_py(), float(scores[row])
        n_others = len(others) - (label is False)
        card = {
            "target": target,
            "attack": leader.label,
            "record_id": records["record_id"][row].as_py(),
            "is_member": label,
            "score": score,
            "rank": int(np.flatnonzero(classes[label] == row)[0]) + 1,
            "of": len(classes[label]),
            "outscored": float((others < score).sum() / n_others) if n_others else None,
        }
        yield Shown(row, card)


def _ranked(values: Scores, is_of: npt.NDArray[np.bool_]) -> Rows:
    """The rows of a class that have a score, most exposed first; of equals, the earlier."""
    rows = np.flatnonzero(is_of & np.isfinite(values))
    return rows[np.argsort(-values[rows], kind="stable")]


def choose_rows(values: Scores, classes: Mapping[bool | None, Sequence[int] | Rows]) -> list[int]:
    """The rows of the records to show, by falling score.

    Parameters
    ----------
    values : scores [records].
    classes : rows of members (True), non-members (False) and candidates (None), most exposed first.
    """
    members, candidates = classes[True], classes[None]
    suspects = members if len(members) else candidates
    wanted = [*members[:1], *candidates[:1], *classes[False][:1], *suspects[-1:]]
    wanted += [*members[1:3], *candidates[1:3]]
    rows = list(dict.fromkeys(map(int, wanted)))[:MAX_EXAMPLES]
    return sorted(rows, key=lambda row: -values[row])
