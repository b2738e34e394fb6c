"""The report as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from raymia.records.base import count_reasons
from raymia.report.alike import gate_rows
from raymia.report.charts import Charts, cost_chart
from raymia.report.first_screen import first_screen
from raymia.report.pictures import target_pictures
from raymia.report.sections import (
    contents,
    drawn_series,
    first_measured,
    groups_overlaid,
    resolved,
    shown_claims,
    target_sections,
    unit_sections,
)
from raymia.report.texts import target_texts
from raymia.results import wording
from raymia.results.curves import SHOWN_AT_FIRST, AttackCurves
from raymia.results.deletions import deletion_lines
from raymia.results.gate import gate_line, is_open
from raymia.results.privacy import broken, claim_lines
from raymia.results.ranking import at_budget, by_distinct, by_groups, few_allowed
from raymia.results.result import RunResult
from raymia.results.verdict import TITLES, verdict_of
from raymia.util.credentials import hidden, hidden_in
from raymia.util.durations import duration
from raymia.util.optional import install_command, is_installed

LISTED = 50
"""Set-aside records, dropped evidence and kinds of reason that the page lists one by one."""


def render(result: RunResult, curves: Sequence[AttackCurves], sweep: str | None = None) -> str:
    """Write the report of a run.

    Parameters
    ----------
    result : RunResult
    curves : sequence of AttackCurves
        What is drawn, of the attacks that were measured.
    sweep : str, optional
        Name of a sweep's page in the same folder.

    Returns
    -------
    str
        One HTML document. It holds its styles and its scripts, forbids itself any network access
        by a content security policy, and escapes every string that came from outside.
    """
    charts = Charts()
    verdict = verdict_of(result)
    targets = target_sections(result, verdict, curves, charts)
    exposed = first_measured(targets)
    first = first_screen(result, targets, curves, charts)
    context: dict[str, Any] = {
        "run": result,
        "broken_claims": broken(result.privacy),
        "claim_lines": [*claim_lines(result.privacy), *deletion_lines(result.deletions)],
        "gate_line": gate_line(result),
        "gate_rows": gate_rows(result.gate),
        "below_chance": wording.BELOW_CHANCE,
        "gate_open": is_open(result.gate, result.undecided),
        "verdict": verdict,
        "first": first,
        "finding_titles": TITLES,
        "targets": targets,
        "by_distinct": unit_sections(by_distinct(result), curves, charts),
        "by_groups": unit_sections(by_groups(result), curves, charts),
        "score_of_distinct": wording.score_of_groups(result.distinct_metrics),
        "score_of_groups": wording.score_of_groups(result.group_metrics),
        "groups_roc": groups_overlaid(by_groups(result), curves, charts),
        "series": drawn_series(result, targets, charts),
        "overview_budgets": resolved(*(target.ranking for target in targets)),
        "has_losses": any(target.loss is not None for target in targets),
        "cost_chart": None
        if exposed is None
        else charts.add(cost_chart(exposed.ranking.measured, exposed.queries)),
        "cost_target": None if exposed is None else exposed.name,
        "claims": shown_claims(result, targets),
        "texts": target_texts(result),
        "pictures": target_pictures(result),
        "titles": {card.name: card.title for card in result.attacks},
        "set_aside_reasons": list(count_reasons(e.reason for e in result.set_aside).items()),
        "dropped_reasons": list(
            count_reasons(f"{e.stage}: {e.reason}" for e in result.dropped).items()
        ),
        "listed": LISTED,
        "shown_at_first": SHOWN_AT_FIRST,
        "sweep": sweep,
    }
    return render_page("report.html", charts.all, contents=contents(context), **context)


def render_page(template: str, charts: Sequence[dict[str, Any]], **context: Any) -> str:
    """Fill in a template of this package: one file with its styles, scripts and charts, and without
    the credentials of URLs."""
    return (
        _environment()
        .get_template(template)
        .render(
            charts=hidden_in(charts),
            style=_asset("style.css"),
            page_script=_asset("page.js"),
            charts_script=_asset("charts.js"),
            plotly=_packed_plotly(),
            script_hashes=_script_hashes(),
            install_plotly=install_command("plotly"),
            **context,
        )
    )


def _hidden(value: Any) -> Any:
    """A value as it may stand in a page; what is HTML already was made of such."""
    return hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _fact(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def _packed_plotly() -> Markup | None:
    """The plotting library, compressed: a third of its size, and nothing that could end a script
    element. The page unpacks it once its text stands, or has no charts where there is no library.
    """
    if not is_installed("plotly"):
        return None
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)
    return Markup(base64.b64encode(packed).decode())


@cache
def _script_hashes() -> Markup:
    """The scripts that the page's content security policy lets run, and no other."""
    scripts = [str(_asset("page.js")), str(_asset("charts.js"))]
    if is_installed("plotly"):
        from plotly.offline import get_plotlyjs

        scripts.append(get_plotlyjs())
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in scripts)
    return Markup(" ".join(f"'sha256-{value.decode()}'" for value in hashes))


@cache
def _asset(name: str) -> Markup:
    """A style sheet or script of this package, to stand in the page as it is."""
    source = resources.files("raymia.report").joinpath("page", name)
    return Markup(source.read_text(encoding="utf-8"))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raymia.report", "page"),
        autoescape=True,
        finalize=_hidden,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "at_budget": at_budget,
        "audited": wording.audited,
        "budget": wording.budget,
        "count": wording.count,
        "chosen_on": wording.chosen_on,
        "dataset_inference": wording.dataset_inference,
        "extraction": wording.extraction,
        "duration": duration,
        "evidence_lost": wording.evidence_lost,
        "epsilon_method": wording.epsilon_method,
        "exposure": wording.exposure,
        "fact": _fact,
        "few_allowed": few_allowed,
        "neighbor_figures": wording.neighbor_figures,
        "number_of": wording.number_of,
        "outscores": wording.outscores,
        "overlap_lines": wording.overlap_lines,
        "p_value": wording.p_value,
        "percent": wording.percent,
        "rate_interval": wording.rate_interval,
        "resolved": resolved,
        "rests_on_few": lambda few, negatives: wording.rests_on_few(few[0], few[1], negatives),
        "shift_line": wording.shift_line,
        "unit_interval": wording.unit_interval,
    }
    environment.filters.update(filters)
    return environment
