"""The ranked attacks, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from raymia.metrics.summary import TOO_FEW, AttackMetrics, Estimate
from raymia.report.alike import gate_rows
from raymia.report.listing import GAP, Listing
from raymia.results import wording
from raymia.results.deletions import deletion_lines
from raymia.results.privacy import broken, claim_lines
from raymia.results.ranking import TargetRanking, estimate_at, every_ranking, few_allowed
from raymia.results.result import RunResult
from raymia.results.verdict import verdict_of
from raymia.util.listing import listed

MAX_FPRS = 3
"""More columns than this do not fit 100 characters; the rest are in the report."""
NUMBER_WIDTH = 17
ATTACK_WIDTH = 23


def metrics_table(result: RunResult, width: int = 100) -> Group:
    """Lay out the verdict and the metrics of a run for a terminal ``width`` columns wide.

    The attacks and AUC are always shown, and as many budgets as there is room for.

    Returns
    -------
    rich.console.Group
        The verdict, then one block for each target: attacks best first, each number with its
        interval, and what could not be resolved or measured. True positive rates are in percent.
    """
    blocks: list[RenderableType] = [Text(line, style="bold red") for line in broken(result.privacy)]
    blocks.append(Text(verdict_of(result).sentence, style="bold"))
    blocks += map(Text, [*claim_lines(result.privacy), *deletion_lines(result.deletions)])
    blocks.append("")
    lacks = {label: card.no_score for card in result.attacks for label in card.labels}
    for ranking in every_ranking(result):
        blocks.append(_heading(ranking))
        if ranking.measured:
            blocks.append(_ranked(ranking, width))
        blocks += [*_notes(ranking, lacks), ""]
    blocks += [Text(f"{wording.extraction(one)}.") for one in result.extractions]
    blocks += [Text(wording.dataset_inference(t), style="dim") for t in result.dataset_inference]
    return Group(*blocks)


def gate_table(result: RunResult) -> Group:
    """Lay out what the release gate decided: each outcome with its condition and the targets that
    it is the same of, and under it why."""
    lines: list[RenderableType] = []
    for row in gate_rows(result.gate):
        colors = {"passed": "green", "undecided": "bold yellow"}
        status = (row.status.replace("_", " "), colors.get(row.status, "bold red"))
        targets = "" if row.targets == ("*",) else f" on {', '.join(row.targets)}"
        lines.append(Text.assemble(status, f": {row.condition}{targets}"))
        lines.append(Padding(Text(row.reason, style="dim"), (0, 0, 0, 4)))
    return Group(*lines)


def _heading(ranking: TargetRanking) -> Text:
    heading = Text(ranking.target, style="bold")
    if ranking.measured:
        members = max(attack.n_members for attack in ranking.measured)
        non_members = max(attack.n_non_members for attack in ranking.measured)
        counts = f"  {members:,} {ranking.positives}, {non_members:,} {ranking.negatives[1]}"
        heading.append(counts, style="not bold dim")
    return heading


def _ranked(ranking: TargetRanking, width: int) -> Listing:
    room = (width - ATTACK_WIDTH - NUMBER_WIDTH - 5) // (NUMBER_WIDTH + GAP)
    fprs = _columns(ranking, min(MAX_FPRS, max(0, room)))
    return Listing(
        ("attack", "AUC", *(f"TPR@{wording.budget(fpr)} FPR" for fpr in fprs)),
        [
            (
                Text(attack.attack),
                (
                    _number(f"{attack.auc.value:.3f}", wording.unit_interval(attack.auc)),
                    *(_rate(attack, fpr, best=fpr == ranking.fpr) for fpr in fprs),
                ),
            )
            for attack in ranking.measured
        ],
    )


def _columns(ranking: TargetRanking, max_columns: int) -> list[float]:
    """Choose the budgets to show: the one that ranks, then those next to it in the audit."""
    budgets = sorted(
        {tpr.max_fpr for attack in ranking.measured for tpr in attack.tpr}, reverse=True
    )
    centre = budgets.index(ranking.fpr) if ranking.fpr in budgets else 0
    start = centre if max_columns == 1 else max(0, min(centre - 1, len(budgets) - max_columns))
    return budgets[start : start + max_columns]


def _rate(attack: AttackMetrics, fpr: float, *, best: bool) -> Text:
    estimate: Estimate | None = estimate_at(attack, fpr)
    if estimate is None:
        return Text("not resolvable", style="dim")
    text = _number(f"{100 * estimate.value:.1f}", wording.rate_interval(estimate))
    if best:
        text.stylize("bold")
    return text


def _number(value: str, interval: str) -> Text:
    return Text.assemble(value, " ", (interval, "dim"))


def _notes(ranking: TargetRanking, lacks: Mapping[str, str]) -> list[Text]:
    """What one must know of a target's attacks.

    Parameters
    ----------
    lacks : when a record has no score, by the attack's label.
    """
    notes = []
    if ranking.measured:
        by = "AUC" if ranking.fpr is None else f"TPR at {wording.budget(ranking.fpr)} FPR"
        level = wording.budget(ranking.measured[0].confidence)
        halved = ranking.measured[0].held_out_auc is not None
        on = " on one half of the records; what is shown is of all" if halved else ""
        notes.append(f"Ranked by {by}{on}. TPR in percent; brackets: {level} intervals.")
    notes += [wording.rests_on_few(*few, ranking.negatives) for few in few_allowed(ranking)]
    unresolved = {
        tpr.max_fpr: wording.not_resolvable(tpr, ranking.negatives)
        for attack in ranking.measured
        for tpr in attack.tpr
        if not tpr.resolvable
    }
    notes += [f"{wording.budget(fpr)} FPR: {why}." for fpr, why in unresolved.items()]
    said: dict[str, list[str]] = {}
    for attack in ranking.measured:
        if attack.below_chance:
            said.setdefault(f"{wording.BELOW_CHANCE}.", []).append(attack.attack)
        if attack.n_unscored:
            lack = wording.number_of(attack.n_unscored, "record")
            one = attack.n_unscored == 1
            left_out = "has no score and is" if one else "have no score and are"
            why = lacks.get(attack.attack, "")
            said.setdefault(f"{lack} {left_out} left out. {why}".strip(), []).append(attack.attack)
    for entry in ranking.not_measured:
        why = lacks.get(entry.attack, "") if entry.reason.startswith(TOO_FEW) else ""
        said.setdefault(f"not measured, {entry.reason}. {why}".strip(), []).append(entry.attack)
    notes += [f"{listed(attacks)}: {what}" for what, attacks in said.items()]
    return [Text(note, style="dim") for note in notes]
