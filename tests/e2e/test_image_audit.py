"""Audits of images through the same stream, store and reducer as audits of texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_audit import console, parts, raw_rows, scores_by_row
from small_families import FAMILIES, save_family
from small_image_audit import (
    MEMBERS,
    OTHERS,
    TIMESTEPS,
    ImageModels,
    digits,
    write_image_audit,
    write_images,
)
from small_image_models import save_model

import raymia.engine.base
from raymia.attacks import registry
from raymia.evidence.store import EvidenceStore
from raymia.metrics.summary import AttackMetrics
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.estimate import AuditEstimate, estimate
from raymia.plan.planning import plan_audit
from raymia.questions.base import registered
from raymia.results.folder import load_run
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.run.calibrate import calibrate
from raymia.spec.file import load_spec
from raymia.util.errors import InputError, RaymiaError

SELF_GENERATED = {
    "kind": "self_generated", "images": 48, "sampling_steps": 5,
    "training": {"steps": 40, "batch_size": 24, "learning_rate": 3e-3, "warmup": 5},
}  # fmt: skip
# SecMI and PIAN are left out: a network of this size that knows 24 digits by heart inverts
# non-members along straighter paths than members (docs/images.md).
ON_ERRORS = ["loss", "pfami", "pia", "sima"]
CAPTIONED = ("stable", "sdxl", "pixart", "sd3", "flux", "aura_flow", "lumina2", "sana")
ERRING = ("ldm", "dit")
"""Those that are told of no caption, and predict noise."""


@dataclass(frozen=True)
class Done:
    folder: Path
    file: Path
    result: RunResult


def references_of(models: ImageModels) -> dict[str, Any]:
    return {"self_generated": SELF_GENERATED, "untrained": {"model": str(models.untrained)}}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, image_models: ImageModels) -> Done:
    """Every attack that needs no population, alone and with a self-generated reference."""
    folder = tmp_path_factory.mktemp("images")
    references = references_of(image_models)
    file = write_image_audit(folder, image_models.denoiser, references=references)
    return Done(folder, file, run_audit(load_spec(file), console()))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this run should not ask any model")

    monkeypatch.setattr(raymia.engine.base, "executor_of", refuse)


def measured(result: RunResult) -> dict[str, AttackMetrics]:
    return {m.attack: m for m in result.metrics if isinstance(m, AttackMetrics)}


def test_the_run_is_complete_and_every_attack_that_can_be_run_was(first: Done) -> None:
    assert first.result.complete
    assert first.result.records.members == MEMBERS
    assert first.result.records.non_members == OTHERS
    run = {m.attack.partition("@")[0] for m in first.result.metrics}
    questions = {
        question.name
        for question in registered("image")
        if "denoiser" in question.families and not question.is_extra(load_spec(first.file))
    }
    lacking = {"population", "shadows", "autoencoder"}
    assert run == {
        name
        for name, kind in registry("image").items()
        if questions.issuperset(kind.asks) and not kind.needs & lacking
    }
    assert run >= {*ON_ERRORS, "secmi", "gan_leaks"}
    assert not run & {"clid", "co_membership", "lira", "reconstruction", "sima_mc"}


@pytest.mark.parametrize("attack", ON_ERRORS)
def test_every_attack_on_errors_finds_members_that_are_known_by_heart(
    first: Done, attack: str
) -> None:
    assert measured(first.result)[attack].auc.value > 0.95


def test_each_record_was_asked_once_whatever_the_number_of_attacks(first: Done) -> None:
    for kind, rows in (("image.denoising", 1 + 3), ("image.inversion", 1), ("image.clean", 1)):
        found = [(r["record_id"], r["neighbor"]) for r in raw_rows(first.folder / "store", kind)]
        models = 3
        assert len(found) == models * rows * (MEMBERS + OTHERS)
    (target,) = (s for s in first.result.stages if s.kind == "target")
    records = MEMBERS + OTHERS
    assert target.questions == {
        "terms": records, "neighbors.crop": 3 * records, "inversion_map": records,
        "proximal": records, "proximal_normalized": records, "clean": records,
    }  # fmt: skip


def test_the_passes_of_every_attack_stand_beside_what_it_finds(first: Done) -> None:
    """Three timesteps and two draws, of the record and three neighbors; the rest by default."""
    costs = {cost.attack: cost for cost in first.result.costs}
    assert {*costs} == {m.attack for m in first.result.metrics}
    of_target = {
        "loss": 6, "loss_per_byte": 6, "peak_error": 6, "pfami": 24, "pfami_nns": 24, "secmi": 12,
        "secmi_nns": 12, "pia": 4, "pian": 4, "sima": 3,
    }  # fmt: skip
    for name, passes in of_target.items():
        assert (costs[name].of_target, costs[name].of_others) == (passes, 0)
        beside = costs[f"{name}@self_generated"]
        assert (beside.of_target, beside.of_others) == (passes, passes)


def test_the_whole_matrix_of_losses_is_stored(first: Done) -> None:
    rows = raw_rows(first.folder / "store", "image.denoising")
    assert all(len(row["l2"]) == len(TIMESTEPS) * 2 for row in rows)
    assert {row["neighbor"] for row in rows} == {0, 1, 2, 3}


@pytest.mark.usefixtures("no_ray")
def test_a_second_run_asks_no_model_and_says_the_same(first: Done) -> None:
    again = run_audit(load_spec(first.file), console())
    assert sum(stage.asked for stage in again.stages) == 0
    assert again.metrics == first.result.metrics


def test_the_run_is_written_as_that_of_texts_is(first: Done) -> None:
    loaded, _ = load_run(str(first.folder / "run"))
    assert loaded.metrics == first.result.metrics
    assert (first.folder / "run" / "report.html").read_text(encoding="utf-8").startswith("<!")
    scores = scores_by_row(first.folder / "run")
    assert {key[0] for key in scores} == {"target"}


def test_an_autoencoder_goes_the_same_way(image_models: ImageModels, tmp_path: Path) -> None:
    file = write_image_audit(
        tmp_path,
        image_models.vae,
        attacks=["loss", "pfami", "reconstruction", "co_membership"],
        probes={"descent": {"steps": 40}},
    )
    result = run_audit(load_spec(file), console())
    assert result.complete
    found = {name: m.auc.value for name, m in measured(result).items()}
    assert found["loss"] > 0.95
    assert found["reconstruction"] > 0.95
    assert found["co_membership"] > 0.95


def test_auto_chooses_the_perturbation_on_records_it_does_not_score(
    image_models: ImageModels, tmp_path: Path
) -> None:
    images = digits()
    file = write_image_audit(
        tmp_path, image_models.denoiser, attacks=["pfami"],
        neighbors={"kind": "auto", "among": ["crop", "blur"]},
        probes={"denoising": {"timesteps": [150]}},
        records={"kind": "image", "members": write_images(tmp_path / "m", images[:MEMBERS]),
                 "non_members": write_images(tmp_path / "n", images[200:700])},
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    (pfami,) = result.metrics
    assert result.complete
    assert pfami.attack == "pfami"


def calibrated(file: Path, folder: Path) -> AuditEstimate:
    inputs, store = resolve_inputs(load_spec(file)), EvidenceStore(str(folder / "store"))
    calibrate(inputs, store, 8, console())
    return estimate(inputs, plan_audit(inputs, store), store)


def test_a_calibration_measures_each_kind_of_model_and_keeps_no_answer(
    image_models: ImageModels, tmp_path: Path
) -> None:
    """The warm-up of 100 steps is longer than what is trained to learn how long a step takes."""
    file = write_image_audit(
        tmp_path, image_models.denoiser, attacks=["loss@self_generated"],
        targets=[{"name": name, "model": str(getattr(image_models, name))}
                 for name in ("denoiser", "vae")],
        references={"self_generated": {"kind": "self_generated", "images": 300,
                                       "training": {"steps": 300, "batch_size": 24}}},
    )  # fmt: skip
    found = calibrated(file, tmp_path)
    assert [part.name for part in (*found.preparations, *found.stages)] == [
        "prepare self_generated:denoiser", "prepare self_generated:vae", "target:denoiser",
        "reference:self_generated:denoiser", "target:vae", "reference:self_generated:vae",
    ]  # fmt: skip
    for part in (*found.preparations, *found.stages):
        assert part.to_ask > 0, part.name
        assert part.seconds is not None, part.name
        assert part.seconds > 0, part.name
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["rates"]


def test_a_calibration_says_which_target_it_could_not_measure(
    image_models: ImageModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise InputError("too large for this GPU")

    monkeypatch.setattr("raymia.models.denoisers.model.load_denoiser", refuse)
    audit = write_image_audit(
        tmp_path, image_models.denoiser, attacks=["loss"],
        targets=[{"name": "lacking", "model": str(image_models.denoiser)},
                 {"name": "vae", "model": str(image_models.vae)}],
    )  # fmt: skip
    with pytest.raises(RaymiaError, match=r"(?s)not all was measured: target lacking.*too large"):
        calibrated(audit, tmp_path)


def test_killing_nothing_but_adding_records_asks_only_for_those(
    first: Done, image_models: ImageModels, tmp_path: Path
) -> None:
    file = write_image_audit(tmp_path, image_models.denoiser, store=str(first.folder / "store"))
    write_images(tmp_path / "members", digits()[: MEMBERS + 1])
    result = run_audit(load_spec(file), console())
    (target,) = (s for s in result.stages if s.kind == "target")
    # The digit that is now a member was a non-member: it contradicts itself and is set aside.
    assert target.asked == 0
    assert [a.reason for a in result.set_aside] == ["given as member and as non-member"] * 2


@pytest.mark.usefixtures("local_ray")
def test_scores_do_not_depend_on_actors_blocks_or_batches(
    image_models: ImageModels, tmp_path: Path
) -> None:
    attacks = ["loss", "pfami", "secmi", "pia", "sima"]
    actors = {"block_records": 7, "target": {"actors": 2, "batch_images": 5}}
    for engine, resources in (("local", {}), ("ray", actors)):
        file = write_image_audit(
            tmp_path / engine, image_models.denoiser, attacks=attacks, engine=engine,
            resources=resources,
        )  # fmt: skip
        run_audit(load_spec(file), console())
    one, other = (scores_by_row(tmp_path / engine / "run") for engine in ("local", "ray"))
    for key, score in other.items():
        assert score == pytest.approx(one[key], rel=1e-4, abs=1e-7)
    assert len(other) == len(attacks) * (MEMBERS + OTHERS)


def test_with_labels_that_mean_nothing_no_attack_finds_anything(
    first: Done, image_models: ImageModels, tmp_path: Path
) -> None:
    """Members and non-members in each class, on stored evidence: no model is asked."""
    images = digits()[: MEMBERS + OTHERS]
    file = write_image_audit(
        tmp_path, Path(load_spec(first.file).targets[0].model), store=str(first.folder / "store"),
        references=references_of(image_models),
        records={"kind": "image", "members": write_images(tmp_path / "a", images[::2]),
                 "non_members": write_images(tmp_path / "b", images[1::2])},
        metrics={"resamples": 1000, "confidence": 0.999},
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert sum(stage.asked for stage in result.stages) == 0
    for name, entry in measured(result).items():
        assert entry.auc.low <= 0.5 <= entry.auc.high, name


def test_evidence_that_was_lost_is_asked_again_and_nothing_else(
    first: Done, image_models: ImageModels, tmp_path: Path
) -> None:
    file = write_image_audit(tmp_path, image_models.denoiser, attacks=["loss", "pfami", "pia"],
                             resources={"block_records": 8})  # fmt: skip
    run_audit(load_spec(file), console())
    lost = parts(tmp_path / "store", "image.denoising")[0]
    rows = pq.read_table(lost).num_rows
    lost.unlink()
    again = run_audit(load_spec(file), console())
    assert sum(stage.asked for stage in again.stages) == rows
    one, other = (scores_by_row(folder / "run") for folder in (first.folder, tmp_path))
    for key, score in other.items():
        assert score == pytest.approx(one[key], rel=1e-4, abs=1e-7)


@pytest.mark.long
@pytest.mark.parametrize("kind", [*CAPTIONED, *ERRING, "autoencoder_kl", "imagegpt"])
def test_every_architecture_goes_through_the_same_stream(kind: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    if kind in FAMILIES:
        save_family(kind, model)
        side = 16
    else:
        side = save_model(kind, model)
    draws = np.random.default_rng(0)
    records: dict[str, Any] = {"kind": "image"}
    for name in ("members", "non_members"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(3):
            pixels = draws.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text("a cat on a mat " * 120 ** (number == 0))
        records[name] = name
    if kind in CAPTIONED:
        records["caption_column"] = "txt"
    file = write_image_audit(
        tmp_path, model, records=records, probes={"denoising": {"timesteps": [100, 300]}},
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert result.complete
    assert result.dropped == []
    asked = {m.attack for m in result.metrics}
    expected = {"loss", "pfami"}
    expected |= {"secmi", "pia", "sima"} if kind in (*CAPTIONED, *ERRING) else set()
    expected |= {"clid"} if kind in CAPTIONED else set()
    assert expected <= asked
    cut = [line for line in result.problems if "2 of 6 captions are longer than the" in line]
    assert bool(cut) == (kind in CAPTIONED)
    assert ("clid" in asked, "pia" in asked) == ("clid" in expected, "pia" in expected)
    scores = scores_by_row(tmp_path / "run")
    assert all(score is not None for key, score in scores.items() if key[1] in expected)


def test_of_a_gan_there_are_samples_alone(tmp_path: Path) -> None:
    """Samples near the members: distances to them find members, and no model is asked."""
    images = digits()
    noise = np.random.default_rng(0).integers(-9, 10, (MEMBERS, 1, 8, 8))
    noisy = np.clip(images[:MEMBERS].astype(int) + noise, 0, 255).astype(np.uint8)
    target = {"name": "gan", "samples": write_images(tmp_path / "samples", list(noisy))}
    file = write_image_audit(
        tmp_path, tmp_path, targets=[target], attacks=["gan_leaks", "monte_carlo"], neighbors=None
    )
    result = run_audit(load_spec(file), console())
    assert result.complete
    assert measured(result)["gan_leaks"].auc.value > 0.95
    refused = write_image_audit(tmp_path, tmp_path, targets=[target], attacks=["loss"])
    with pytest.raises(InputError, match="this is of the kind samples"):
        resolve_inputs(load_spec(refused))


def test_of_few_samples_the_attacks_that_they_serve_are_run(tmp_path: Path) -> None:
    samples = write_images(tmp_path / "samples", list(digits()[60:64]))
    records = {
        "kind": "image", "members": "members", "non_members": "non_members",
        "population": write_images(tmp_path / "population", list(digits()[70:73])),
    }  # fmt: skip
    file = write_image_audit(
        tmp_path, tmp_path, targets=[{"name": "gan", "samples": samples}], neighbors=None,
        records=records,
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert result.complete
    run = {metrics.attack for metrics in result.metrics}
    assert run >= {"gan_leaks", "monte_carlo"}
    assert not run & {"over_representation", "logan"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"probes": {"denoising": {"timesteps": [1000]}}}, "outside of the schedule of target"),
        ({"probes": {"inversion": {"timestep": 105}}}, "should be a multiple of step 10"),
        ({"attacks": ["reconstruction"]}, "can be run on models of the kind autoencoder"),
        ({"attacks": ["clid"]}, "not conditioned on text"),
        ({"neighbors": {"kind": "hue"}}, "hue"),
        ({"neighbors": {"kind": "crop", "strengths": [1.5]}}, "neighbors"),
        ({"neighbors": {"kind": "mask_fill", "model": "t5"}}, "are none of images"),
        ({"targets": [{"name": "t", "endpoint": "https://h/v1", "served_model": "m"}]}, "endpoint"),
        ({"corpus": {"files": ["c.jsonl"]}}, "corpus is for texts"),
        ({"attacks": ["pfami"], "neighbors": None}, "add a section `neighbors`"),
        ({"attacks": ["gan_leaks"]}, "self_generated"),
        ({"attacks": ["wbc"]}, "no attack 'wbc'"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    image_models: ImageModels, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = write_image_audit(tmp_path, image_models.denoiser, **changes)
    with pytest.raises(InputError, match=said):
        resolve_inputs(load_spec(file))


def test_images_of_another_size_are_set_aside_and_named(
    image_models: ImageModels, tmp_path: Path
) -> None:
    file = write_image_audit(tmp_path, image_models.denoiser)
    small = np.zeros((1, 4, 4), np.uint8)
    write_images(tmp_path / "members", [small])
    inputs = resolve_inputs(load_spec(file))
    (aside,) = inputs.records.set_aside
    assert "0000.png" in aside.where
    assert "4" in aside.reason


def test_the_metrics_file_is_plain_json(first: Done) -> None:
    content = json.loads((first.folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert {m["attack"] for m in content["metrics"]} == {m.attack for m in first.result.metrics}
