"""The page of a sweep is one safe file that loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from raymia.metrics.summary import Estimate
from raymia.spec import ObjectiveSpec
from raymia.sweep.evaluate import Evaluated, Halves, Place, Points, Setting
from raymia.sweep.page import parallel_coordinates, render
from raymia.sweep.result import Half, QueryCount, Row, SweepResult, Winner

ATTACK_ON_READER = "<script>alert('x')</script><img src=http://evil.test/a onerror=alert(1)>"


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05)


def row(share: float, space: str, chosen: float, judged: float) -> Row:
    def points(auc: float) -> Points:
        return Points(n_members=20, n_non_members=20, n_unscored=0, auc=auc, tpr=[None])

    setting = Setting(
        Place(ATTACK_ON_READER, 0, "min_k", "min_k", None, "e"), {"share": share, "space": space}
    )
    found = Evaluated(
        key=setting.key, attack="min_k", evidence="e", parameters=dict(setting.parameters),
        calibration=points(chosen), evaluation=points(judged),
    )  # fmt: skip
    return Row(setting, found, {"neighbors.count": 5}, 0, 10)


ROWS = [
    row(0.1, "log", 0.6, 0.55),
    row(0.2, "log", 0.7, 0.65),
    row(0.4, ATTACK_ON_READER, 0.8, 0.5),
]


def result() -> SweepResult:
    half = Half(n_members=20, n_non_members=20, auc=estimate(0.8), tpr=[None])
    return SweepResult(
        name=ATTACK_ON_READER, created="2026-01-01", code_version="0", search="grid", seed=0,
        objective=ObjectiveSpec(), rates=[0.1], confidence=0.95,
        halves=Halves(calibration_members=20, calibration_non_members=20, evaluation_members=20,
                      evaluation_non_members=20),
        queries=[QueryCount(values={"neighbors.count": 5}, answers=10, asked=4)],
        settings=3, tried_now=3,
        winners=[Winner(
            target=ATTACK_ON_READER, attack="min_k", label="min_k",
            parameters={"share": 0.4, "space": ATTACK_ON_READER}, queries={}, tried=3,
            calibration=half, evaluation=half.model_copy(update={"auc": estimate(0.5)}),
            held_out=None,
        )],
        problems=[ATTACK_ON_READER], seconds=1.0,
    )  # fmt: skip


def test_everything_from_outside_is_escaped_and_nothing_is_loaded() -> None:
    page = render(result(), ROWS)
    assert ATTACK_ON_READER not in page
    assert "<img" not in page.split("<script", 1)[0]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    names = {name for _, attributes in Tags(page).found for name, _ in attributes}
    assert not names & {"src", "href", "action", "srcset"}
    assert not {name for name in names if name.startswith("on")}


def test_both_figures_and_the_optimism_are_shown() -> None:
    page = render(result(), ROWS)
    assert "0.800 [0.750, 0.850]" in page
    assert "0.500 [0.450, 0.550]" in page
    assert "+0.300" in page


def test_a_line_meets_every_axis_at_its_value() -> None:
    page = render(result(), ROWS)
    (found,) = re.findall(r'<script type="application/json" id="plots">(.*?)</script>', page)
    (plot,) = json.loads(found)
    assert [axis["name"] for axis in plot["axes"]] == ["share", "space", "chosen on", "judged on"]
    best, second, last = plot["lines"]  # neighbors.count has one value, and no axis
    assert [line["at"][0] for line in (last, second, best)] == [0.0, 0.33333, 1.0]
    assert best["at"][2] == 1.0
    assert best["at"][3] == 0.0
    assert plot["axes"][0]["ticks"] == [[0.0, "0.1"], [0.33333, "0.2"], [1.0, "0.4"]]


def test_an_axis_of_widely_different_numbers_is_logarithmic() -> None:
    rows = [row(share, "log", 0.6, 0.6) for share in (0.01, 0.1, 1.0)]
    plot = parallel_coordinates(rows, result())
    assert [line["at"][0] for line in plot["lines"]] == [0.0, 0.5, 1.0]
