"""What scores are judged by: memberships and groups as arrays, to be sent to where scores are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks.base import Scores
from raymia.metrics.claims import claim_candidates
from raymia.metrics.measuring import calibration_half, measure
from raymia.metrics.roc import BoolArray, IntArray
from raymia.metrics.summary import AttackMetrics, CandidateClaims, NotMeasured
from raymia.results.curves import AttackCurves, draw
from raymia.results.ranking import of_groups_of
from raymia.scoring.ids import repeated
from raymia.spec import MetricsSpec
from raymia.util.reasons import CAME

if TYPE_CHECKING:
    from raymia.inputs.base import Inputs

NAMED = 5
SMALL = 10
"""Of so many groups of a side one may have fewer records than a group's score is the mean of."""
"""Mixed groups that a note names."""


@dataclass(frozen=True)
class Labels:
    """Memberships of records or groups.

    Attributes
    ----------
    known : [n], whether the membership is known.
    is_member : [n]; False where it is not known.
    calibration : [n], whether thresholds are chosen on it.
    apart : whether each is a unit of its own: a group, or a record that shares no group.
    """

    known: BoolArray
    is_member: BoolArray
    calibration: BoolArray
    apart: bool

    @property
    def can_measure(self) -> bool:
        """Whether there are both members and non-members."""
        known = int(self.known.sum())
        return 0 < int(self.is_member.sum()) < known

    @property
    def can_claim(self) -> bool:
        """Whether there are both candidates and non-members to compare them with."""
        return bool((~self.known).any() and (self.known & ~self.is_member).any())


@dataclass(frozen=True)
class Groups:
    """Groups of one kind of records.

    Attributes
    ----------
    of_record : int64 [records], the group's number; the last number stands for no group.
    labels : of the groups.
    hold_all : whether each member and non-member stands in one of them, as where groups were split
        and not records.
    notes : what a reader must know of groups and records left out.
    """

    of_record: IntArray
    labels: Labels
    hold_all: bool
    notes: list[str]

    def hold(self, among: BoolArray) -> BoolArray:
        """Whether each group holds any of some records."""
        size = len(self.labels.known)
        found: BoolArray = np.bincount(self.of_record[among], minlength=size + 1)[:size] > 0
        return found

    def scores(self, values: Scores, among: BoolArray, side: BoolArray) -> tuple[Scores, int]:
        """Scores of groups: the mean of the first of its scored records, of all groups of as many.

        A mean of many scatters less than a mean of few, so that of means of all their records the
        smaller groups alone would be in the tail. As many count as nine of ten groups of each
        side have; a few small groups would weaken all otherwise. To choose by sizes looks at no
        score.

        Parameters
        ----------
        values : [records]; NaN for none.
        among : [groups], those that are compared.
        side : [groups], on which of the two sides that are compared each is.

        Returns
        -------
        scores : [groups]; NaN for a group with fewer scored records, and for those not compared.
        each : records that a score is the mean of; 0 where no group has one.
        """
        size = len(among)
        of_record = np.append(among, False)[self.of_record]
        rows = np.flatnonzero(of_record & ~np.isnan(values))
        of = self.of_record[rows]
        rows, of = (array[np.argsort(of, kind="stable")] for array in (rows, of))
        counts = np.bincount(of, minlength=size)
        means: Scores = np.full(size, np.nan)
        if not rows.size:
            return means, 0
        sizes = [counts[(counts > 0) & (side == one)] for one in (True, False)]
        each = min(_of_enough(found) for found in sizes if found.size)
        first = np.arange(rows.size) - (np.cumsum(counts) - counts)[of] < each
        totals = np.bincount(of[first], weights=values[rows[first]], minlength=size)
        has_enough = counts >= each
        means[has_enough] = totals[has_enough] / each
        return means, each


def _of_enough(counts: IntArray) -> int:
    """The most records that nine of ten groups have."""
    return int(np.sort(counts)[counts.size // SMALL])


@dataclass(frozen=True)
class Judged:
    """One attack on one target, measured; all that a report needs of it.

    Attributes
    ----------
    metrics : None where members or non-members are not given.
    group_metrics : None where there are no groups to measure.
    curves, group_curves : of records and of groups; None where nothing could be measured.
    claims : about candidates; of records, and of groups where there are some.
    """

    metrics: AttackMetrics | NotMeasured | None
    group_metrics: AttackMetrics | NotMeasured | None
    curves: AttackCurves | None
    group_curves: AttackCurves | None
    claims: list[CandidateClaims]


@dataclass(frozen=True)
class Judge:
    """Measures scores that are in the order of the records.

    Attributes
    ----------
    fitted : the attacks that were fitted on these memberships.
    """

    records: Labels
    groups: Groups | None
    metrics: MetricsSpec
    seed: int
    fitted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, inputs: Inputs) -> Judge:
        """The judge of an audit."""
        from raymia.scoring.evidence import unit_column  # here: to judge takes no models

        table = inputs.records.table
        labels = _labels(table["is_member"], unit_column(inputs.records))
        groups = _groups(table, labels)
        return cls(labels, groups, inputs.spec.metrics, inputs.spec.seed, inputs.fitted_on_labels)

    def judge(self, values: Scores, *, target: str, attack: str) -> Judged:
        """Measure one attack on one target.

        Parameters
        ----------
        values : float64 [records]; NaN for none.
        """
        metrics, curves, of_groups, group_curves = None, None, None, None
        claims = []
        names = {"target": target, "attack": attack}
        if self.records.can_measure:
            metrics = self._measure(values, self.records, names)
        if isinstance(metrics, AttackMetrics):
            curves = self._draw(values, self.records, names)
        if self.records.can_claim:
            claims.append(self._claim(values, self.records, "records", names))
        if self.groups is not None:
            labels = self.groups.labels
            if labels.can_measure:
                means, each = self.groups.scores(values, labels.known, labels.is_member)
                of_groups = _with_each(self._measure(means, labels, names), each)
            if isinstance(of_groups, AttackMetrics):
                by_group = {**names, "target": of_groups_of(target)}
                group_curves = self._draw(means, labels, by_group)
            if labels.can_claim:
                means, each = self.groups.scores(values, ~labels.is_member, labels.known)
                claim = self._claim(means, labels, "groups", names)
                claims.append(claim.model_copy(update={"records_per_group": each or None}))
        return Judged(metrics, of_groups, curves, group_curves, claims)

    def measure(
        self, values: Scores, *, among: BoolArray, target: str, attack: str
    ) -> AttackMetrics | NotMeasured:
        """Measure one attack on one target on the members and non-members among some records.

        Parameters
        ----------
        values : float64 [records]; NaN for none.
        among : [records].
        """
        labels = replace(self.records, known=self.records.known & among)
        return self._measure(values, labels, {"target": target, "attack": attack})

    def measure_groups(
        self, values: Scores, *, among: BoolArray, target: str, attack: str
    ) -> AttackMetrics | NotMeasured:
        """Measure one attack on one target on groups, by some of their records alone.

        Parameters
        ----------
        values : float64 [records]; NaN for none.
        among : [records].
        """
        assert self.groups is not None
        labels = self.groups.labels
        known = labels.known & self.groups.hold(among)
        means, each = self.groups.scores(np.where(among, values, np.nan), known, labels.is_member)
        names = {"target": target, "attack": attack}
        return _with_each(self._measure(means, replace(labels, known=known), names), each)

    def _draw(self, values: Scores, labels: Labels, names: Mapping[str, str]) -> AttackCurves:
        kept = labels.known & np.isfinite(values)
        scores, is_member = _chosen_of(kept, values, labels.is_member)
        return draw(scores, is_member, fprs=self.metrics.fprs, **names)

    def _measure(
        self, values: Scores, labels: Labels, names: Mapping[str, str]
    ) -> AttackMetrics | NotMeasured:
        scores, is_member, calibration = _chosen_of(
            labels.known, values, labels.is_member, labels.calibration
        )
        return measure(
            scores,
            is_member,
            calibration=calibration,
            fprs=self.metrics.fprs,
            priors=self.metrics.priors,
            delta=self.metrics.delta,
            randomized=self.metrics.inclusion == "randomized" and labels.apart,
            fitted=names["attack"] in self.fitted,
            confidence=self.metrics.confidence,
            seed=self.seed,
            **names,
        )

    def _claim(
        self,
        values: Scores,
        labels: Labels,
        of: Literal["records", "groups"],
        names: Mapping[str, str],
    ) -> CandidateClaims:
        return claim_candidates(
            values[~labels.known],
            values[labels.known & ~labels.is_member],
            of=of,
            rates=self.metrics.false_discovery_rates,
            **names,
        )


def _with_each(metrics: AttackMetrics | NotMeasured, each: int) -> AttackMetrics | NotMeasured:
    """Keep of how many records each group's score is the mean."""
    if isinstance(metrics, NotMeasured):
        return metrics
    return metrics.model_copy(update={"records_per_group": each})


def _chosen_of(chosen: BoolArray, *arrays: Any) -> tuple[Any, ...]:
    """The chosen entries of arrays; the arrays themselves, not copied, where all are chosen."""
    return arrays if chosen.all() else tuple(values[chosen] for values in arrays)


def _labels(column: pa.ChunkedArray, unit_of: pa.ChunkedArray) -> Labels:
    return Labels(
        _bools(pc.is_valid(column)),
        _bools(pc.fill_null(column, False)),
        calibration_half(unit_of),
        apart=not repeated(unit_of),
    )


def _bools(column: pa.ChunkedArray) -> BoolArray:
    values: BoolArray = column.to_numpy()
    return values.astype(np.bool_, copy=False)


def _groups(table: pa.Table, labels: Labels) -> Groups | None:
    """The groups whose records are of one kind; None without a group column."""
    if table["group"].null_count == table.num_rows:
        return None
    column: Any = table["group"].combine_chunks()
    encoded = column.dictionary_encode()
    names = encoded.dictionary
    numbers: IntArray = pc.fill_null(encoded.indices, len(names)).to_numpy().astype(np.int64)
    kinds = np.where(labels.known, labels.is_member.astype(np.int64), 2)
    found = np.zeros((len(names) + 1, 3), np.bool_)
    found[numbers, kinds] = True
    found = found[:-1]
    mixed = found.sum(axis=1) > 1
    pure = np.flatnonzero(~mixed)
    renumbered = np.full(len(names) + 1, pure.size, np.int64)
    renumbered[pure] = np.arange(pure.size)
    of_record = renumbered[numbers]
    return Groups(
        of_record,
        Labels(
            ~found[pure, 2],
            found[pure, 1],
            calibration_half(pa.chunked_array([names.take(pa.array(pure))])),
            apart=True,
        ),
        bool((of_record[labels.known] < pure.size).all()),
        _group_notes(sorted(names.filter(pa.array(mixed)).to_pylist()), column.null_count),
    )


def _group_notes(mixed: list[str], without: int) -> list[str]:
    notes = []
    if mixed:
        named = ", ".join(map(repr, mixed[:NAMED])) + (", ..." if len(mixed) > NAMED else "")
        which = "1 group mixes" if len(mixed) == 1 else f"{len(mixed)} groups mix"
        notes.append(f"{which} members and others, not measured as groups{CAME}{named}")
    if without:
        which = "1 record has" if without == 1 else f"{without:,} records have"
        notes.append(f"{which} no group, and the numbers on groups leave such records out")
    return notes
