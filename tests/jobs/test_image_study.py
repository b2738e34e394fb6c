"""The study of images, in small: cell by cell, none twice, with a table of those that there are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scripts import load_script

study = load_script("tools/image_study.py")


@pytest.fixture
def small(monkeypatch, tmp_path):
    sizes = {"SIZES": {"members": 8, "non_members": 12}, "STEPS": 4, "POINTS": 2, "BASE_STEPS": 3,
             "REFERENCE_STEPS": 3, "GENERATED": 8, "FPR": 0.1, "OF_BASE": 40, "CHANNELS": (8,),
             "TRAINING": {"batch_size": 4, "warmup": 1}}  # fmt: skip
    for name, value in sizes.items():
        monkeypatch.setattr(study, name, value)
    draws = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number in range(24):
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{number}.png")
    return study.Study(
        tmp_path / "out", {"digits": "digits", "noise": str(tmp_path / "noise")}, [0, 1], 8
    )


def test_a_cell_is_run_once_and_stands_in_the_table(small):
    cell = study.Cell("digits", 0, "lora")
    study.run_cell(small, cell)
    file = small.out / cell.name / "result.json"
    found = json.loads(file.read_text())
    assert found["in_one_go"]
    assert {row["target"] for row in found["metrics"]} == {"step-2", "step-4"}
    ran = {row["attack"] for row in found["metrics"]}
    for attack in ("loss", "peak_error", "pfami", "secmi", "pia", "sima", "loss_20"):
        assert {attack, f"{attack}@base", f"{attack}@self_generated"} <= ran
    written = file.stat().st_mtime_ns
    study.run_cell(small, cell)
    assert file.stat().st_mtime_ns == written
    study.write_tables(small)
    page = (small.out / "tables.md").read_text()
    assert "### digits, lora" in page
    assert "| attack | digits-0-lora |" in page
    assert "noise" not in page


def test_a_cell_that_was_killed_goes_on(small, monkeypatch):
    cell = study.Cell("noise", 1, "ddpm")

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(study, "run_audit", kill)
        with pytest.raises(KeyboardInterrupt):
            study.run_cell(small, cell)
    weights = [*(small.out / cell.name).rglob("*.safetensors")]
    before = {file: file.stat().st_mtime_ns for file in weights}
    study.run_cell(small, cell)
    found = json.loads((small.out / cell.name / "result.json").read_text())
    assert not found["in_one_go"]
    assert weights
    assert {file: file.stat().st_mtime_ns for file in weights} == before


def test_cells_come_seed_by_seed(small):
    names = [cell.name for cell in small.cells]
    assert names[:4] == ["digits-0-ddpm", "digits-0-flow", "digits-0-lora", "noise-0-ddpm"]
    assert len(names) == 2 * 2 * 3
