"""What holds of many attacks on images; what holds of all stands in test_house_rules.py."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_image_evidence import (
    autoencoder,
    change_grids,
    denoiser,
    everything,
    overfitted,
)
from sklearn.metrics import roc_auc_score

import raymia.attacks.images
from raymia.attacks import build, registry
from raymia.questions.registry import families_for
from raymia.util.errors import InputError

KINDS = registry("image")
SAMPLE_ONLY = [name for name, kind in KINDS.items() if "generated_images" in kind.needs]
OF_AUTOENCODERS = ["co_membership", "reconstruction"]
LOGARITHMIC = ["loss", "pia", "pian", "secmi", "sima", *OF_AUTOENCODERS]
"""Attacks that a reference calibrates by the difference of logarithms."""


def score(name, given, **parameters):
    return build(name, parameters, "here", "image").score(given)


def evidence(name, **more):
    make = {"make": autoencoder} if name in OF_AUTOENCODERS else {}
    return replace(everything(**make), **more)


def test_those_that_a_reference_calibrates_are_run_with_one():
    calibrated = {name for name, kind in KINDS.items() if "reference_if_given" in kind.needs}
    assert calibrated >= {*LOGARITHMIC, "pfami", "pfami_nns", "secmi_nns", "clid", "quantile"}


@pytest.mark.parametrize("name", KINDS)
def test_families_are_those_that_there_are(name):
    attack = KINDS[name]()
    families = families_for(attack, "image") or set()
    assert families <= {"denoiser", "autoencoder", "pixels", "samples"}
    assert attack.all_needs == attack.needs


@pytest.mark.parametrize("name", SAMPLE_ONLY)
def test_attack_on_samples_needs_no_model_and_scores_every_record(name):
    given = replace(evidence(name), target=None, reference=None, shadows=(), labels=None)
    assert np.isfinite(score(name, given)).all()


def test_members_known_by_heart_are_found_whatever_their_quantile():
    given = overfitted()
    for fpr in (0.01, 0.1, 0.5):
        assert roc_auc_score(given.labels.is_member, score("quantile", given, fpr=fpr)) > 0.95


@pytest.mark.parametrize("name", [*LOGARITHMIC, "pfami", "clid"])
def test_reference_that_answers_as_the_target_leaves_nothing_to_tell(name):
    given = evidence(name)
    found = score(name, replace(given, reference=given.target))
    assert set(found[np.isfinite(found)]) == {0.0}


@pytest.mark.parametrize("name", LOGARITHMIC)
def test_reference_takes_away_what_makes_all_models_err(name):
    """Where images differ in how hard they are for any model, members are told beside a reference
    that has not seen them, and hardly without."""
    make = autoencoder if name in OF_AUTOENCODERS else denoiser
    known = overfitted(make=make, strength=0.8)
    unknown = overfitted(make=make, strength=1.0)
    hard = np.exp(np.random.default_rng(5).normal(size=len(known.images)))
    target, reference = _harder(known.target, hard), _harder(unknown.target, hard)
    labels, alone = known.labels.is_member, replace(known, target=target)
    assert roc_auc_score(labels, score(name, alone)) < 0.75
    assert roc_auc_score(labels, score(name, replace(alone, reference=reference))) > 0.95


def _harder(model, factors):
    return change_grids(model, lambda v: v * factors.reshape(-1, *[1] * (v.ndim - 1)))


# ---------------------------------------------------------------------------- parameters


def problem(name, **parameters):
    with pytest.raises(InputError) as caught:
        build(name, parameters, "attacks[3]", "image")
    (text,) = caught.value.problems
    assert text.startswith("attacks[3]: ")
    return text


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *[(name, {"timestep": value}) for name in ("loss", "pia", "sima", "quantile", "lira")
          for value in (-1, "x", 1.5, True)],
        ("pia", {"p": 3}),
        ("pfami", {"form": "log"}),
        ("pfami", {"strengths": "two"}),
        ("pfami", {"perturbation": 3}),
        ("pfami_nns", {"form": "log"}),
        ("pfami_nns", {"folds": 1}),
        ("secmi_nns", {"folds": 0}),
        ("clid_mixed", {"alpha": 1.1}),
        ("quantile", {"fpr": 0}),
        ("gan_leaks", {"k": 0}),
        ("over_representation", {"k": -1}),
        ("monte_carlo", {"radius": "mean"}),
        ("monte_carlo", {"weigh": "all"}),
        ("monte_carlo", {"components": 0}),
        ("logan", {"components": 0}),
    ],
)  # fmt: skip
def test_parameter_outside_its_range_is_refused(name, parameters):
    ((parameter, value),) = parameters.items()
    text = problem(name, **parameters)
    assert f"{parameter} should be" in text
    assert repr(value) in text


@pytest.mark.parametrize("name", ["loss", "secmi", "pia", "pfami", "clid"])
def test_flag_that_is_none_is_refused(name):
    assert "low_pass should be like False" in problem(name, low_pass="yes")


@pytest.mark.parametrize("name", ["loss", "pfami", "pfami_nns", "quantile", "lira"])
def test_with_a_low_pass_or_a_timestep_it_runs_on_denoisers_alone(name):
    parameters = [{"low_pass": True}]
    parameters += [] if name in ("pfami", "pfami_nns") else [{"timestep": 100}]
    for given in parameters:
        assert families_for(build(name, given, "here", "image"), "image") == {"denoiser"}


# ------------------------------------------------------------------------------- imports


def test_attacks_on_images_import_no_models_and_no_ray():
    for path in Path(raymia.attacks.images.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                assert top not in {"ray", "torch", "transformers", "diffusers"}, path
                assert not name.startswith(("raymia.models", "raymia.engine")), path


def test_listing_attacks_loads_neither_torch_nor_ray_nor_sklearn():
    listing = "import sys, raymia.attacks as a; a.registry('image'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    assert not {"torch", "ray", "sklearn"} & set(done.stdout.split())
