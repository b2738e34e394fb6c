"""The registry, and what is said of parameters that are wrong."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import raymia.attacks.base
from raymia.attacks import Attack, build, register, registry
from raymia.evidence.answers import answer_names
from raymia.questions.registry import costs
from raymia.report.attack_table import access, queries_text
from raymia.util.errors import InputError


def test_attacks_are_listed_in_order_of_their_names():
    assert list(registry()) == sorted(registry())


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        ("loss", "target 1"),
        ("difference", "target 1, reference 1"),
        ("neighbor", "target 1 + n"),
        ("spv", "target 1 + n, reference 1 + n"),
        ("spv_embedding", "target 1 + 2z, reference 1 + 2z"),
        ("con_recall", "target 1 + 1 + 1"),
        ("lira", "target 1, each shadow 1"),
        ("samia", "target m written"),
    ],
)
def test_queries_per_record_are_those_of_the_formula(name, queries):
    assert queries_text(registry()[name], "text") == queries


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("loss", "log-probabilities"),
        ("min_k_plus_plus", "distribution of each token"),
        ("surp", "distribution of each token"),
        ("fast_detect", "distribution of each token"),
        ("grad_norm", "weights"),
        ("spv_embedding", "weights"),
        ("samia", "generated text"),
    ],
)
def test_access_is_the_least_the_formula_needs(name, least):
    assert access(registry()[name], "text") == least


def test_every_question_an_attack_asks_is_one_that_can_be_put():
    for records in ("text", "image"):
        own = {question for kind in registry(records).values() for question in kind.asks}
        assert own <= set(answer_names(records)) == set(costs(records))


def test_changing_the_listing_changes_no_registry():
    before = registry()
    registry().clear()
    assert registry() == before != {}


def test_second_attack_of_a_name_is_refused():
    with pytest.raises(ValueError, match="two attacks on text records are named 'loss'"):

        @register
        @dataclass(frozen=True)
        class Again(Attack):
            name = "loss"

            def score(self, evidence):
                return evidence.target.tokens.mean()


def problem(name, **parameters):
    with pytest.raises(InputError) as caught:
        build(name, parameters, "attacks[3]")
    (text,) = caught.value.problems
    assert text.startswith("attacks[3]: ")
    return text


def test_unknown_attack_lists_those_there_are():
    text = problem("mia")
    assert "no attack 'mia'; did you mean 'rmia'?" in text
    assert all(name in text for name in registry())


def test_unknown_parameter_lists_those_there_are():
    assert "has no parameter 'k'; it has: share" in problem("min_k", k=0.2)
    assert "has no parameter 'k'; it has: none" in problem("loss", k=0.2)


@pytest.mark.parametrize("name", ["min_k", "min_k_plus_plus", "surp"])
@pytest.mark.parametrize("share", [0, -0.1, 1.0001, float("nan"), "much"])
def test_share_outside_its_range_is_refused(name, share):
    assert f"attack {name!r}" in problem(name, share=share)


@pytest.mark.parametrize("name", ["difference", "neighbor", "spv", "spv_embedding"])
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


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("con_recall", {"gamma": -1}),
        ("pac", {"high": 0}),
        ("pac", {"low": 1.5}),
        ("grad_norm", {"norm": "1"}),
        ("samia", {"n": 0}),
        ("dc_pdd", {"bound": 0}),
        ("rmia", {"gamma": 0}),
        ("rmia", {"a": 2}),
        ("quantile", {"fpr": 1}),
    ],
)
def test_parameter_outside_its_range_is_refused(name, parameters):
    (parameter,) = parameters
    assert f"{parameter} should be" in problem(name, **parameters)


def test_parameter_of_the_wrong_type_is_named():
    assert "a parameter is of the wrong type: share='x'" in problem("min_k", share="x")
    assert "n should be like 1, but got 2.0" in problem("samia", n=2.0)
    assert "fixed_variance should be like True, but got 'false'" in problem(
        "lira", fixed_variance="false"
    )


@pytest.mark.parametrize(
    ("made", "given", "says"),
    [
        ("raise NameError('gone')", {"share": 1.0}, " cannot be made: NameError: gone (line "),
        ("1 + ''", {"share": 1.0}, ": a parameter is of the wrong type: share=1.0"),
        ("pass", {}, " has to be given share"),
    ],
)
def test_an_attack_that_cannot_be_made_says_why(monkeypatch, made, given, says):
    @dataclass(frozen=True)
    class Mine(Attack):
        share: float

        def __post_init__(self):
            exec(made)

        def score(self, evidence):
            return evidence

    monkeypatch.setitem(raymia.attacks.base._REGISTRY, ("text", "mine"), Mine)
    assert f"attack 'mine'{says}" in problem("mine", **given)
