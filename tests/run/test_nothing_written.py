"""A target that writes nothing has no self-prompt reference, and what needs none goes on."""

import pytest
from rich.console import Console
from small_audit import write_small_audit
from tiny_models import BASE

from raymia.prepare import self_prompt
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec
from raymia.util.errors import InputError, NothingWrittenError

WHY = "self-prompting: the target wrote 0 usable texts out of 16"


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    def nothing(*_):
        raise NothingWrittenError(WHY)

    monkeypatch.setattr(self_prompt, "write_texts", nothing)


def audit(folder, attacks):
    file = write_small_audit(
        folder, None, targets=[{"name": "t", "model": str(BASE)}], self_prompt=True,
        neighbors=None, attacks=attacks,
    )  # fmt: skip
    return run_audit(load_spec(file), Console(quiet=True))


def test_attacks_without_the_reference_go_on_and_the_others_are_named(tmp_path):
    result = audit(tmp_path, ["loss", "difference@self_prompt", "ratio@base"])
    assert result.complete
    assert {one.attack for one in result.metrics} == {"loss", "ratio@base"}
    line = f"target t: left out difference@self_prompt: {WHY}"
    assert line in result.problems
    lost = [(one.target, one.attack, one.reason) for one in result.not_run]
    assert lost == [("t", "difference@self_prompt", WHY)]
    assert [card.name for card in result.references] == ["base"]


def test_an_audit_of_nothing_else_says_why(tmp_path):
    with pytest.raises(InputError, match=WHY):
        audit(tmp_path, ["difference@self_prompt"])
