"""An attack that gives no scores is named, with what came instead and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_audit import two_answered

from raymia.attacks import registry
from raymia.scoring.attack_scores import AttackFailedError, attack_scores
from raymia.scoring.parts import ScoreParts
from raymia.scoring.reduction import reduce_audit
from raymia.scoring.workers import Here
from raymia.sweep.evaluate import Place, Setting, Split, evaluate
from raymia.util import plugins

ATTACK = """
from raymia.attacks.base import Attack, register

@register
class Mine(Attack):
    name, title, source, formula = "mine", "t", "s", "f"

    def score(self, evidence):
        return {gives}
"""
ADVICE = "Fix it, or take it out of `attacks`. The answers of models are stored: the next run "
SCORES = "expected one score for each of 3 records, each a number and NaN for none, but got "
FAILS = [
    ("not_there", "it ended with NameError: name 'not_there' is not defined (line 10). "),
    ("1 / 0", "it ended with ZeroDivisionError: division by zero (line 10). "),
    ("evidence.nothing", "it ended with AttributeError: 'list' object has no attribute 'nothing'"),
    ("[[1], [2, 3], []]", "it ended with ValueError: "),
    ("['a', 'b', 'c']", SCORES + "'a', which is a str. "),
    ("['0.5', '1.5', '2.5']", SCORES + "'0.5', which is a str. "),
    ("[0.5, None, 1.5]", SCORES + "None, which is a NoneType. "),
    ("None", SCORES + "None, which is a NoneType. "),
    ("[1j, 2.0, 3.0]", SCORES + "complex128. "),
    ("[1.0, 2.0]", SCORES + "an array of shape (2,). "),
    ("1.0", SCORES + "an array of shape (). "),
    ("[[1.0], [2.0], [3.0]]", SCORES + "an array of shape (3, 1). "),
]


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """An attack of a plugin whose score gives something."""
    loaded = []

    def make(gives: str) -> Any:
        file = tmp_path / "own.py"
        file.write_text("\n" + ATTACK.format(gives=gives))
        loaded.extend(plugins.load_plugins([str(file)]))
        return registry()["mine"]()

    yield make
    for plugin in loaded:
        plugins._forget(plugin.module)


@pytest.mark.parametrize(("gives", "says"), FAILS)
def test_it_is_named_with_its_plugin_and_what_came(
    mine: Callable[[str], Any], tmp_path: Path, gives: str, says: str
) -> None:
    with pytest.raises(AttackFailedError) as failed:
        attack_scores(mine(gives), [], 3, label="mine@base", target="step-3")
    said = str(failed.value)
    assert said.startswith(f"attack mine@base of {tmp_path / 'own.py'} on target step-3: {says}")
    assert ADVICE in said


@pytest.mark.parametrize("gives", ["[1, 2, 3]", "[True, False, True]", "[float('nan'), 1, 2.5]"])
def test_numbers_are_scores(mine: Callable[[str], Any], gives: str) -> None:
    scores = attack_scores(mine(gives), [], 3, label="mine", target="step-3")
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, np.array(eval(gives), np.float64))


def test_an_audit_stops_with_the_attack_s_name(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    zlib = next(named.attack for named in inputs.attacks if named.label == "zlib")

    def broken(*_: object) -> None:
        raise KeyError("nothing of this name")

    monkeypatch.setattr(type(zlib), "score", broken)
    with pytest.raises(AttackFailedError, match=r"attack zlib on target one: it ended with KeyErr"):
        reduce_audit(inputs, store, plans, ScoreParts(str(tmp_path), "s"), Here())


def test_a_sweep_goes_on_after_a_setting_that_suits_no_data_and_stops_for_a_fault(
    mine: Callable[[str], Any],
) -> None:
    halves = Split(np.array([True, False, True]), np.ones(3, bool), np.zeros(3, bool))
    setting = Setting(Place("step-3", 0, "mine", "mine", None, "e"), {})
    unfit = mine("int('what no number is')")
    assert evaluate(setting, unfit, [], halves, [0.1]).problem == (
        "invalid literal for int() with base 10: 'what no number is'"
    )
    for fault in ("not_there", "['a', 'b', 'c']"):
        with pytest.raises(AttackFailedError, match="attack mine of "):
            evaluate(setting, mine(fault), [], halves, [0.1])
