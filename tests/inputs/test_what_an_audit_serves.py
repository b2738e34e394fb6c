"""What an attack asks for that the audit file does not give is found before a model is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_image_audit import SHAPE, digits, write_image_audit, write_images

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.spec.file import load_spec
from raymia.sweep.plan import SweepPlan, plan_sweep
from raymia.sweep.space import check_sweep
from raymia.util.errors import InputError

OTHERS = digits()[100:140]
"""Digits that are no records."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    fresh_pipeline(folder, SHAPE, channels=(16, 32), attention=False)
    return folder


def resolved(folder: Path, model: Path, population: int = 0, **changes: Any) -> Inputs:
    records: dict[str, Any] = {
        "kind": "image", "members": "members", "non_members": "non_members",
    }  # fmt: skip
    if population:
        records["population"] = write_images(folder / "population", OTHERS[:population])
    file = write_image_audit(folder, model, records=records, **changes)
    return resolve_inputs(load_spec(file))


def samples(folder: Path, name: str, count: int) -> dict[str, str]:
    """A target of which there are so many images alone."""
    return {"name": name, "samples": write_images(folder / name, OTHERS[-count:])}


def made(images: int) -> dict[str, Any]:
    return {"own": {"kind": "self_generated", "images": images}}


def named(attack: str, **parameters: Any) -> dict[str, Any]:
    return {"attacks": [{"attack": attack, "parameters": parameters}]}


AUTO = {"neighbors": {"kind": "auto", "among": ["crop", "rotation"]}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (named("pia", timestep=400),
         "attacks[0]: 'pia(timestep=400)' cannot be run on 'target': timestep 400 is not asked "
         "about: probes.proximal.timesteps is 50, 150, 300; write one of these, or name it there"),
        (named("pian", timestep=0.5), "timestep 0.5 is not asked about: probes.proximal.timesteps"),
        (named("loss", timestep=400), "probes.denoising.timesteps is 50, 150, 300;"),
        (named("sima_mc", timestep=50), "probes.averaged.timesteps is 100, 200, 300;"),
        (named("pfami", perturbation="blur"),
         "perturbation blur is not asked about: neighbors.kind is crop;"),
        ({**AUTO, **named("pfami_nns", perturbation="blur")},
         "neighbors.among is crop, rotation;"),
        ({**named("gan_leaks", k=5), "references": made(4)},
         "k is 5, and references.own.images gives 4; set it to at most 4, or give more"),
        ({"attacks": ["loss", "over_representation"], "references": made(4), "population": 3},
         "attacks[1]: 'over_representation' cannot be run on 'target': k is 5, and "
         "records.population gives 3; set it to at most 3, or give more; k is 5, and "
         "references.own.images gives 4; set it to at most 4, or give more"),
        ({"attacks": ["secmi_nns", "learned_combination"]},
         "attacks: 'learned_combination' combines the scores of other attacks, and learns nothing "
         "from 'secmi_nns', which is fitted on the labels of the same records; name attacks that "
         "are not, or give shadows to fit on"),
    ],
)  # fmt: skip
def test_an_attack_that_is_named_and_not_served_is_refused(
    changes: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        resolved(tmp_path, model, **changes)
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        named("pia", timestep=150),
        named("pfami", perturbation="crop"),
        {**AUTO, **named("pfami", perturbation="rotation")},
        {**named("gan_leaks", k=4), "references": made(4)},
        {**named("over_representation", k=3), "references": made(4), "population": 3},
    ],
)
def test_an_attack_that_is_served_is_run(
    changes: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    assert not resolved(tmp_path, model, **changes).left_out


def test_extraction_is_no_condition_on_images(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"extraction is counted in .*, on texts, which is not run"
    ):
        resolved(tmp_path, model, attacks=["loss"], fail_if=["extraction > 0.01"])


def test_targets_that_lack_the_same_are_named_together(model: Path, tmp_path: Path) -> None:
    targets = [samples(tmp_path, "gan", 1), samples(tmp_path, "vae", 1)]
    targets[1]["samples"] = targets[0]["samples"]
    with pytest.raises(InputError) as caught:
        resolved(tmp_path, model, targets=targets, neighbors=None, attacks=["monte_carlo"])
    first, second = caught.value.problems
    assert first.endswith("'gan': it takes 2, and targets[0].samples gives 1; give more")
    assert second.endswith("'vae': it takes 2, and targets[1].samples gives 1; give more")
    models = [{"name": name, "model": str(model)} for name in ("one", "two")]
    with pytest.raises(InputError) as caught:
        resolved(tmp_path, model, targets=models, **named("pia", timestep=400))
    (said,) = caught.value.problems
    assert "cannot be run on 'one', 'two': timestep 400" in said


@pytest.mark.parametrize(
    ("population", "images", "left_out"), [(3, 8, True), (8, 4, True), (5, 5, False)]
)
def test_of_the_default_list_what_is_not_served_is_left_out_and_the_plan_says_why(
    population: int, images: int, left_out: bool, model: Path, tmp_path: Path
) -> None:
    inputs = resolved(tmp_path, model, population, references=made(images))
    run = {attack.label for attack in inputs.attacks_on("target")}
    assert ("over_representation" in run) != left_out
    assert run >= {"loss", "gan_leaks", "monte_carlo"}
    said = [line for line in inputs.left_out_lines() if "over_representation" in line]
    assert len(said) == left_out
    assert all("target target: left out over_representation: k is 5, and" in s for s in said)


def test_each_target_has_samples_of_its_own(model: Path, tmp_path: Path) -> None:
    targets = [samples(tmp_path, "few", 4), samples(tmp_path, "many", 8)]
    inputs = resolved(tmp_path, model, 8, targets=targets, neighbors=None)
    assert ("few", "over_representation") in inputs.left_out
    assert ("many", "over_representation") not in inputs.left_out


def swept(folder: Path, model: Path, attacks: dict[str, Any], **changes: Any) -> SweepPlan:
    file = write_image_audit(folder, model, sweep={"attacks": attacks}, **changes)
    spec = load_spec(file)
    return plan_sweep(check_sweep(spec), EvidenceStore(spec.store))


def test_a_sweep_tries_no_value_that_is_not_served(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        swept(
            tmp_path, model,
            {"pia": {"timestep": {"grid": [50, 400, 500]}},
             "gan_leaks": {"k": {"integers": [1, 20]}}},
            references=made(8),
        )  # fmt: skip
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "sweep.attacks.pia.timestep", "sweep.attacks.gan_leaks.k",
    ]  # fmt: skip
    assert "timestep: 400 cannot be tried on 'target': timestep 400 is not asked about" in str(
        caught.value
    )


def test_a_sweep_asks_for_what_it_tries_and_not_for_the_default(
    model: Path, tmp_path: Path
) -> None:
    records = {
        "kind": "image", "members": "members", "non_members": "non_members",
        "population": write_images(tmp_path / "population", OTHERS[:3]),
    }  # fmt: skip
    tried = {"over_representation": {"k": {"grid": [1, 3]}}}
    assert swept(tmp_path, model, tried, references=made(3), records=records).settings == 2
