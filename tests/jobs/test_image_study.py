"""The study of images, in small: cell by cell, none twice, with a table of those that there are."""

from __future__ import annotations

import json
import shutil

import image_tables
import numpy as np
import pytest
from image_sets import read_images
from PIL import Image
from scripts import load_script

study = load_script("tools/image_study.py")


@pytest.fixture
def small(monkeypatch, tmp_path):
    sizes = {"PARTS": {"members": 8, "non_members": 12, "population": 20}, "STEPS": 4,
             "POINTS": (2, 4), "BASE_STEPS": 3, "REFERENCE_STEPS": 3, "GENERATED": 8, "FPR": 0.1,
             "OF_BASE": 40, "SIDE": 8, "CHANNELS": (8,), "STRENGTHS": (0.8,),
             "TRAINING": {"batch_size": 4, "warmup": 1}}  # fmt: skip
    for name, value in sizes.items():
        monkeypatch.setattr(study, name, value)
    draws = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number in range(40):
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{number}.png")
    sets = {"digits": "digits", "noise": str(tmp_path / "noise")}
    return study.Study(tmp_path / "out", tmp_path / "cells", sets, [0, 1])


@pytest.mark.training
def test_a_cell_is_run_once_and_stands_in_the_tables(small, monkeypatch):
    cell = study.Cell("digits", 0, "lora")
    study.run_cell(small, cell)
    file = small.results / "digits-0-lora.json"
    found = json.loads(file.read_text())
    assert found["in_one_go"]
    ran = found["attacks"]
    for attack in ("loss", "peak_error", "pian", "pfami", "secmi", "pia", "sima", "loss_20"):
        assert {attack, f"{attack}@base", f"{attack}@self_generated"} <= {*ran}
    assert all({*points} == {"2", "4"} for points in ran.values())
    assert {*found["losses"]} == {"2", "4"}
    written = file.stat().st_mtime_ns
    shutil.rmtree(small.out)  # the file is all that a finished cell needs
    study.run_cell(small, cell)
    assert file.stat().st_mtime_ns == written
    page = image_tables.with_tables(
        f"before {image_tables.START} {image_tables.END} after",
        image_tables.read_cells(small.results),
    )
    assert page.startswith("before ")
    assert page.endswith(" after")
    assert "| attack | passes | seed 0, 2 steps | seed 0, 4 steps |" in page
    assert "| `loss` | 5 | " in page
    assert "| `loss@base` | 5 + 5 | " in page
    monkeypatch.setattr(study, "STEPS", 5)
    with pytest.raises(SystemExit, match=r"digits-0-lora\.json: .* other steps than"):
        study.run_cell(small, cell)


@pytest.mark.training
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
    found = json.loads((small.results / f"{cell.name}.json").read_text())
    assert not found["in_one_go"]
    assert weights
    assert {file: file.stat().st_mtime_ns for file in weights} == before


def test_cells_come_seed_by_seed(small):
    names = [cell.name for cell in small.cells]
    assert names[:5] == [*(f"digits-0-{kind}" for kind in study.KINDS), "noise-0-ddpm"]
    assert len(names) == 2 * 2 * len(study.KINDS)


@pytest.mark.training
def test_a_flow_that_saw_the_middle_more_often_is_asked_along_the_path_alone(small):
    cell = study.Cell("digits", 0, "flow_middle")
    study.run_cell(small, cell)
    facts = json.loads((small.out / cell.name / "target" / "facts.json").read_text())
    found = json.loads((small.results / f"{cell.name}.json").read_text())
    along = {f"loss_{n}" for n in (5, 10, 20, 35, 60)}
    assert {*found["attacks"]} == {"loss", "peak_error", *along}
    assert facts["prediction_type"] == "flow"
    page = "\n".join(image_tables.tables(image_tables.read_cells(small.results)))
    assert "| set | model | steps | 5 % | 10 % | 20 % | 35 % | 60 % |" in page
    assert page.count("| digits | flow_middle |") == 2, "in the table along the path alone"


def test_drawings_stand_on_white_and_nearly_the_same_is_there_once(tmp_path):
    drawn = np.zeros((20, 10, 4), np.uint8)
    drawn[5:15, :, 0] = 255
    drawn[5:15, :, 3] = 255
    Image.fromarray(drawn).save(tmp_path / "a.png")
    drawn[5, 0, 0] = 254
    Image.fromarray(drawn).save(tmp_path / "b.png")
    found = read_images(str(tmp_path), 8)
    assert found.shape == (1, 3, 8, 8)
    assert found[0, :, 0, 0].tolist() == [255, 255, 255]
    assert found[0, :, 4, 4].tolist() == [255, 0, 0]
