"""A real browser without a screen, and reports for it to open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_up_pages import many_checkpoints, one_checkpoint
from made_up_sweep import ROWS, result

from raymia.report.sweep_page import render

CHROMIUM = os.environ.get("RAYMIA_CHROMIUM") or shutil.which("chromium")
NO_BROWSER = (
    "no browser: install Debian's chromium (apt-get install chromium), or name a Chromium in "
    "RAYMIA_CHROMIUM; the tests of the report in a browser are skipped"
)
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser these tests are skipped, for that reason alone, and it is said aloud."""
    if CHROMIUM:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A skip is easily overlooked among many dots."""
    if not CHROMIUM:
        terminalreporter.section("the report was not tested in a browser", red=True, bold=True)
        terminalreporter.line(NO_BROWSER)


@dataclass
class Opened:
    """A page in the browser, and what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def library(self) -> None:
        """Wait until the plotting library is unpacked."""
        self.page.wait_for_function("() => 'Plotly' in window", timeout=60_000)

    def drawn(self) -> int:
        """How many charts are drawn."""
        count: int = self.page.locator(".plot.js-plotly-plot").count()
        return count

    def wide(self) -> float:
        """How far the page reaches to the right of the screen, in pixels."""
        across: float = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return across


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens a file at a width, light or dark."""
    contexts = []

    def opened(file: Path, width: int = 1280, scheme: str = "light") -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 600
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(file.as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on one checkpoint."""
    file = tmp_path_factory.mktemp("page") / "one.html"
    file.write_text(one_checkpoint(), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on 60 checkpoints."""
    file = tmp_path_factory.mktemp("page") / "many.html"
    file.write_text(many_checkpoints(60), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep."""
    file = tmp_path_factory.mktemp("page") / "sweep.html"
    file.write_text(render(result(), ROWS), encoding="utf-8")
    return file
