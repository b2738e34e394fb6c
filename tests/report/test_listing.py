"""Whatever is printed, no name is broken where the terminal has room for it."""

from __future__ import annotations

import io

import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores
from rich.console import Console
from rich.text import Text

from raymia import load_run
from raymia.report.comparison_table import print_comparison
from raymia.report.files import write_run
from raymia.report.listing import Listing
from raymia.report.table import gate_table, metrics_table
from raymia.results.compare import compare_runs
from raymia.results.gate import decide_again

ATTACK = "learned_combination(folds=10)@self_prompt_with_greetings"
TARGET = "meta-llama-3.1-8b-instruct-checkpoint-3000"


def long_names(text):
    return {"ez@self_prompt": ATTACK, "tuned": TARGET}.get(text, text)


@pytest.fixture
def scores():
    return made_up_scores(long_names)


def printed(show, width):
    console = Console(width=width, file=io.StringIO(), emoji=False)
    show(console)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_of_attacks_keeps_names_whole(scores, width):
    result = made_up_result(scores)
    lines = printed(lambda console: console.print(metrics_table(result, width)), width)
    assert sum(line.startswith(ATTACK) for line in lines) >= 2
    assert any(line.startswith(TARGET) for line in lines)
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_gate_keeps_names_whole(scores, width):
    result = made_up_result(scores)
    gate = decide_again(result, [f"{TARGET}:{ATTACK}.auc > 0.5"])
    gated = result.model_copy(update={"gate": gate})
    lines = printed(lambda console: console.print(gate_table(gated)), width)
    assert any(TARGET in line for line in lines)
    assert any(ATTACK in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_comparison_keeps_names_whole(scores, width, tmp_path):
    for name in ("a", "b"):
        result = made_up_result(scores, audit_yaml=f"records: {{members: {'folder/' * 20}{name}}}")
        write_run(str(tmp_path / name), result, [scores], made_up_curves(scores))
    comparison = compare_runs(load_run(tmp_path / "a"), load_run(tmp_path / "b"))
    lines = printed(lambda console: print_comparison(comparison, console), width)
    assert any(line.startswith(ATTACK) for line in lines)
    assert any(f"records.members: A has {'folder/' * 20}a, B has" in line for line in lines)
    first = next(n for n, line in enumerate(lines) if line.startswith(ATTACK))
    assert "AUC" in " ".join(lines[first : first + 2])


def test_numbers_stand_below_a_name_that_leaves_no_room_for_them():
    rows = [(Text(name), [Text("0.123"), Text("4")]) for name in ("short", "a name of some length")]
    narrow = printed(lambda console: console.print(Listing(("name", "AUC", "n"), rows)), 20)
    assert narrow[2].split() == ["short", "0.123", "4"]
    below = [line.rstrip() for line in narrow[3:]]
    assert below == ["a name of some", "length", narrow[2].rstrip().replace("short", "     ")]
    wide = printed(lambda console: console.print(Listing(("name", "AUC", "n"), rows)), 40)
    assert wide[3] == "a name of some length 0.123 4"
