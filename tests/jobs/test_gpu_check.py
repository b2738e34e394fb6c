"""One command checks raymia on a GPU; here on a CPU, with small models and without Ray."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
import torch
from gpu_checks.parts import Journal, Part, Setting
from scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("jobs/gpu_check.py")


@pytest.mark.long
def test_every_part_runs_and_is_written_down(script, tmp_path):
    assert script.main(["--tiny", "--no-ray", "--out", str(tmp_path)]) == 0
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert [part["state"] for part in parts] == ["done"] * len(parts)
    found = {part["name"]: part["found"] for part in parts}
    assert {"Llama 3 8B, bf16", "Llama 3 8B, nf4", "Llama 3 8B, int8", "Gemma 2 2B, bf16"} <= {
        name.removeprefix("rates: ") for name in found
    }
    assert found["rates: GPT-2, bf16"]["raymia: tokens/s"] > 0
    assert "'cap'" in found["answers: Gemma 2 2B"]["after the output layer"]
    assert max(v for k, v in found["kernels"].items() if "largest error" in k) < 1e-4
    assert found["answers: Qwen3 8B"]["log_prob, from float32: mean"] < 0.05
    assert found["three pools on fractions of the GPU"]["tokens/s of the target"] > 0
    page = (tmp_path / "gpu_check.md").read_text()
    assert all(f"## {name}: done" in page for name in found)


def test_without_a_gpu_it_says_so(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main(["--out", str(tmp_path)]) == 2
    assert "--tiny" in capsys.readouterr().err


def test_a_part_that_fails_is_written_down_and_the_next_goes_on(tmp_path):
    seen = []

    def broken(_: Setting) -> dict[str, object]:
        raise RuntimeError("no such kernel")

    def last(_: Setting) -> dict[str, object]:
        seen.append(json.loads((tmp_path / "gpu_check.json").read_text())["parts"][-1])
        return {"rate": 2.0}

    journal = Journal(tmp_path, {"card": "none"}, minutes=1.0)
    setting = Setting(torch.device("cpu"), False, False, tmp_path)
    journal.take([Part("a", 0.1, broken), Part("long", 5, last), Part("b", 0.1, last)], setting)
    assert seen[0]["state"] == "left out", "what went before was not written when b began"
    assert [part["state"] for part in journal.parts] == ["failed", "left out", "done"]
    assert journal.failed == ["a"]
    page = (tmp_path / "gpu_check.md").read_text()
    assert "## a: failed" in page
    assert "RuntimeError: no such kernel" in page
