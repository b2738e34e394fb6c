"""The image demo, in small: made once, run again without a question, gone on with when killed."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_fixtures import child_environment, ended, start, wait_until
from small_audit import console

import raymia.run.asking
from raymia.demo.images import ImageDemoSettings, digits, run_image_demo, sections_of_audit
from raymia.records.images import pixels_array, read_image_records
from raymia.results.result import RunResult
from raymia.spec import (
    AutoencoderTrainingSpec,
    DiffusionTrainingSpec,
    ImageRecordsSpec,
    TargetSpec,
)
from raymia.spec.file import load_spec, parse_spec

TRAINING = DiffusionTrainingSpec(steps=8, batch_size=8, warmup=2)
SMALL = ImageDemoSettings(
    members=12, population=24, channels=(8, 16), diffusion=TRAINING, latent=4,
    autoencoder=AutoencoderTrainingSpec(epochs=2), images=24, reference=TRAINING, base=TRAINING,
    tuning=TRAINING,
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    folder: Path
    result: RunResult


@pytest.fixture(scope="module")
def trained_demo(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("demo") / "images"
    result, output = run_image_demo(folder, console(), SMALL, "local")
    assert output == str(folder / "report")
    return Done(folder, result)


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this run should not ask any model")

    monkeypatch.setattr(raymia.run.asking, "make_references", refuse)


def read(path: Path) -> np.ndarray[Any, Any]:
    spec = ImageRecordsSpec(kind="image", candidates=[str(path)])
    payloads = read_image_records(spec, (1, 8, 8)).table["payload"].to_pylist()
    return pixels_array(payloads, (1, 8, 8))


def test_all_targets_are_audited_with_and_without_a_reference(trained_demo: Done) -> None:
    assert trained_demo.result.complete
    ran = {(m.target, m.attack) for m in trained_demo.result.metrics}
    of_both, of_ddpm = ("loss", "pfami"), ("secmi", "pia", "sima")
    for target, attacks in (
        ("ddpm", of_both + of_ddpm),
        ("vae", (*of_both, "reconstruction")),
        ("lora", of_both + of_ddpm),
    ):
        for attack in attacks:
            assert {(target, attack), (target, f"{attack}@self_generated")} <= ran
    assert not {("vae", attack) for attack in of_ddpm} & ran
    left_out = " ".join(
        p for p in trained_demo.result.problems if p.startswith("target vae: left out")
    )
    assert {"secmi", "pia", "sima"} <= set(re.findall(r"\w+", left_out))
    assert (trained_demo.folder / "report" / "report.html").is_file()


def test_the_digits_are_split_without_a_repetition(trained_demo: Done) -> None:
    parts = [read(trained_demo.folder / name)
             for name in ("members.parquet", "non_members.parquet", "population")]  # fmt: skip
    assert [len(part) for part in parts] == [12, 12, 24]
    together = np.concatenate(parts)
    assert len(np.unique(together, axis=0)) == len(together)
    assert {image.tobytes() for image in together} <= {image.tobytes() for image in digits()}


def test_the_lora_is_of_a_base_that_has_seen_no_record(trained_demo: Done) -> None:
    spec = load_spec(trained_demo.folder / "audit.yaml")
    target = next(one for one in spec.targets if one.name == "lora")
    assert isinstance(target, TargetSpec)
    assert target.model == str(trained_demo.folder / "base")
    facts = json.loads((trained_demo.folder / "base" / "facts.json").read_text())
    assert facts["images"] == len(digits()) - 2 * SMALL.members - SMALL.population
    lora = json.loads((trained_demo.folder / "lora" / "facts.json").read_text())
    assert lora["images"] == SMALL.members


def test_a_seed_draws_other_members(trained_demo: Done, tmp_path: Path) -> None:
    from raymia.prepare.image_split import split_and_write

    drawn = split_and_write(digits(), None, 12, 12, 1, tmp_path).members
    before = {image.tobytes() for image in read(trained_demo.folder / "members.parquet")}
    assert {image.tobytes() for image in drawn} != before


@pytest.mark.usefixtures("no_questions")
def test_a_second_run_trains_nothing_and_asks_nothing(trained_demo: Done) -> None:
    again, _ = run_image_demo(trained_demo.folder, console(), SMALL, "local")
    assert again.metrics == trained_demo.result.metrics


@pytest.mark.usefixtures("no_questions")
def test_a_folder_left_half_made_goes_on_with_the_models_it_has(trained_demo: Done) -> None:
    weights = sorted(trained_demo.folder.glob("ddpm/**/*.safetensors"))
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in weights]
    (trained_demo.folder / "audit.yaml").unlink()
    again, _ = run_image_demo(trained_demo.folder, console(), SMALL, "local")
    assert weights
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in weights] == before
    assert again.metrics == trained_demo.result.metrics


def test_the_audit_file_says_what_it_is(trained_demo: Done) -> None:
    text = (trained_demo.folder / "audit.yaml").read_text(encoding="utf-8")
    for comment, _ in sections_of_audit(SMALL):
        assert all(f"# {line}\n" in text for line in comment.splitlines())
    assert load_spec(trained_demo.folder / "audit.yaml").records.kind == "image"


def test_the_demo_as_it_is_run_writes_a_valid_audit_file() -> None:
    content: dict[str, Any] = {}
    for _, section in sections_of_audit(ImageDemoSettings()):
        content |= section
    parse_spec(content, "audit.yaml")


@pytest.mark.slow
def test_the_demo_ends_when_it_is_told_to_while_it_trains(tmp_path: Path) -> None:
    environment, mark = child_environment()
    command = [sys.executable, "-m", "raymia", "demo", "images", str(tmp_path / "images")]
    with ended(mark):
        driver = start(command, environment, tmp_path / "output")
        begun = tmp_path / "images" / "untrained-ddpm" / "model_index.json"
        wait_until(begun.is_file, 120, "the training begins")
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(timeout=60) == 128 + signal.SIGTERM
    printed = (tmp_path / "output").read_text(encoding="utf-8")
    assert printed.splitlines()[-1].startswith("stopped; what was answered is stored")
