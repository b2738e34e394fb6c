"""The report as one HTML file that loads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from raymia.report import wording
from raymia.report.curves import SHOWN_AT_FIRST, AttackCurves, plot_data
from raymia.report.pictures import target_pictures
from raymia.report.ranking import by_groups, few_allowed, rank
from raymia.report.result import RunResult
from raymia.report.verdict import TITLES, verdict_of

LISTED = 50
"""Set-aside records, dropped evidence and kinds of reason that the page lists one by one."""


def render(result: RunResult, curves: Sequence[AttackCurves]) -> str:
    """Write the report of a run.

    Parameters
    ----------
    result : RunResult
    curves : sequence of AttackCurves
        What is drawn of the attacks that were measured.

    Returns
    -------
    str
        One HTML document. It holds its styles and its scripts, forbids itself any network access
        by a content security policy, and escapes every string that came from outside.
    """
    rankings = rank(result.metrics)
    return _template().render(
        run=result,
        verdict=verdict_of(result),
        finding_titles=TITLES,
        rankings=rankings,
        by_groups=by_groups(result),
        pictures=target_pictures(result),
        plots=[plot_data(ranking, curves) for ranking in rankings],
        titles={card.name: card.title for card in result.attacks},
        set_aside_reasons=_tally(entry.reason for entry in result.set_aside),
        dropped_reasons=_tally(f"{entry.stage}: {entry.reason}" for entry in result.dropped),
        listed=LISTED,
        shown_at_first=SHOWN_AT_FIRST,
        plotly=plotly_script(),
    )


def _tally(reasons: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(reasons).most_common()


def _fact(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@cache
def plotly_script() -> Markup:
    """Plotly, to stand within a script element."""
    # Within a script element only these two character sequences could end or confuse it; in the
    # library they can stand in string literals alone, where the backslash changes nothing.
    source = get_plotlyjs().replace("</script", r"<\/script").replace("<!--", r"<\!--")
    return Markup(source)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "budget": wording.budget,
        "count": wording.count,
        "chosen_on": wording.chosen_on,
        "dataset_inference": wording.dataset_inference,
        "duration": wording.duration,
        "exposure": wording.exposure,
        "fact": _fact,
        "few_allowed": few_allowed,
        "neighbor_figures": wording.neighbor_figures,
        "outscores": wording.outscores,
        "overlap_lines": wording.overlap_lines,
        "percent": wording.percent,
        "rate_interval": wording.rate_interval,
        "rests_on_few": lambda few: wording.rests_on_few(*few),
        "shift_line": wording.shift_line,
        "unit_interval": wording.unit_interval,
    }
    environment.filters.update(filters)
    source = resources.files("raymia.report").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(source)
