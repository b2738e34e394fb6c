"""A stored run in the forms that papers, model cards and other tools take."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from raymia.metrics.summary import AttackMetrics, NotMeasured
from raymia.report.notebook import NotebookRun
from raymia.results import wording
from raymia.results.chance import Counted, units_of, what_counts
from raymia.results.flat import every_row
from raymia.results.gate import gate_line
from raymia.results.privacy import broken
from raymia.results.ranking import (
    at_budget,
    estimate_at,
    every_ranking,
    held_out_area,
    held_out_rate,
    rank,
)
from raymia.results.result import RunResult
from raymia.results.verdict import TITLES, verdict_of
from raymia.util.errors import InputError
from raymia.util.optional import require

MARKDOWN_SPECIAL = "\\`*_{}[]<>#|"


def export(run: NotebookRun, form: str) -> bytes:
    """Write what a run found in another form.

    Parameters
    ----------
    form : one of `FORMS`: the figures of each attack as ``csv`` or ``parquet``; a table of the
        attacks as ``markdown`` or ``latex``; ``model-card``, a section in Markdown.
    """
    return FORMS[form](run)


def _every_number(run: NotebookRun) -> pa.Table:
    return every_row(run.result)


def _csv(run: NotebookRun) -> bytes:
    content: str = _every_number(run).to_pandas().to_csv(index=False)
    return content.encode()


def _parquet(run: NotebookRun) -> bytes:
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(_every_number(run), content)
    return content.getvalue()


def _shown(run: NotebookRun) -> list[dict[str, str]]:
    """The attacks as a reader sees them, best first within a target."""
    rows = []
    for ranking in every_ranking(run.result):
        for attack in ranking.measured:
            row = {
                "Checkpoint": ranking.target,
                "Attack": attack.attack,
                "AUC": f"{attack.auc.value:.3f} {wording.unit_interval(attack.auc)}",
            }
            for at in attack.tpr:
                estimate = estimate_at(attack, at.max_fpr)
                row[f"TPR at {wording.budget(at.max_fpr)} FPR"] = (
                    "not resolvable"
                    if estimate is None
                    else f"{wording.percent(estimate.value)} {wording.rate_interval(estimate)}"
                )
            row["Members / non-members"] = (
                f"{wording.count(attack.n_members)} / {wording.count(attack.n_non_members)}"
            )
            rows.append(row)
    return rows


def _markdown(run: NotebookRun) -> bytes:
    return "".join(f"{line}\n" for line in _markdown_table(_shown(run))).encode()


def _markdown_table(rows: list[dict[str, str]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_escaped(row.get(column, "")) for column in columns] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is written."""
    one_line = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in MARKDOWN_SPECIAL else sign for sign in one_line)


def _latex(run: NotebookRun) -> bytes:
    import pandas as pd

    content: str = pd.DataFrame(_shown(run)).to_latex(index=False, escape=True, na_rep="")
    return content.encode()


def _model_card(run: NotebookRun) -> bytes:
    """A section for a model card: what was audited, by what, what it came to, what that does not
    prove, and how to repeat it."""
    result = run.result
    verdict = verdict_of(result)
    lines = [
        "## Training-data leakage",
        "",
        *(f"**{_escaped(line)}**\n" for line in broken(result.privacy)),
        f"**{TITLES[verdict.finding]}.** {_escaped(verdict.sentence)}",
        "",
        f"Membership-inference audit of {result.created[:10]} with "
        f"{wording.audited(result.records)}, by raymia {result.versions.get('raymia', '')}. "
        f"Each row is the attack that leads on a checkpoint.{TOLD[_counted(result)][1]}"
        f"{_level(result.metrics)}",
    ]
    if leading := _leading(run):
        lines += ["", *_markdown_table(leading)]
    if verdict.limits:
        lines += ["", "What this does not prove:", ""]
        lines += [f"- {_escaped(limit)}" for limit in verdict.limits]
    if result.gate:
        lines += ["", f"Release {gate_line(result)}."]
    return ("\n".join(lines) + "\n").encode()


TOLD: Mapping[Counted, tuple[str, str]] = {
    "records": ("Members named", ""),
    "distinct": ("Distinct members named", " It is a table of distinct records, as the tests are."),
    "groups": ("Groups of members named", " It is a table of groups of records, as the tests are."),
}
"""The heading of a model card's rates, and what is said of its table."""


def _counted(result: RunResult) -> Counted:
    """What the figures of a model card are of: what the tests count, where any was measured."""
    return what_counts(result) if units_of(result) else "records"


def _leading(run: NotebookRun) -> list[dict[str, str]]:
    result, named = run.result, TOLD[_counted(run.result)][0]
    metrics = list(units_of(result).values()) or result.metrics
    fprs = {ranking.target: ranking.fpr for ranking in rank(metrics)}
    measured = {(m.target, m.attack): m for m in metrics if isinstance(m, AttackMetrics)}
    rows = []
    for entry in verdict_of(result).targets:
        row = {"Checkpoint": entry.target, "Verdict": TITLES[entry.finding]}
        leader = measured.get((entry.target, entry.attack or ""))
        rows.append(row if leader is None else row | _figures(leader, fprs[entry.target], named))
    return rows


def _figures(leader: AttackMetrics, fpr: float | None, named: str) -> dict[str, str]:
    area = held_out_area(leader)
    row = {
        "Attack": leader.attack,
        "AUC": f"{area.value:.3f} {wording.unit_interval(area)}",
    }
    rate = held_out_rate(leader, fpr)
    if fpr is not None and rate is not None:
        at = at_budget(leader, fpr)
        held = None if at is None else at.held_out
        came = "" if held is None else f" at {wording.percent(held.fpr.value)} FPR"
        row[f"{named}, threshold for {wording.budget(fpr)} FPR"] = (
            f"{wording.percent(rate.value)}{came} {wording.rate_interval(rate)}"
        )
    return row


def _level(metrics: Sequence[AttackMetrics | NotMeasured]) -> str:
    levels = {one.confidence for one in metrics if isinstance(one, AttackMetrics)}
    return "".join(f" Brackets are {100 * level:g} % intervals." for level in sorted(levels))


FORMS: Mapping[str, Callable[[NotebookRun], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "markdown": _markdown,
    "latex": _latex,
    "model-card": _model_card,
}


def draw(run: NotebookRun, target: str | None, form: str) -> bytes:
    """The ROC curves of a target as ``svg`` or ``png``.

    Raises
    ------
    InputError
        As `NotebookRun.plot` does, and where what makes pictures of charts is not installed.
    """
    require("kaleido", "pictures of charts")
    figure = run.plot(target)
    try:
        content: Any = figure.to_image(format=form, width=900, height=600)
    except Exception as error:  # of the browser, of many kinds
        raise InputError(
            f"{run.folder}: kaleido could not draw the picture ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); it takes Chrome "
            "or Chromium: install one, or name it in the variable BROWSER_PATH"
        ) from error
    return bytes(content)
