"""Two runs side by side: what changed between them, and whether it is more than chance.

Numbers are compared on the records that both runs have and label alike: the AUC by DeLong's paired
test, the true positive rate at 1 % false positives by a paired bootstrap. All tests of all targets
are one family, corrected by Holm's procedure. The AUC of an attack that was fitted on the labels of
the records scatters more, which is added, and its rate is not compared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.metrics.comparison import holm
from raymia.metrics.delong import FEWEST_COMPARED, auc_difference, placements
from raymia.metrics.paired import rate_difference
from raymia.metrics.roc import BoolArray, FloatArray
from raymia.results.changes import change_sort_key, finding_of, sentence_of
from raymia.results.comparison_result import (
    AttackChange,
    Change,
    ComparedRun,
    Difference,
    Finding,
    RecordChanges,
    RunComparison,
    TargetChange,
)
from raymia.results.folder import settings_of
from raymia.results.ranking import USUAL_FPR, fitted_on_labels
from raymia.results.runs import StoredRun
from raymia.results.settings import by_path
from raymia.util.errors import InputError

CONFIDENCE = 0.95
LISTED = 20
"""Ids of records that are named, of each kind of change."""
FEWEST_RESAMPLES, MAX_RESAMPLES = 2_000, 20_000
RESAMPLES_PER_TEST = 50
"""With fewer, not even the smallest p-value would stay within 5 % after the correction."""
NOT_SETTINGS = ("name", "output", "store")
OF_TARGET = re.compile(r"targets\[([^\]]*)\]")


@dataclass(frozen=True)
class _Records:
    """The common records, and where they stand in each run's scores.

    Attributes
    ----------
    ids : of the records that both runs label alike, members and non-members.
    is_member : [n_records]
    """

    ids: pa.Array
    is_member: BoolArray
    changes: RecordChanges


def compare_runs(
    a: StoredRun, b: StoredRun, targets: Mapping[str, str] | None = None
) -> RunComparison:
    """Compare two runs.

    Parameters
    ----------
    a, b : the earlier and the later; differences are the later less the earlier.
    targets : names in the second run by names in the first, for targets whose names differ; others
        are matched by name.

    Returns
    -------
    RunComparison

    Raises
    ------
    InputError
        If the runs share no record or no target, or a target that is named does not exist.
    """
    pairs = _match_targets(a, b, targets or {})
    records = _common_records(a, b)
    tests = 2 * sum(len(_in_both(a, b, pair)) for pair in pairs)
    resamples = min(MAX_RESAMPLES, max(FEWEST_RESAMPLES, RESAMPLES_PER_TEST * tests))
    changes = {pair: _attack_changes(a, b, pair, records, resamples) for pair in pairs}
    corrected = _corrected(changes)
    return RunComparison(
        a=_compared(a),
        b=_compared(b),
        records=records.changes,
        settings=list(_settings(a, b, pairs)),
        targets=[_target_change(a, b, pair, corrected[pair]) for pair in pairs],
        added=[name for name in b.targets if name not in {y for _, y in pairs}],
        removed=[name for name in a.targets if name not in {x for x, _ in pairs}],
        max_fpr=USUAL_FPR,
        confidence=CONFIDENCE,
        cautions=[
            *_cautions(a, b, records.changes),
            *(
                [
                    f"{tests:,} tests are so many that true positive rates may differ and not be "
                    f"shown to: their p-values are no smaller than {2 / (MAX_RESAMPLES + 1):.1g}"
                ]
                if tests * RESAMPLES_PER_TEST > MAX_RESAMPLES
                else []
            ),
        ],
    )


def parse_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Read targets given as `A=B`.

    Raises
    ------
    InputError
    """
    pairs: dict[str, str] = {}
    for text in texts:
        first, separator, second = text.partition("=")
        if not (first and separator and second):
            raise InputError(f"--target: expected A=B, names in the two runs, but got {text!r}")
        if pairs.get(first, second) != second:
            raise InputError(
                f"--target: {first!r} is given twice, with {pairs[first]!r} and {second!r}; a "
                "target of the first run is compared with one of the second: run it once for each"
            )
        pairs[first] = second
    return pairs


def _compared(run: StoredRun) -> ComparedRun:
    return ComparedRun(folder=run.folder, name=run.result.name, created=run.result.created)


def _match_targets(a: StoredRun, b: StoredRun, given: Mapping[str, str]) -> list[tuple[str, str]]:
    problems = []
    for run, names in ((a, given.keys()), (b, given.values())):
        for name in names:
            if name not in run.targets:
                near = difflib.get_close_matches(name, run.targets, n=1)
                hint = f" did you mean {near[0]!r}?" if near else ""
                problems.append(
                    f"--target: {run.folder} has no target {name!r};{hint} "
                    f"there are: {', '.join(run.targets)}"
                )
    if problems:
        raise InputError(problems)
    taken = set(given.values())
    same = {name: name for name in a.targets if name in b.targets and name not in taken}
    pairs = [(name, (same | dict(given)).get(name)) for name in a.targets]
    matched = [(x, y) for x, y in pairs if y is not None]
    if not matched:
        raise InputError(
            f"the runs have no target in common: {a.folder} has {', '.join(a.targets)}, "
            f"{b.folder} has {', '.join(b.targets)}; say which to compare: --target A=B"
        )
    return matched


def _labels(run: StoredRun) -> dict[str, bool | None]:
    """Membership by id of every record of a run; each target and attack has them all."""
    target = run.targets[0]
    attack = next(attack for name, attack in run.scored if name == target)
    table = run.scores(target, attack)
    pairs = zip(table["record_id"].to_pylist(), table["is_member"].to_pylist(), strict=True)
    return dict(pairs)


def _common_records(a: StoredRun, b: StoredRun) -> _Records:
    first, second = _labels(a), _labels(b)
    shared = [record for record in first if record in second]
    if not shared:
        disguised = [run.folder for run in (a, b) if run.result.redacted]
        if len(disguised) == 1:
            raise InputError(
                f"{disguised[0]} is redacted and the other run is not: ids of its records are "
                "disguised, so they cannot be matched; redact both, or neither"
            )
        raise InputError(
            f"{a.folder} ({len(first):,} records) and {b.folder} ({len(second):,} records) have no "
            "record in common, so there is nothing to compare; records are told by their content"
        )
    other_label = [record for record in shared if first[record] is not second[record]]
    lists = {
        "relabelled": other_label,
        "added": [record for record in second if record not in first],
        "removed": [record for record in first if record not in second],
    }
    known = [r for r in shared if first[r] is second[r] and first[r] is not None]
    return _Records(
        ids=pa.array(known, pa.string()),
        is_member=np.array([first[record] for record in known], bool),
        changes=RecordChanges(
            common=len(shared) - len(other_label),
            **{name: len(ids) for name, ids in lists.items()},
            examples={name: ids[:LISTED] for name, ids in lists.items() if ids},
        ),
    )


def _in_both(a: StoredRun, b: StoredRun, pair: tuple[str, str]) -> list[str]:
    """Attacks that both runs have on a pair of targets."""
    there = {attack for target, attack in b.scored if target == pair[1]}
    return [attack for target, attack in a.scored if target == pair[0] and attack in there]


def _attack_changes(
    a: StoredRun, b: StoredRun, pair: tuple[str, str], records: _Records, resamples: int
) -> list[AttackChange]:
    """Each attack that both runs have on a pair of targets; p-values not yet corrected."""
    changes = []
    fitted = fitted_on_labels(a.result), fitted_on_labels(b.result)
    for attack in _in_both(a, b, pair):
        before = _scores(a, pair[0], attack, records.ids)
        after = _scores(b, pair[1], attack, records.ids)
        both = np.isfinite(before) & np.isfinite(after)
        labels = records.is_member[both]
        is_fitted = attack in fitted[0], attack in fitted[1]
        changes.append(
            _attack_change(attack, before[both], after[both], labels, resamples, is_fitted)
        )
    return changes


def _scores(run: StoredRun, target: str, attack: str, ids: pa.Array) -> FloatArray:
    """Scores of records in the order of their ids; NaN for none."""
    table = run.scores(target, attack)
    rows = pc.index_in(ids, value_set=table["record_id"].combine_chunks())
    values: FloatArray = table["score"].take(rows).to_numpy()
    return values


def _attack_change(
    attack: str,
    before: FloatArray,
    after: FloatArray,
    is_member: BoolArray,
    resamples: int,
    is_fitted: tuple[bool, bool],
) -> AttackChange:
    """Test one attack.

    Parameters
    ----------
    is_fitted : whether it was fitted on the labels of the records, before and after.
    """
    n_members = int(np.count_nonzero(is_member))
    n_non_members = is_member.size - n_members
    auc = tpr = None
    if min(n_members, n_non_members) >= FEWEST_COMPARED:
        area = auc_difference(
            after, before, is_member, confidence=CONFIDENCE, fitted=is_fitted[::-1]
        )
        auc = Difference(
            a=placements(before, is_member).auc,
            b=placements(after, is_member).auc,
            value=area.value,
            low=area.low,
            high=area.high,
            p_value=area.p_value,
            p_holm=1.0,
        )
        # In the tail a few records that taught each other may be all there is.
        rate = None
        if not any(is_fitted):
            rate = rate_difference(
                after, before, is_member, USUAL_FPR, confidence=CONFIDENCE, resamples=resamples
            )
        if rate is not None:
            tpr = Difference(
                a=rate.second,
                b=rate.first,
                value=rate.value,
                low=rate.low,
                high=rate.high,
                p_value=rate.p_value,
                p_holm=1.0,
            )
    return AttackChange(
        attack=attack,
        n_members=n_members,
        n_non_members=n_non_members,
        fitted=any(is_fitted),
        auc=auc,
        tpr=tpr,
    )


def _corrected(
    changes: Mapping[tuple[str, str], list[AttackChange]],
) -> dict[tuple[str, str], list[AttackChange]]:
    """The same with p-values corrected over everything that was tested."""
    tested = [
        (pair, number, name)
        for pair, entries in changes.items()
        for number, entry in enumerate(entries)
        for name in ("auc", "tpr")
        if getattr(entry, name) is not None
    ]
    p_values = [getattr(changes[pair][number], name).p_value for pair, number, name in tested]
    corrected = {pair: list(entries) for pair, entries in changes.items()}
    for (pair, number, name), p_holm in zip(tested, holm(np.array(p_values)), strict=True):
        entry = corrected[pair][number]
        found = getattr(entry, name).model_copy(update={"p_holm": float(p_holm)})
        corrected[pair][number] = entry.model_copy(update={name: found})
    return corrected


def _target_change(
    a: StoredRun, b: StoredRun, pair: tuple[str, str], attacks: list[AttackChange]
) -> TargetChange:
    here = [attack for target, attack in a.scored if target == pair[0]]
    there = [attack for target, attack in b.scored if target == pair[1]]
    attacks = sorted(attacks, key=change_sort_key)
    shifted = any(_is_shifted(run) for run in (a, b))
    finding: Finding = "not_comparable" if shifted else finding_of(attacks)
    return TargetChange(
        a=pair[0],
        b=pair[1],
        finding=finding,
        sentence=sentence_of(pair, finding, attacks, shifted),
        attacks=attacks,
        added=[attack for attack in there if attack not in here],
        removed=[attack for attack in here if attack not in there],
    )


def _is_shifted(run: StoredRun) -> bool:
    return run.result.shift is not None and run.result.shift.level == "stop"


def _settings(a: StoredRun, b: StoredRun, pairs: Sequence[tuple[str, str]]) -> Iterator[Change]:
    first, second = (by_path(settings_of(run.result, run.folder)) for run in (a, b))
    first = _as_in_second(first, dict(pairs))
    for run, found in ((a, first), (b, second)):
        found |= {f"version of {name}": value for name, value in run.result.versions.items()}
        found["version of the scoring code"] = run.result.code_version
    for what in dict.fromkeys([*first, *second]):
        if what not in NOT_SETTINGS and first.get(what) != second.get(what):
            yield Change(what=what, a=first.get(what), b=second.get(what))


def _as_in_second(first: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """The first run's settings with what is compared under one path, whatever its name was. A
    target that is not compared, and whose name is another's in the second run, is told apart."""
    apart = set(names.values()) - names.keys()
    names = {**{name: f"{name} of the first run" for name in apart}, **names}

    def path(key: str) -> str:
        of_target = OF_TARGET.match(key)
        if of_target is None:
            return key
        name = of_target[1]
        return f"targets[{names.get(name, name)}]{key[of_target.end() :]}"

    return {path(key): value for key, value in first.items()}


def _cautions(a: StoredRun, b: StoredRun, records: RecordChanges) -> Iterator[str]:
    for run in (a, b):
        if not run.result.complete:
            yield f"{run.folder}: the run is incomplete; records without scores are left out"
        if _is_shifted(run):
            yield (
                f"{run.folder}: members and non-members differ without any model, so that its "
                "numbers are not the model's, and neither are differences"
            )
        if run.result.split_by_group:
            yield (
                f"{run.folder}: members were split from non-members by groups, and differences are "
                "tested as if records were independent, so chance alone makes more of them than "
                "their p-values say"
            )
    if records.relabelled:
        yield (
            f"{records.relabelled:,} records are members in one run and not in the other; they are "
            "left out"
        )
