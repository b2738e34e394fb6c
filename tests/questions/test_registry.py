"""What is asked of a model of which family, in which order, and what is said of names that no
question has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raymia.attacks import Attack, build, registry
from raymia.attacks.base import Scores
from raymia.evidence.answers import answer_names
from raymia.evidence.text import ModelEvidence
from raymia.questions.base import Item, Question, Setup, registered
from raymia.questions.put import put
from raymia.questions.registry import families_for, model_evidence, model_needs, questions_for
from raymia.questions.text import SUM_SCHEMA, TokenQuestion
from raymia.spec import AuditSpec
from raymia.util.errors import RaymiaError

IMAGES = {"records": {"kind": "image", "members": ["x"]}, "targets": [{"name": "t", "model": "m"}]}
TEXTS = {**IMAGES, "records": {"members": ["x"]}}


def labels(records: str, asks: Sequence[str], spec: dict[str, object], family: str) -> list[str]:
    setup = Setup(AuditSpec.model_validate(spec), family, neighbors={"": (3, "a key", 0)})
    return [label for label, _ in questions_for(records, setup, asks)]


def test_each_question_is_put_once_and_tokens_always_and_first() -> None:
    assert labels("text", ["swaps", "neighbors", "swaps"], TEXTS, "causal") == [
        "tokens", "neighbors", "swaps",
    ]  # fmt: skip
    everything = labels("text", ModelEvidence.names(), TEXTS, "causal")
    assert everything == ModelEvidence.names()
    assert everything[0] == "tokens"
    assert labels("image", [], IMAGES, "denoiser") == []


@pytest.mark.parametrize("family", ["denoiser", "autoencoder", "pixels"])
def test_neighbors_of_images_are_a_question_for_each_perturbation(family: str) -> None:
    spec = {**IMAGES, "neighbors": {"kind": "auto", "among": ["crop", "blur"]}}
    found = labels("image", ["neighbors", "terms"], spec, family)
    assert found == ["terms", "neighbors.crop", "neighbors.blur"]


def test_a_question_whose_answers_another_contains_is_not_put() -> None:
    assert labels("image", ["inversion", "inversion_map"], IMAGES, "denoiser") == ["inversion_map"]
    assert labels("image", ["inversion"], IMAGES, "denoiser") == ["inversion"]
    setup = Setup(AuditSpec.model_validate(IMAGES), "denoiser", latent_shape=(1, 2, 2))
    ((label, question),) = questions_for("image", setup, ["inversion_map"])
    row = {"record_id": "a", "neighbor": 0, "map": [1, 2, 3, 4]}
    row |= {column: [0.5] for column in ("l2", "l4", "low_l2", "low_l4")}
    table = pa.Table.from_pylist([row], schema=question.schema)
    found = model_evidence("image", [(label, question, table)], ["a", "b"])
    np.testing.assert_array_equal(found.inversion_map[0, 0], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(found.inversion.values["l2"].flatten(), [0.5, np.nan])


@pytest.mark.parametrize(
    ("name", "family"), [("tokenz", "causal"), ("gradient", "endpoint"), ("terms", "causal")]
)
def test_a_name_that_no_question_has_is_never_left_out(name: str, family: str) -> None:
    with pytest.raises(RaymiaError, match=f"no question '{name}' on text records .* {family}"):
        labels("text", ["tokens", name], TEXTS, family)


@pytest.mark.parametrize("records", ["text", "image"])
def test_every_question_has_its_place_in_the_evidence(records: str) -> None:
    assert {kind.name for kind in registered(records)} >= {*answer_names(records)}
    for kind in registered(records):
        assert kind.__doc__
        assert kind.cost


@pytest.mark.parametrize(
    ("name", "families"),
    [("loss", {"denoiser", "autoencoder", "pixels"}), ("clid", {"denoiser"}),
     ("reconstruction", {"autoencoder"}), ("gan_leaks", None)],
)  # fmt: skip
def test_an_attack_runs_on_the_families_that_answer_what_it_asks(
    name: str, families: set[str] | None
) -> None:
    assert families_for(registry("image")[name](), "image") == families


def test_any_family_that_answers_questions_can_be_what_an_attack_needs() -> None:
    @dataclass(frozen=True)
    class OfPixels(Attack):
        asks = ("terms",)
        needs = frozenset({"pixels"})

        def score(self, evidence: Any) -> Scores:
            raise NotImplementedError

    assert families_for(OfPixels(), "image") == {"pixels"}


@pytest.mark.parametrize(
    ("name", "needs"),
    [("loss", set()), ("min_k_plus_plus", {"moments"}), ("recall", {"prefixes"}),
     ("samia", {"generation"}), ("grad_norm", {"weights", "gradients"}),
     ("spv_embedding", {"weights", "reference"})],
)  # fmt: skip
def test_an_attack_needs_what_its_questions_need(name: str, needs: set[str]) -> None:
    assert model_needs(build(name, {}, "here"), "text", "causal") == needs


@dataclass(frozen=True)
class Wrong(Question):
    """Answers what it is told to."""

    rows: tuple[str, ...]
    kind = "text.wrong"
    version = 1
    schema = SUM_SCHEMA

    def ask(self, model: pa.Schema, items: Sequence[Item]) -> pa.Table:
        del items
        return pa.Table.from_pylist([{"record_id": r, "neighbor": 0} for r in self.rows], model)


@pytest.mark.parametrize("rows", [(), ("a",), ("a", "a"), ("a", "c"), ("a", "b", "b")])
def test_answers_that_are_not_one_for_each_item_are_refused(rows: tuple[str, ...]) -> None:
    items = [Item("a", 0, "x"), Item("b", 0, "y")]
    assert put(Wrong(("b", "a")), SUM_SCHEMA, items).num_rows == 2
    with pytest.raises(RaymiaError, match="one row for each of 2 items"):
        put(Wrong(rows), SUM_SCHEMA, items)


def test_answers_in_other_columns_are_refused() -> None:
    with pytest.raises(RaymiaError, match=r"columns record_id \(string\), .* but was with"):
        put(Wrong(("a",)), TokenQuestion.schema, [Item("a", 0, "x")])


@pytest.mark.long
def test_to_know_the_questions_and_to_plan_loads_no_model_library() -> None:
    code = (
        "import sys, raymia.questions.registry, raymia.cli.plan\n"
        "print(*{'torch', 'transformers', 'diffusers', 'kornia', 'ray'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []
