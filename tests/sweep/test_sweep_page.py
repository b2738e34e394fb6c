"""The page of a sweep is one safe file that loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from made_up_sweep import ATTACK_ON_READER, ROWS, result, row

from raymia.report.sweep_page import parallel_coordinates, render


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


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


def test_numbers_of_the_table_are_sorted_by_their_values() -> None:
    page = render(result(), ROWS)
    (table,) = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)
    cells = re.findall(r'<td class="num[^"]*"([^>]*)>', table)
    values = [re.findall(r'data-value="([^"]*)"', cell) for cell in cells]
    assert [float(value) for found in values for value in found] == [3, 0.8, 0.5, 0.8 - 0.5]


def test_a_line_meets_every_axis_at_its_value() -> None:
    page = render(result(), ROWS)
    (found,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', page)
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
