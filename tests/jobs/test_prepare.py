"""What jobs/prepare.py makes: the references of an audit, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script
from small_audit import Models, console, passages, write_small_audit

from raymia.cli.main import EXIT_WRONG_INPUT
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec


def prepare(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    script = load_script("jobs/prepare.py")
    code = script.main([str(file)])
    printed = capsys.readouterr().out
    return code, json.loads(printed.splitlines()[-1]), printed


def test_references_are_made_once_and_nothing_is_asked(
    tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = passages(28)
    file = write_small_audit(
        tmp_path, models, members=texts[:3], non_members=texts[24:27], neighbors=None,
        self_prompt=True, targets=[{"name": "tuned", "model": str(models.target),
                                    "dtype": "float32"}],
    )  # fmt: skip
    code, sums, printed = prepare(file, capsys)
    assert (code, sums["ready"], sums["missing"], sums["problems"]) == (0, 1, 0, []), printed
    assert len(list(tmp_path.glob("store/prepared/*/model.safetensors"))) == 1
    assert not list(tmp_path.glob("store/evidence/text.tokens/*/*.parquet"))
    code, sums, printed = prepare(file, capsys)
    assert (code, sums["ready"]) == (0, 1)
    assert "fine-tune" not in printed
    result = run_audit(load_spec(file), console())
    assert result.complete
    assert "ratio@self_prompt" in {metric.attack for metric in result.metrics}


def test_a_wrong_audit_file_is_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, sums, _ = prepare(tmp_path / "none.yaml", capsys)
    assert code == EXIT_WRONG_INPUT
    assert "no such audit file" in sums["problems"][0]
