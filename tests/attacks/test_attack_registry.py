"""The registry, and what is said of parameters that are wrong."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import raymia.attacks
from raymia.attacks import Attack, build, register, registry
from raymia.attacks.base import needs_neighbors, needs_reference
from raymia.errors import InputError
from raymia.evidence.text import ModelEvidence, TextEvidence, token_evidence

NAMES = [
    "detect_gpt", "difference", "ez", "fast_detect", "loss", "min_k", "min_k_plus_plus",
    "neighbor", "ratio", "spv", "surp", "wbc", "zlib",
]  # fmt: skip


def test_all_attacks_are_known_in_order_of_their_names():
    assert list(registry()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_says_what_it_is(name):
    kind = registry()[name]
    assert kind.name == name
    assert all((kind.title, kind.source, kind.formula))
    assert kind.__doc__


@pytest.mark.parametrize(
    ("name", "target", "reference"),
    [("loss", 1, 0), ("zlib", 1, 0), ("min_k", 1, 0), ("min_k_plus_plus", 1, 0),
     ("surp", 1, 0), ("fast_detect", 1, 0), ("difference", 1, 1), ("ratio", 1, 1), ("ez", 1, 1),
     ("wbc", 1, 1), ("neighbor", 11, 0), ("detect_gpt", 11, 0), ("spv", 11, 11)],
)  # fmt: skip
def test_queries_per_record_are_those_of_the_formula(name, target, reference):
    assert build(name, {}, "here").queries(10) == (target, reference)


def test_changing_the_listing_changes_no_registry():
    registry().clear()
    assert list(registry()) == NAMES


def test_second_attack_of_a_name_is_refused():
    with pytest.raises(ValueError, match="two attacks are named 'loss'"):

        @register
        @dataclass(frozen=True)
        class Again(Attack):
            name = "loss"

            def score(self, evidence):
                raise NotImplementedError


def problem(name, **parameters):
    with pytest.raises(InputError) as caught:
        build(name, parameters, "attacks[3]")
    (text,) = caught.value.problems
    assert text.startswith("attacks[3]: ")
    return text


def test_unknown_attack_lists_those_there_are():
    text = problem("lira")
    assert "no attack 'lira'" in text
    assert all(name in text for name in NAMES)


def test_unknown_parameter_lists_those_there_are():
    assert "has no parameter 'k'; it has: share" in problem("min_k", k=0.2)
    assert "has no parameter 'k'; it has: none" in problem("loss", k=0.2)


@pytest.mark.parametrize("name", ["min_k", "min_k_plus_plus", "surp"])
@pytest.mark.parametrize("share", [0, -0.1, 1.0001, float("nan"), "much"])
def test_share_outside_its_range_is_refused(name, share):
    assert f"attack {name!r}" in problem(name, share=share)


@pytest.mark.parametrize("name", ["difference", "spv"])
@pytest.mark.parametrize("space", ["loss", "", 5])
def test_unknown_space_is_refused_with_those_there_are(name, space):
    assert "'probability' or 'log'" in problem(name, space=space)


@pytest.mark.parametrize("bound", [0, -1.0, float("nan"), "high"])
def test_bound_on_the_entropy_outside_its_range_is_refused(bound):
    assert "attack 'surp'" in problem("surp", max_entropy=bound)


@pytest.mark.parametrize("windows", ["", "2,", "2;3", "0,2", "-1", "2,3,2", "2.5", 2.5, True])
def test_windows_that_are_not_different_sizes_are_refused(windows):
    text = problem("wbc", windows=windows)
    assert "windows should be different whole numbers above 0, as '2,3,4'" in text
    assert repr(windows) in text


def test_attack_without_what_it_needs_says_so():
    evidence = ModelEvidence(token_evidence(None, ["r"]))
    with pytest.raises(ValueError, match="reference"):
        needs_reference(TextEvidence(["t"], evidence))
    with pytest.raises(ValueError, match="neighbors"):
        needs_neighbors(evidence)


def test_attacks_import_no_models_and_no_ray():
    """They are formulas: evidence in, scores out."""
    for path in Path(raymia.attacks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                assert top not in {"ray", "torch", "transformers", "peft"}, path
                assert not name.startswith(("raymia.models", "raymia.engine")), path
