"""Shadows of image models: the target's own training on random halves, as its manifest says it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from rich.console import Console
from scripts import load_script
from small_training import tiny, write_training

from raymia.cli.train import train_shadows
from raymia.modalities.resolve import resolve_inputs
from raymia.prepare import image_shadows
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.run.audit import run_audit
from raymia.spec import ImageRecordsSpec
from raymia.spec.file import load_spec
from raymia.storage.manifest import MANIFEST_FILE, write_manifest
from raymia.util.draws import generator
from raymia.util.errors import InputError

OF = {
    "train_diffusion": "--shape 1 8 8 --steps 2 --warmup 1 --channels 8 8 --ema 0.9",
    "train_vae": "--shape 1 8 8 --objective vae --latent 3 --channels 4 8 --epochs 2",
    "train_lora": "--steps 2 --warmup 1 --rank 2",
}
NAMES = ["shadow-00", "shadow-01"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder of images, and a pipeline to adapt."""
    made = tmp_path_factory.mktemp("given")
    (made / "images").mkdir()
    draws = generator(1, "i").integers(0, 256, (16, 8, 8), dtype=np.uint8)
    for number, image in enumerate(draws):
        Image.fromarray(image).save(made / "images" / f"{number:02}.png")
    fresh_pipeline(made / "base", (1, 8, 8), channels=(8, 8))
    return made


def made(job, given, out):
    """A target and two shadows of it."""
    base = ["--base", str(given / "base")] if job == "train_lora" else []
    words = f"--data {given / 'images'} --out {out} --members 8 --held-out 8 --batch-size 4"
    assert load_script(f"jobs/{job}.py").main([*words.split(), *OF[job].split(), *base]) == 0
    train_shadows(out / MANIFEST_FILE, count=2)
    return out


@pytest.fixture(scope="module")
def trained_vae(given, tmp_path_factory):
    return made("train_vae", given, tmp_path_factory.mktemp("vae"))


@pytest.mark.training
@pytest.mark.parametrize("job", OF)
def test_an_audit_of_the_target_reads_which_shadow_was_trained_on_what(job, given, tmp_path):
    out = made(job, given, tmp_path)
    matrix = pq.read_table(out / "shadows" / "in_out.parquet").to_pydict()
    columns = [matrix[name] for name in NAMES]
    assert [sum(column) for column in columns] == [8, 8]
    assert {sum(row) for row in zip(*columns, strict=True)} == {1}
    inputs = resolve_inputs(load_spec(out / MANIFEST_FILE))
    assert {*matrix["record_id"]} == {*inputs.records.ids}
    for name in NAMES:
        pairs = zip(matrix["record_id"], matrix[name], strict=True)
        assert inputs.shadow_members[name] == {record for record, is_in in pairs if is_in}
    models = [*inputs.targets.values(), *(inputs.references[name] for name in NAMES)]
    assert len({model.fingerprint for model in models}) == 3
    assert {"lira", "lira_t"} <= {attack.label for attack in inputs.attacks}
    own, other = (
        json.loads((out / place / MANIFEST_FILE).read_text())
        for place in (".", "shadows/shadow-00")
    )
    assert own["training"] == other["training"]
    assert own["parameters"] == other["parameters"]


def test_attacks_score_every_image_by_the_shadows(trained_vae, tmp_path):
    attacks = ["lira", "lira_t", "loss"]
    content = {
        "from_training": str(trained_vae),
        "attacks": attacks,
        "resources": {"engine": "local"},
    }
    file = tmp_path / "audit.yaml"
    file.write_text(yaml.safe_dump(content))
    result = run_audit(load_spec(file), Console(quiet=True))
    assert {one.attack: one.n_members for one in result.metrics} == dict.fromkeys(attacks, 8)


def test_finished_shadows_are_left_as_they_are_and_more_are_added(
    trained_vae, tmp_path, monkeypatch
):
    out = shutil.copytree(trained_vae, tmp_path / "out")
    trained, train = [], image_shadows.TrainedOnImages.train

    def watched(self, own, *rest):
        trained.append(own.name)
        train(self, own, *rest)

    monkeypatch.setattr(image_shadows.TrainedOnImages, "train", watched)
    train_shadows(out / MANIFEST_FILE, count=4)
    assert trained == ["shadow-02", "shadow-03"]


@pytest.fixture
def went_on(given, tmp_path, monkeypatch):
    """A target that went on from the weights of a pipeline, which was named from its folder."""
    shutil.copytree(given / "base", tmp_path / "base")
    words = f"--data {given / 'images'} --out out --members 8 --held-out 8 --batch-size 4"
    more = f"{OF['train_diffusion']} --pipeline base --from-weights"
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert load_script("jobs/train_diffusion.py").main(f"{words} {more}".split()) == 0
    return tmp_path / "out"


@pytest.mark.training
def test_shadows_go_on_from_the_weights_that_the_target_went_on_from(went_on):
    train_shadows(went_on / MANIFEST_FILE, count=2)
    base = str(went_on.parent / "base")
    fresh_pipeline(went_on.parent / "base", (1, 8, 8), channels=(8, 8), seed=1)
    with pytest.raises(InputError, match=rf"{base} is another base than the target was trained on"):
        train_shadows(went_on / MANIFEST_FILE, count=4)


@pytest.mark.training
def test_a_base_that_a_manifest_of_before_says_nothing_of_is_said_to_be_unchecked(went_on, capsys):
    train_shadows(went_on / MANIFEST_FILE, count=2)
    assert "could not be checked" not in capsys.readouterr().out
    shutil.rmtree(went_on / "shadows")
    content = json.loads((went_on / MANIFEST_FILE).read_text())
    for key in ("seal", "pipeline_fingerprint"):
        del content[key]
    write_manifest(went_on, content, ImageRecordsSpec.manifest)
    train_shadows(went_on / MANIFEST_FILE, count=2)
    assert capsys.readouterr().out.count("could not be checked that shadows begin with") == 1


def test_what_is_no_training_of_these_images_is_refused(trained_vae, tmp_path):
    out = shutil.copytree(trained_vae, tmp_path / "out")
    content = json.loads((out / MANIFEST_FILE).read_text())
    content["training"]["epochs"] = 3
    (out / MANIFEST_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match="was edited after the training"):
        train_shadows(out / MANIFEST_FILE, count=2)
    del content["seal"]
    write_manifest(out, content, ImageRecordsSpec.manifest)
    with pytest.raises(InputError, match="shadow-00 is a shadow of another training"):
        train_shadows(out / MANIFEST_FILE, count=2)
    with pytest.raises(InputError, match="count is 3; give an even number"):
        train_shadows(out / MANIFEST_FILE, count=3)
    with pytest.raises(InputError, match="--count: a training file says it itself"):
        train_shadows(write_training(tmp_path / "texts", tiny("gpt2")), count=2)
