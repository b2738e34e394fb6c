"""What the changes of one target come to, and in which words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raymia.metrics.delong import FEWEST_COMPARED
from raymia.results import wording
from raymia.results.comparison_result import AttackChange, Difference, Finding
from raymia.results.ranking import USUAL_FPR

LEVEL = 0.05
FAR = 2.0
"""How much further from 0.5 an AUC has to be than one on the other side of it."""


def _differences(entry: AttackChange) -> list[Difference]:
    return [found for found in (entry.auc, entry.tpr) if found is not None]


def _is_shown(entry: AttackChange) -> bool:
    return any(found.p_holm <= LEVEL for found in _differences(entry))


def change_sort_key(entry: AttackChange) -> tuple[bool, bool, float]:
    """A key by which attacks that changed come first, and of them those whose AUC changed most."""
    auc = entry.auc
    return not _is_shown(entry), auc is None, 0.0 if auc is None else -abs(auc.value)


def finding_of(attacks: Sequence[AttackChange]) -> Finding:
    """What the changes of the attacks on one target come to."""
    found = [difference for entry in attacks for difference in _differences(entry)]
    if not found:
        return "not_comparable"
    shown = [entry for entry in attacks if _is_shown(entry)]
    if not shown:
        return "no_change_shown"
    ways = {way for entry in shown for way in _ways(entry)}
    return ways.pop() if len(ways) == 1 else "mixed"


def _ways(entry: AttackChange) -> Iterator[Finding]:
    """Which way each number of an attack went that is shown to have changed.

    An AUC below 0.5 tells as much as one above, so it is its distance from 0.5 that leaks. Of one
    that crossed 0.5 it is not known which run is the further from it, unless by far.
    """
    auc, tpr = entry.auc, entry.tpr
    if tpr is not None and tpr.p_holm <= LEVEL:
        yield "leaks_more" if tpr.value > 0 else "leaks_less"
    if auc is not None and auc.p_holm <= LEVEL:
        before, after = abs(auc.a - 0.5), abs(auc.b - 0.5)
        far = FAR if (auc.a - 0.5) * (auc.b - 0.5) < 0 else 1.0
        if after > far * before:
            yield "leaks_more"
        elif before > far * after:
            yield "leaks_less"
        else:
            yield "mixed"


def sentence_of(
    pair: tuple[str, str], finding: Finding, attacks: Sequence[AttackChange], shifted: bool
) -> str:
    """Say it.

    Parameters
    ----------
    pair : the target's names in the two runs.
    attacks : by `change_sort_key`.
    shifted : whether members and non-members of a run differ without any model.
    """
    name = pair[1] if pair[0] == pair[1] else f"{pair[1]} ({pair[0]} in the first run)"
    if shifted:
        return (
            f"{name}: leakage cannot be compared: members and non-members differ without any model"
        )
    if finding == "not_comparable":
        return (
            f"{name}: cannot be compared: no attack has scores of {FEWEST_COMPARED} members and "
            f"{FEWEST_COMPARED} non-members in both runs"
        )
    compared = [entry for entry in attacks if entry.auc is not None]
    changed = sum(map(_is_shown, compared))
    what = {
        "leaks_more": "leaks more in the second run",
        "leaks_less": "leaks less in the second run",
        "mixed": "changed, and not in one direction",
        "no_change_shown": "no change is shown",
    }[finding]
    if changed:
        what += f", as {changed} of {wording.number_of(len(compared), 'attack')} show"
        what += "s" if changed == 1 else ""
    return f"{name}: {what}; {_numbers(compared[0])}"


def _numbers(entry: AttackChange) -> str:
    auc, tpr = entry.auc, entry.tpr
    assert auc is not None
    rate = (
        ""
        if tpr is None
        else f", TPR at {wording.budget(USUAL_FPR)} FPR {wording.percent(tpr.a)} to "
        f"{wording.percent(tpr.b)}"
    )
    return (
        f"{entry.attack}: AUC {auc.a:.3f} to {auc.b:.3f} "
        f"({auc.value:+.3f} [{auc.low:+.3f}, {auc.high:+.3f}]){rate}"
    )
