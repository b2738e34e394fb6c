"""The chat demo, small: a target tuned on answers, its references made of answers, one report."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_audit import console

from raymia.demo.chat import TEMPLATE, ChatDemoSettings, run_chat_demo
from raymia.models.causal.labels import has_marks
from raymia.spec import FineTuneSpec

SMALL = ChatDemoSettings(
    members=10,
    prompts=8,
    texts=8,
    target=FineTuneSpec(epochs=2, batch_size=5, learning_rate=2e-3),
    reference=FineTuneSpec(epochs=1, batch_size=4),
)


@pytest.mark.training
def test_the_demo_audits_what_it_trained_and_leaves_a_file_to_start_from(tmp_path: Path) -> None:
    result, output = run_chat_demo(tmp_path, console(), SMALL, "local")
    assert result.complete, result.problems
    written = yaml.safe_load((tmp_path / "audit.yaml").read_text(encoding="utf-8"))
    assert written["training"]["loss_on"] == "assistant"
    assert (tmp_path / written["training"]["template"]).read_text(encoding="utf-8") == TEMPLATE
    attacks = {metrics.attack for metrics in result.metrics}
    assert {"loss", "difference@base", "spv@self_prompt", "neighbor"} <= attacks
    assert Path(output, "report.html").is_file()
    # The target has learned its own members' answers.
    assert result.losses[0].members < result.losses[0].non_members


def test_the_demos_template_marks_what_is_answered() -> None:
    assert has_marks(TEMPLATE)
