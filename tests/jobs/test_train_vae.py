"""The job that trains an autoencoder: what it leaves is what an audit reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scripts import load_script

from raymia.models.image_source import resolve_image_model
from raymia.records.images import read_image_records
from raymia.spec import ImageRecordsSpec, ModelSpec
from raymia.util.hashing import digest


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("jobs/train_vae.py")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "30.png").write_bytes(b"no image")
    return {
        "data": str(folder), "out": str(tmp_path / "out"), "shape": "1 8 8", "objective": "vae",
        "members": "16", "held-out": "10", "latent": "4", "channels": "4 8", "epochs": "5",
        "checkpoint-every": "2",
    }  # fmt: skip


def run(script: ModuleType, arguments: dict[str, str]) -> int:
    flags = [word for key, value in arguments.items() for word in (f"--{key}", *value.split())]
    code: int = script.main(flags)
    return code


def manifest(arguments: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(arguments["out"]) / "manifest.json").read_text())
    return found


@pytest.mark.training
@pytest.mark.parametrize("objective", ["vae", "rhvae"])
def test_what_it_writes_is_what_an_audit_reads(
    script: ModuleType, arguments: dict[str, str], objective: str
) -> None:
    assert run(script, arguments | {"objective": objective}) == 0
    out, written = Path(arguments["out"]), manifest(arguments)
    assert [c["epoch"] for c in written["checkpoints"]] == [2, 4, 5]
    assert written["images_set_aside"] == 1
    fingerprints = set()
    for checkpoint in written["checkpoints"]:
        folder = out / checkpoint["folder"]
        found = resolve_image_model(ModelSpec(model=str(folder)), "target", on_gpu=False)
        assert (found.family, found.shape) == ("autoencoder", (1, 8, 8))
        assert checkpoint["train_loss"] > 0
        assert checkpoint["held_out_loss"] > 0
        fingerprints.add(found.fingerprint)
    assert len(fingerprints) == 3
    records = read_image_records(
        ImageRecordsSpec(
            kind="image",
            members=[str(out / "members.parquet")],
            non_members=[str(out / "non_members.parquet")],
        ),
        (1, 8, 8),
    )
    assert (records.count(True), records.count(False)) == (16, 10)
    assert not records.set_aside
    assert written["members_hash"] == digest(sorted(records.ids[:16]))


@pytest.mark.training
def test_same_command_again_changes_nothing_and_another_seed_is_refused(
    script: ModuleType, arguments: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, arguments) == 0
    files = {p: p.read_bytes() for p in Path(arguments["out"]).rglob("*") if p.is_file()}
    assert run(script, arguments) == 0
    assert {p: p.read_bytes() for p in files} == files
    assert run(script, arguments | {"seed": "1"}) == 2
    assert "holds other images than these settings draw" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in files} == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "/nowhere"}, "/nowhere"),
        ({"members": "25"}, "25 members and 10 held-out images are wanted, and there are 30"),
        ({"beta": "2"}, "beta is of beta_vae"),
        ({"batch-size": "1"}, "batch_size: Input should be greater than or equal to 2"),
        ({"shape": "1 9 9"}, "not one usable"),
        ({"shape": "1 2 2", "fit": "stretch"}, "2 stages halve an image of 2 x 2 pixels"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    script: ModuleType,
    arguments: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    assert run(script, arguments | change) == 2
    assert message in capsys.readouterr().err
    assert not Path(arguments["out"]).exists()
