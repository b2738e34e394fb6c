"""Where the output is no terminal: one line for all stages, soon and then once a minute."""

from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from raymia.engine import board
from raymia.engine.board import Line, drawn
from raymia.util.terminal import terminal


def printed(monkeypatch: pytest.MonkeyPatch, steps: list[dict[str, Line]], every: float) -> str:
    """What is printed while a board goes through its steps, one after each look."""
    monkeypatch.setattr(board, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(board, "FIRST_LOG_SECONDS", 0.0)
    monkeypatch.setattr(board, "LOG_SECONDS", every)
    shown, left, gone = io.StringIO(), list(steps), threading.Event()

    def look() -> dict[str, Line]:
        if len(left) == 1:
            gone.set()
        return left.pop(0) if len(left) > 1 else left[0]

    with drawn(look, Console(file=shown, width=20, emoji=False)):
        assert gone.wait(30)
        time.sleep(0.05)
    return shown.getvalue()


def test_all_stages_share_a_line_and_only_news_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"neighbors": Line(n * 1_000, 4_000), "target:a": Line(4, 4)} for n in range(5)]
    lines = printed(monkeypatch, steps, every=0.0).splitlines()
    assert lines[0] == "neighbors 0 of 4,000, target:a 4 of 4"
    assert [line.partition(";")[0] for line in lines[1:]] == [
        f"neighbors {n * 1_000:,} of 4,000" for n in range(1, 5)
    ]


def test_between_lines_a_minute_goes_by_but_the_last_count_is_always_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = printed(monkeypatch, [{"a": Line(n, 9)} for n in range(10)], every=3_600).splitlines()
    assert lines == ["a 0 of 9", "a 9 of 9"]


def test_a_failure_is_told_at_once_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"target:a": Line(1, 9, why_failed="no weights [here]")}
    lines = printed(monkeypatch, [failed] * 5, every=3_600).splitlines()
    assert lines.count("target:a failed: no weights [here]") == 1


def test_time_left_is_that_of_the_slowest_stage() -> None:
    lines = {"slow": Line(1, 101), "fast": Line(90, 100)}
    assert board._all_in_one(lines, {"slow": 10.0, "fast": 10.0}).endswith("; about 17 min left")


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    terminal().print("target:three: done")
    assert capsys.readouterr().out == "target:three: done\n"
