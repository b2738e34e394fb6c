"""The script that trains a diffusion target: what it writes, and that it goes on after a kill."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scripts import interrupted, load_script
from small_image_models import save_model

from raymia.models.image_source import resolve_image_model
from raymia.prepare.image_split import png
from raymia.spec import ModelSpec
from raymia.util.draws import generator

QUICK = ["--steps", "6", "--warmup", "1", "--batch-size", "4", "--channels", "8", "8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 14 images of 8 x 8, of which two are one, and one of another size."""
    folder = tmp_path_factory.mktemp("images")
    draws = generator(0, "images")
    for n in range(13):
        pixels = draws.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.png")
    Image.fromarray(pixels).save(folder / "again.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "tall.png")
    return folder


@pytest.fixture(scope="module")
def script():
    return load_script("jobs/train_diffusion.py")


def run(script, images, out, *more):
    return script.main(
        ["--data", str(images), "--out", str(out), "--shape", "1", "8", "8", "--members", "6",
         "--held-out", "5", *QUICK, *more]
    )  # fmt: skip


def pixels_of(file):
    return [row["bytes"] if isinstance(row, dict) else row
            for row in pq.read_table(file)["image"].to_pylist()]  # fmt: skip


@pytest.mark.training
def test_split_checkpoints_and_manifest_are_what_an_audit_names(script, tmp_path, images, capsys):
    assert run(script, images, tmp_path, "--checkpoint-every", "4", "--ema", "0.9", "--flip") == 0
    members, others = (pixels_of(tmp_path / f"{n}.parquet") for n in ("members", "non_members"))
    assert (len(members), len(others)) == (6, 5)
    assert not set(members) & set(others)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [c["folder"] for c in manifest["checkpoints"]] == ["checkpoint-4", "checkpoint-6"]
    assert manifest["members"] == 6
    assert manifest["images_set_aside"] >= 1
    assert manifest["training"]["ema"] == 0.9
    for checkpoint in manifest["checkpoints"]:
        assert checkpoint["train_loss"] > 0
        assert checkpoint["held_out_loss"] > 0
        found = resolve_image_model(
            ModelSpec(model=str(tmp_path / checkpoint["folder"])), "m", on_gpu=False
        )
        assert (found.family, found.shape) == ("denoiser", (1, 8, 8))
    assert "checkpoint-6: training loss" in capsys.readouterr().out


@pytest.mark.training
def test_interrupted_run_goes_on_with_the_same_command(script, tmp_path, images, monkeypatch):
    assert run(script, images, tmp_path / "whole", "--checkpoint-every", "3") == 0
    with monkeypatch.context() as patch:
        patch.setattr(script, "train_denoiser", interrupted(script.train_denoiser, 5))
        with pytest.raises(KeyboardInterrupt):
            run(script, images, tmp_path / "killed", "--checkpoint-every", "3")
    assert run(script, images, tmp_path / "killed", "--checkpoint-every", "3") == 0
    whole, killed = (json.loads((tmp_path / n / "manifest.json").read_text())
                     for n in ("whole", "killed"))  # fmt: skip
    once = {"seconds": 0, "seal": ""}
    assert {**whole, **once} == {**killed, **once}


@pytest.mark.training
def test_pipeline_is_trained_further(script, tmp_path, images):
    assert run(script, images, tmp_path / "first", "--objective", "v") == 0
    first = tmp_path / "first" / "checkpoint-6"
    assert run(script, images, tmp_path / "more", "--pipeline", str(first), "--from-weights") == 0
    manifest = json.loads((tmp_path / "more" / "manifest.json").read_text())
    assert manifest["prediction_type"] == "v_prediction"
    assert manifest["pipeline"] == str(first)


@pytest.mark.training
def test_a_flow_is_trained_as_the_manifest_and_its_checkpoints_say(script, tmp_path, images):
    assert run(script, images, tmp_path, "--objective", "flow") == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["prediction_type"] == "flow"
    (checkpoint,) = manifest["checkpoints"]
    model = ModelSpec(model=str(tmp_path / checkpoint["folder"]))
    assert resolve_image_model(model, "m", on_gpu=False).prediction == "flow"


@pytest.mark.training
def test_a_pipeline_that_is_told_captions_is_trained_on_those_of_the_images(script, tmp_path):
    save_model("stable", tmp_path / "base")
    draws = generator(0, "captioned")
    pictures = [png(draws.integers(0, 256, (3, 16, 16), dtype=np.uint8)) for _ in range(8)]
    pq.write_table(pa.table({"image": pictures, "text": ["a cat"] * 8}), tmp_path / "i.parquet")
    losses = []
    for more in (["--caption-column", "text"], []):
        out = tmp_path / f"out{len(more)}"
        arguments = [
            "--data", str(tmp_path / "i.parquet"), "--out", str(out), "--shape", "3", "16", "16",
            "--members", "4", "--held-out", "3", "--pipeline", str(tmp_path / "base"), *QUICK,
        ]  # fmt: skip
        assert script.main([*arguments, *more]) == 0
        manifest = json.loads((out / "manifest.json").read_text())
        losses.append(manifest["checkpoints"][-1]["held_out_loss"])
    assert losses[0] != losses[1], "without a column, all have the empty caption"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--members", "60"], "60 members and 5 held-out images are wanted"),
        (["--learning-rate", "-1"], "learning_rate: Input should be greater than 0"),
        (["--channels", "8", "8", "8", "8", "8"], "cannot be halved 4 times"),
    ],
)
def test_wrong_input_is_said_in_one_line(script, tmp_path, images, capsys, more, message):
    assert run(script, images, tmp_path, *more) == 2
    assert message in capsys.readouterr().err


def test_weights_without_a_pipeline_are_refused(script, tmp_path, images, capsys):
    with pytest.raises(SystemExit):
        run(script, images, tmp_path, "--from-weights")
    assert "--from-weights needs --pipeline" in capsys.readouterr().err
