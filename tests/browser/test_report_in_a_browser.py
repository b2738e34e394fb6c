"""What a reader does with a report, done in a real browser."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

import pytest
from made_up_pages import (
    DISGUISED_BY,
    SCRIPT,
    SECRET,
    gated_checkpoints,
    many_checkpoints,
    one_checkpoint,
)

from raymia.results.disguise import Disguise
from raymia.results.verdict import reach_verdict

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
A4_WITHIN_MARGINS = 717
"""Pixels of a page's width, at 96 to an inch."""


def rows(page: Any, column: int) -> list[str]:
    """The cells of a column of the first sortable table, as they stand."""
    found: list[str] = page.eval_on_selector_all(
        "table.sortable >> nth=0 >> tbody tr",
        "(rows, column) => rows.map((row) => row.cells[column].dataset.value ?? '')",
        column,
    )
    return found


def header(page: Any, name: str) -> Any:
    return page.locator("table.sortable").first.get_by_role("button", name=name, exact=False)


@pytest.mark.parametrize("of", ["one", "sweep"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (390, "dark"), (1280, "light")])
def test_page_says_nothing_asks_nothing_and_is_no_wider_than_the_screen(
    request: pytest.FixtureRequest, open_page: Any, of: str, width: int, scheme: str
) -> None:
    file: Path = request.getfixturevalue(of)
    opened = open_page(file, width, scheme)
    page = opened.page
    assert page.locator(".plot").count()
    for element in page.locator(".plot").all():
        element.scroll_into_view_if_needed()
        page.wait_for_function(
            "(plot) => plot.querySelector('.main-svg')",
            arg=element.element_handle(),
            timeout=60_000,
        )
    assert opened.said == []
    assert opened.asked == [file.as_uri()]
    assert opened.wide() == 0


def test_line_of_parallel_coordinates_says_what_setting_it_is(sweep: Path, open_page: Any) -> None:
    opened = open_page(sweep)
    plot = opened.page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".main-svg").first.wait_for(timeout=60_000)
    # Where the best setting's line meets the first axis.
    at = plot.evaluate(
        """(plot) => {
          const best = plot.data.at(-1), {xaxis, yaxis} = plot._fullLayout;
          const box = plot.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(best.x[0]),
                  box.y + yaxis._offset + yaxis.d2p(best.y[0])];
        }"""
    )
    opened.page.mouse.move(*at)
    shown = plot.locator(".hoverlayer .hovertext").text_content()
    assert "share 0.4" in shown
    assert "chosen on 0.800, judged on 0.500" in shown
    assert opened.said == []


def test_point_of_a_roc_curve_says_what_it_is(one: Path, open_page: Any) -> None:
    opened = open_page(one)
    plot = opened.page.get_by_label("ROC curves of tuned")
    plot.scroll_into_view_if_needed()
    plot.locator(".main-svg").first.wait_for(timeout=60_000)
    # The middle of the leading attack's curve, on the screen.
    at = plot.evaluate(
        """(plot) => {
          const trace = plot.data.find((trace) => trace.name === "ez@self_prompt" && trace.text);
          const middle = Math.floor(trace.x.length / 2), {xaxis, yaxis} = plot._fullLayout;
          const box = plot.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[middle]),
                  box.y + yaxis._offset + yaxis.d2p(trace.y[middle]), trace.text[middle]];
        }"""
    )
    opened.page.mouse.move(at[0], at[1])
    label = plot.locator(".hoverlayer .hovertext").first
    label.wait_for(timeout=10_000)
    said = " ".join(label.text_content().split())
    assert "ez@self_prompt" in said
    assert re.search(r"FPR [\d.]+ % \(\d+ of 250 non-members\)", said)
    assert re.search(r"TPR [\d.]+ % \(\d+ of 250 members\)", said)


def test_every_row_of_a_table_is_one_line_of_cells_that_are_all_seen(
    one: Path, many: Path, open_page: Any
) -> None:
    for file in (one, many):
        page = open_page(file).page
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        broken = page.evaluate(
            """[...document.querySelectorAll('tr')].filter((row) =>
                new Set([...row.cells].map((cell) => cell.getBoundingClientRect().top)).size > 1
            ).map((row) => row.innerText)"""
        )
        assert broken == []
        hidden = page.evaluate(
            """[...document.querySelectorAll('.wide:has(.ranked)')]
                .map((box) => box.scrollWidth - box.clientWidth).filter((pixels) => pixels > 0)"""
        )
        assert hidden == []


def test_table_sorts_by_click(one: Path, open_page: Any) -> None:
    page = open_page(one).page
    before = [float(value) for value in rows(page, 1)]
    button = header(page, "AUC").first
    button.click()
    falling = [float(value) for value in rows(page, 1)]
    assert falling == sorted(before, reverse=True)
    button.click()
    assert [float(value) for value in rows(page, 1)] == sorted(before)
    head = page.locator("table.sortable >> nth=0 >> thead th")
    orders = [cell.get_attribute("aria-sort") for cell in head.all()]
    assert orders[1] == "ascending"
    assert {*orders[:1], *orders[2:]} == {"none"}


def test_table_sorts_by_keyboard_with_the_focus_in_sight(one: Path, open_page: Any) -> None:
    page = open_page(one).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    button = header(page, "Attack")
    for _ in range(60):
        page.keyboard.press("Tab")
        if button.evaluate("(button) => button === document.activeElement"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert rows(page, 0) == sorted(rows(page, 0))
    page.keyboard.press("Space")
    assert rows(page, 0) == sorted(rows(page, 0), reverse=True)


def test_record_with_a_script_is_shown_as_text_and_a_long_line_breaks(
    one: Path, open_page: Any
) -> None:
    opened = open_page(one, 360)
    page = opened.page
    assert page.locator(".text", has_text=SCRIPT).count() == 1
    assert page.title() == "reviews · membership-inference audit"
    for box in page.locator(".text").all():
        assert box.evaluate("(box) => box.scrollWidth - box.clientWidth") == 0
    assert page.locator(".text", has_text="y" * 10_000).count() == 1
    assert opened.wide() == 0


def test_redacted_report_holds_no_text_of_a_record(open_page: Any, tmp_path: Path) -> None:
    file = tmp_path / "redacted.html"
    file.write_text(one_checkpoint(redacted=True), encoding="utf-8")
    page = open_page(file).page
    assert page.locator("div.text").count() == 0
    assert SECRET not in page.content()
    assert "document.title = " not in page.content()
    record = "exposed0" * 4
    assert record not in page.content()
    assert page.get_by_text(Disguise(DISGUISED_BY).id(record)[:12]).is_visible()


def test_print_opens_everything_and_draws_it_in_black_on_white_within_the_paper(
    open_page: Any, tmp_path: Path
) -> None:
    several = tmp_path / "several.html"
    several.write_text(many_checkpoints(8), encoding="utf-8")
    opened = open_page(several, 1280, "dark")
    opened.library()
    closed = opened.page.locator("details:not([open])").count()
    assert closed > 8
    opened.page.emulate_media(media="print", color_scheme="dark")
    opened.page.wait_for_function("() => !document.querySelector('details:not([open])')")
    opened.page.wait_for_function(
        "() => !document.querySelector('.plot:not(.js-plotly-plot)')", timeout=120_000
    )
    colors = opened.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert colors == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    right = opened.page.evaluate(
        """Math.max(...[...document.querySelectorAll('.main-svg, table')]
            .map((drawn) => drawn.getBoundingClientRect().right))"""
    )
    assert right <= A4_WITHIN_MARGINS
    opened.page.emulate_media(media="screen", color_scheme="dark")
    opened.page.wait_for_function(
        "(closed) => document.querySelectorAll('details:not([open])').length === closed",
        arg=closed,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_from_what_is_behind_it(
    one: Path, many: Path, open_page: Any, scheme: str
) -> None:
    for file in (one, many):
        page = open_page(file, 1280, scheme).page
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate(CONTRAST) == []
    page.evaluate("() => { document.querySelector('p').style = 'color: #888; background: #777'; }")
    assert len(page.evaluate(CONTRAST)) == 1, "the check finds what is there to be found"


def test_headings_come_in_order_and_every_picture_has_words(one: Path, open_page: Any) -> None:
    opened = open_page(one)
    levels = opened.page.eval_on_selector_all(
        "h1, h2, h3, h4", "(all) => all.map((heading) => Number(heading.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    for plot in opened.page.locator(".plot").all():
        assert plot.get_attribute("aria-label")


def test_three_questions_are_answered_within_two_clicks(many: Path, open_page: Any) -> None:
    """Which checkpoints may ship, by which attack and how sure, and which records are worst."""
    result, _ = gated_checkpoints(60)
    may_ship = {outcome.target for outcome in result.gate if outcome.status == "passed"}
    assert may_ship
    page = open_page(many, 1280).page
    gate = page.get_by_role("region", name="Release gate")
    assert gate.get_by_text("Gate: closed").is_visible()
    if not gate.locator("table").is_visible():
        gate.locator("summary").click()
    passed = gate.locator("tr", has=page.locator(".tag.passed")).locator("td:nth-child(3)")
    names = {n.strip() for cell in passed.all() for n in (cell.text_content() or "").split(",")}
    assert names == may_ship

    page = open_page(many, 1280).page
    leading = reach_verdict(result)
    worst = re.search(r"The worst is (\S+): (\S+) names", leading.sentence)
    assert worst is not None
    screen = page.viewport_size["height"]
    for place in ("#verdict", ".card >> nth=1"):
        box = page.locator(place).bounding_box()
        assert box["y"] + 40 < screen, f"{place} is on the first screen"
    assert worst[2] in page.locator(".card").first.text_content()
    assert "95 % interval" in page.locator(".card >> nth=1").text_content()

    page.get_by_role("link", name="The most exposed records").click()
    first = page.locator("#records figure").first
    assert "Most exposed of 100 members" in first.text_content()
    page.wait_for_function(
        "() => document.querySelector('#records').getBoundingClientRect().top < innerHeight"
    )


def test_sixty_checkpoints_are_there_in_seconds_and_drawn_when_opened(
    many: Path, open_page: Any
) -> None:
    assert many.stat().st_size < 5_000_000
    started = time.monotonic()
    opened = open_page(many)
    page = opened.page
    assert len(rows(page, 0)) == 60
    assert time.monotonic() - started < 20, "the machine may be busy; alone it takes less than one"
    opened.library()
    page.get_by_role("heading", name="Leakage over training").scroll_into_view_if_needed()
    page.get_by_label("AUC and loss of step over training").locator(".main-svg").first.wait_for()
    assert opened.drawn() < 10
    page.get_by_role("link", name="step-500", exact=True).click()
    plot = page.get_by_label("ROC curves of step-500 on")
    plot.locator(".main-svg").first.wait_for()
    assert plot.is_visible()
    assert opened.drawn() < 14
    assert opened.said == []
    assert opened.asked == [many.as_uri()]
