"""The script that trains a LoRA: what it writes, that an audit reads it, and what it refuses."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from rich.console import Console
from scripts import interrupted, load_script
from small_image_models import save_model

from raymia.cli.train import print_training_plan, train
from raymia.modalities.resolve import resolve_inputs
from raymia.models.denoisers.lora_files import BY_DIFFUSERS
from raymia.prepare import train_lora
from raymia.prepare.image_split import png
from raymia.spec.file import load_spec
from raymia.util.draws import generator
from raymia.util.errors import InputError

QUICK = ["--steps", "4", "--warmup", "1", "--batch-size", "2", "--rank", "2", "--alpha", "4"]
CAPTIONED = ["--caption-column", "text"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    save_model("stable", folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twelve images of six groups, one of them of another size."""
    draws = generator(0, "images")
    images = [png(draws.integers(0, 256, (3, 16, 16), dtype=np.uint8)) for _ in range(11)]
    images.append(png(draws.integers(0, 256, (3, 20, 12), dtype=np.uint8)))
    columns = {
        "image": images,
        "text": [["a cat", "a dog", "a mat"][n % 3] for n in range(12)],
        "author": [f"author {n // 2}" for n in range(12)],
    }
    file = tmp_path_factory.mktemp("data") / "images.parquet"
    pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture(scope="module")
def script():
    return load_script("jobs/train_lora.py")


def run(script, base, table, out, *more):
    return script.main(
        ["--base", str(base), "--data", str(table), "--out", str(out), "--members", "4",
         "--held-out", "3", *QUICK, *more]
    )  # fmt: skip


def rows_of(folder):
    return [pq.read_table(folder / f"{n}.parquet").to_pylist() for n in ("members", "non_members")]


@pytest.mark.training
def test_an_audit_reads_the_split_and_the_checkpoints(script, base, table, tmp_path, capsys):
    more = ["--group-column", "author", "--checkpoint-every", "3"]
    assert run(script, base, table, tmp_path, *CAPTIONED, *more) == 0
    assert "checkpoint-4: training loss" in capsys.readouterr().out
    members, others = rows_of(tmp_path)
    assert (len(members), len(others)) == (4, 2)  # of whole groups: 4 and 3 are wanted
    groups = [{row["group"] for row in rows} for rows in (members, others)]
    assert not groups[0] & groups[1]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["members"], manifest["held_out"]) == (4, 2)
    assert manifest["images_set_aside"] == 1
    assert manifest["prediction_type"] == "epsilon"
    assert manifest["method"]["r"] == 2
    assert "to_out.0" in manifest["method"]["target_modules"]
    assert all({"train_loss", "held_out_loss"} <= one.keys() for one in manifest["checkpoints"])
    inputs = resolve_inputs(load_spec(tmp_path / "manifest.json"))
    assert [*inputs.targets] == ["checkpoint-3", "checkpoint-4"]
    assert all(len(target.adapters) == 1 for target in inputs.targets.values())
    assert inputs.references["base"].path == str(base)
    assert inputs.records.table.num_rows == 6
    assert inputs.spec.records.caption_column == "caption"
    assert inputs.spec.records.group_column == "group"
    left = ["`crop`", "`clip_skip`", "`zero_terminal_snr`"]
    assert [key in line for key, line in zip(left, inputs.assumed, strict=True)] == [True] * 3
    assert inputs.spec.training.prediction == "epsilon"
    audit = {"from_training": "manifest.json", "attacks": ["loss@base"], "references": {}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(audit))
    assert [a.label for a in resolve_inputs(load_spec(tmp_path / "audit.yaml")).attacks] == [
        "loss@base"
    ]


@pytest.mark.training
def test_interrupted_run_goes_on_with_the_same_command(script, base, table, tmp_path, monkeypatch):
    more = [*CAPTIONED, "--checkpoint-every", "2"]
    assert run(script, base, table, tmp_path / "whole", *more) == 0
    with monkeypatch.context() as patch:
        patch.setattr(train_lora, "train_denoiser", interrupted(train_lora.train_denoiser, 3))
        with pytest.raises(KeyboardInterrupt):
            run(script, base, table, tmp_path / "killed", *more)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    assert run(script, base, table, tmp_path / "killed", *more) == 0
    folders = [tmp_path / name for name in ("whole", "killed")]
    whole, killed = (json.loads((folder / "manifest.json").read_text()) for folder in folders)
    once = {"seconds": 0, "seal": ""}
    assert {**whole, **once} == {**killed, **once}
    for step in (2, 4):
        files = [folder / f"checkpoint-{step}" / BY_DIFFUSERS for folder in folders]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.training
def test_a_private_lora_claims_what_each_checkpoint_spent_and_a_dora_is_refused(
    script, base, table, tmp_path, capsys
):
    pytest.importorskip("opacus")
    private = [*CAPTIONED, "--dp-epsilon", "4", "--dp-delta", "0.01", "--dp-accountant", "rdp"]
    assert run(script, base, table, tmp_path / "dora", *private, "--dora") == 2
    assert "gradients of single images in a DoRA; take `lora`" in capsys.readouterr().err
    assert not (tmp_path / "dora").exists()
    out = tmp_path / "lora"
    assert run(script, base, table, out, *private, "--checkpoint-every", "2") == 0
    manifest = json.loads((out / "manifest.json").read_text())
    spent = [one["privacy"]["epsilon"] for one in manifest["checkpoints"]]
    assert 0 < spent[0] < spent[1] <= manifest["privacy"]["epsilon"] == 4
    inputs = resolve_inputs(load_spec(out / "manifest.json"))
    assert [target.claim.epsilon for target in inputs.spec.targets] == spent


@pytest.mark.training
def test_epochs_are_of_the_members_and_the_prompt_is_each_images_caption(
    script, base, table, tmp_path
):
    prompt = "a cat on a mat"
    assert run(script, base, table, tmp_path, "--instance-prompt", prompt, "--epochs", "1.5") == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["training"]["steps"] == 3
    assert manifest["captions"]["instance_prompt"] == prompt
    assert {row["caption"] for rows in rows_of(tmp_path) for row in rows} == {prompt}


@pytest.mark.training
def test_raymia_train_does_the_same_by_a_file_which_plan_reads_without_writing(
    script, base, table, tmp_path
):
    assert run(script, base, table, tmp_path / "script", *CAPTIONED) == 0
    file = tmp_path / "training.yaml"
    content = {
        "name": "target",
        "output": "file",
        "base": str(base),
        "records": {"kind": "image", "files": str(table), "caption_column": "text"},
        "split": {"members": 4, "held_out": 3},
        "method": {"kind": "lora", "r": 2, "lora_alpha": 4},
        "training": {"steps": 4, "warmup": 1, "batch_size": 2},
        "costs": {"per_hour": {"CPU": 1.0}},
    }
    file.write_text(yaml.safe_dump(content))
    said = Console(file=io.StringIO(), width=200)
    print_training_plan(file, said)
    shown = said.file.getvalue()
    assert "4 members, 3 held out, 1 that could not be used" in shown
    assert re.search(r"memory .*about 0\.\d+ GiB", shown)
    for row in ("time", "machine hours", "cost"):
        assert re.search(rf" {row} .*(at least|no price)", shown), row
    assert not (tmp_path / "file").exists()
    manifest = train(file)
    assert f"{manifest['parameters']:,}" in shown
    by_script = json.loads((tmp_path / "script" / "manifest.json").read_text())
    once = {"seconds": 0, "seal": ""}
    assert {**manifest, **once} == {**by_script, **once}
    file.write_text(yaml.safe_dump({**content, "epochs": 2}))
    with pytest.raises(InputError, match=r"give either `epochs` or `training.steps`"):
        train(file)


@pytest.mark.parametrize("length", [{"training": {"steps": 100}}, {"epochs": 1}])
def test_the_plan_refuses_a_warm_up_that_would_not_end(base, table, tmp_path, length):
    file = tmp_path / "training.yaml"
    content = {
        "name": "target",
        "output": "out",
        "base": str(base),
        "records": {"kind": "image", "files": str(table), "caption_column": "text"},
        "split": {"members": 4, "held_out": 3},
        "method": {"kind": "lora", "r": 2},
        **length,
    }
    content["training"] = {"batch_size": 2, **content.get("training", {})}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"training\.warmup: the warm-up of 100 steps should be"):
        print_training_plan(file, Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for number, size in enumerate([(16, 16), (32, 32), (12, 40), (9, 9)]):
        Image.new("RGB", size, (number * 20, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([*CAPTIONED, "--batch-size", "5"], "a step takes 5 images, and 4 are trained on"),
        ([*CAPTIONED, "--target-modules", "to_qq"], "no 'to_qq'; near it are to_q"),
        ([*CAPTIONED, "--instance-prompt", "x"], "an image is trained on with one caption"),
        ([], "is conditioned on captions; name their column as `caption_column`"),
        ([*CAPTIONED, "--rank", "0"], "r: Input should be greater than or equal to 1"),
        ([*CAPTIONED, "--members", "60"], "60 members and 3 held-out images are wanted"),
        (
            [*CAPTIONED, "--group-column", "author", "--members", "10", "--held-out", "1"],
            "11 distinct images in 6 groups",
        ),
        pytest.param(
            [*CAPTIONED, "--learning-rate", "1e9", "--steps", "9"],
            "has diverged",
            marks=pytest.mark.training,
        ),
    ],
)
def test_wrong_input_is_said_in_one_line(script, base, table, tmp_path, capsys, more, message):
    assert run(script, base, table, tmp_path, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]


def test_a_base_without_a_text_encoder_is_told_no_caption(script, table, tmp_path, capsys):
    save_model("ddpm", tmp_path / "ddpm")
    assert run(script, tmp_path / "ddpm", table, tmp_path / "out", *CAPTIONED) == 2
    assert "has no text encoder" in capsys.readouterr().err


@pytest.mark.training
def test_small_images_are_named_unless_they_may_be_scaled_up(script, base, small, tmp_path, capsys):
    fitted = ["--fit", "crop", "--instance-prompt", "a cat", "--members", "2", "--held-out", "2"]
    assert run(script, base, small, tmp_path, *fitted) == 2
    said = capsys.readouterr().err
    assert "2 of 4 images are smaller than the 16 x 16 pixels" in said
    assert "3.png 9 x 9" in said
    assert run(script, base, small, tmp_path, *fitted, "--upscale") == 0
