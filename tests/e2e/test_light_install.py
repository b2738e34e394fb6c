"""Texts are audited where nothing but what texts take is installed; what is missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from command_line import Done, in_turn
from packaging.requirements import Requirement
from small_audit import BASE, Models, write_small_audit
from small_image_audit import write_image_audit
from small_image_models import save_pipeline
from without_packages import ROOT, raymia_without, without

pytestmark = pytest.mark.long


def listed(name: str) -> set[str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return {Requirement(line).name for line in lines if not line.startswith("#")}


NOT_FOR_TEXTS = {"pil", "plotly"} | (listed("all.txt") - listed("text.txt"))
"""What a light install of texts leaves out, and plotly, without which there are no charts."""


def test_the_lists_leave_out_what_the_other_kind_of_record_takes() -> None:
    assert {"kornia", "diffusers", "pillow", "bitsandbytes", "s3fs"} < NOT_FOR_TEXTS
    assert {"torch", "ray", "scikit-learn", "transformers"} < listed("text.txt")
    assert {"torch", "ray", "scikit-learn", "diffusers"} < listed("images.txt")


def test_texts_are_planned_audited_and_reported(tmp_path: Path, models: Models) -> None:
    audit = write_small_audit(tmp_path, models, resources={"engine": "local"})
    lighter = without(NOT_FOR_TEXTS, tmp_path)
    for done in in_turn(["plan", audit], ["audit", audit], folder=tmp_path, environment=lighter):
        assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    result = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert result["complete"]
    assert {"spv@base", "fast_detect", "learned_combination"} <= {
        entry["attack"] for entry in result["metrics"]
    }
    first = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert raymia_without(NOT_FOR_TEXTS, tmp_path, "report", run).returncode == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page == first
    assert "plotly was not installed where it was made" in page
    assert 'class="plot' not in page
    assert 'id="charts"' not in page


def audit_of_texts(folder: Path) -> Path:
    folder.mkdir()
    gguf = shutil.copytree(BASE, folder / "gguf")
    (gguf / "small.gguf").touch()
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    shutil.copy(BASE / "model.safetensors", adapter / "adapter_model.safetensors")
    targets = [
        {"name": "plain", "model": str(BASE)},
        {"name": "small", "model": str(BASE), "quantization": "nf4"},
        {"name": "tuned", "model": str(BASE), "adapter": str(adapter)},
        {"name": "file", "model": str(gguf), "gguf_file": "small.gguf"},
    ]
    audit = write_small_audit(
        folder, None, self_prompt=True, targets=targets, neighbors={"kind": "substitute"},
    )  # fmt: skip
    content = yaml.safe_load(audit.read_text(encoding="utf-8"))
    content["references"]["self_prompt"]["fine_tune"]["lora"] = {}
    audit.write_text(yaml.safe_dump(content), encoding="utf-8")
    return audit


def audit_of_images(folder: Path) -> Path:
    save_pipeline("ddpm", folder / "ddpm")
    return write_image_audit(folder, folder / "ddpm")


def sweep_by_optuna(folder: Path) -> Path:
    sweep = {"search": "optuna", "attacks": {"min_k": {"share": {"grid": [0.1, 0.2]}}}}
    return write_small_audit(
        folder, None, targets=[{"name": "plain", "model": str(BASE)}], neighbors=None, sweep=sweep
    )


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What is said to be not installed, of three audits where much is not."""
    folder = tmp_path_factory.mktemp("lacking")
    missing = {"peft", "rapidfuzz", "bitsandbytes", "gguf", "pil", "pillow", "kornia", "diffusers",
               "optuna"}  # fmt: skip
    commands = {
        "texts": ["plan", audit_of_texts(folder / "texts")],
        "images": ["plan", audit_of_images(folder / "images")],
        "optuna": ["sweep", sweep_by_optuna(folder / "optuna")],
    }
    done = in_turn(*commands.values(), folder=folder, environment=without(missing, folder))
    return {name: sentences(one) for name, one in zip(commands, done, strict=True)}


def sentences(done: Done) -> list[str]:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line.strip() for line in done.stderr.splitlines() if "not installed here" in line]
    assert all("; install it with `pip install '" in line for line in lines)
    return [line.partition("; install")[0] for line in lines]


def test_what_an_audit_of_texts_lacks_is_said_at_once(refused: dict[str, list[str]]) -> None:
    assert refused["texts"] == [
        "targets[1].model: bitsandbytes is not installed here, and quantized models need it",
        "targets[2].adapter: peft is not installed here, and adapters need it",
        "targets[3].model: gguf is not installed here, and GGUF files need it",
        "references.self_prompt.fine_tune.lora: peft is not installed here, and adapters need it",
        "neighbors: rapidfuzz is not installed here, and measures of neighbors need it",
    ]


def test_what_an_audit_of_images_lacks_is_said_at_once(refused: dict[str, list[str]]) -> None:
    assert refused["images"] == [
        "pillow is not installed here, and images need it",
        "neighbors: kornia is not installed here, and neighbors of images need it",
        "targets[0].model: diffusers is not installed here, and diffusion models need it",
    ]


def test_a_search_by_optuna_takes_optuna(refused: dict[str, list[str]]) -> None:
    (said,) = refused["optuna"]
    assert said == "sweep.search: optuna is not installed here, and searches by optuna need it"
