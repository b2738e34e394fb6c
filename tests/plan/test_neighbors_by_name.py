"""Several kinds of neighbors in one audit, each by a name, so that they can be compared."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from small_inputs import answer, audit, write_jsonl
from tiny_models import PARAPHRASER, passages

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.plan.stages import PER_KIND, stored_neighbors
from raymia.results.runs import StoredRun
from raymia.run.audit import run_audit
from raymia.spec import AuditSpec, PoolSpec, ResourcesSpec
from raymia.sweep.queries import with_values
from raymia.util.errors import InputError

T5 = {"model": str(PARAPHRASER), "count": 2}
WORDS = {"kind": "substitute", "count": 3}
BOTH = {"t5": T5, "words": WORDS}


def spec_of(folder, model, neighbors, attacks, **changes):
    references = {"base": {"model": str(model), "max_tokens": 64}}
    fixed = {"references": references, "resources": {"engine": "local"}}
    return audit(folder, model, PARAPHRASER, neighbors=neighbors, attacks=attacks,
                 **fixed, **changes)  # fmt: skip


def labels(folder, model, neighbors, attacks):
    found = resolve_inputs(spec_of(folder, model, neighbors, attacks))
    return [named.label for named in found.attacks]


def test_attacks_run_with_each_kind_of_neighbors_and_are_called_by_it(tmp_path, tiny_gpt2):
    assert labels(tmp_path, tiny_gpt2, BOTH, ["loss", "spv", "neighbor+words"]) == [
        "loss", "spv@base+t5", "spv@base+words", "neighbor+words",
    ]  # fmt: skip
    assert labels(tmp_path, tiny_gpt2, T5, ["spv"]) == ["spv@base"]


@pytest.mark.parametrize(
    ("neighbors", "attack", "says"),
    [
        (BOTH, "spv@base+t6", "attacks[0]: no neighbors 't6'; there are: t5, words"),
        (BOTH, "loss+t5", "'loss' uses no neighbors; write it without +"),
        (T5, "spv+t5", "'spv' has one kind of neighbors, without a name; write it without +"),
        ({"t5": {"modle": "x"}}, "spv", "neighbors.t5.modle: unknown key; did you mean 'model'?"),
        ({"t5": {"count": 2}}, "spv", "neighbors.t5.model: this key is required and missing"),
        ({"t5": {"model": "nowhere/at/all"}}, "spv", "neighbors.t5.model"),
        ({"a b": WORDS}, "spv", "neighbors"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(tmp_path, tiny_gpt2, neighbors, attack, says):
    with pytest.raises(InputError) as refused:
        labels(tmp_path, tiny_gpt2, neighbors, [attack])
    assert says in str(refused.value)


def test_a_name_is_no_part_of_a_key(tmp_path, tiny_gpt2):
    """What an audit stored whose neighbors had no name is what one with names asks for."""
    store = EvidenceStore(str(tmp_path / "store"))
    (alone,) = plan_audit(resolve_inputs(spec_of(tmp_path, tiny_gpt2, T5, ["spv"])), store)
    for stage in alone.stages:
        for planned in stage.questions:
            answer(store, planned)
    swapped = {"words": WORDS, "t5": T5}
    (both,) = plan_audit(resolve_inputs(spec_of(tmp_path, tiny_gpt2, swapped, ["spv"])), store)
    assert {stage.name: stage.to_ask for stage in both.stages} == {
        "neighbors:words": 18, "neighbors:t5": 0, "target:one": 18, "reference:base": 18,
    }  # fmt: skip


def test_stored_neighbors_of_two_kinds_are_told_apart(tmp_path, tiny_gpt2):
    store = EvidenceStore(str(tmp_path / "store"))
    inputs = resolve_inputs(
        spec_of(tmp_path, tiny_gpt2, {"a": T5, "b": {**T5, "span": 1}}, ["spv"])
    )
    (plan,) = plan_audit(inputs, store)
    for stage in plan.made_first:
        answer(store, stage.questions[0])
    (again,) = plan_audit(inputs, store)
    tables = list(stored_neighbors(again.stages, store))
    numbers = {n for table in tables for n in table["neighbor"].to_pylist()}
    assert numbers == {1, 2, PER_KIND + 1, PER_KIND + 2}


@pytest.mark.long
def test_scores_are_those_of_the_same_neighbors_without_a_name(tmp_path, tiny_gpt2):
    def scores(folder, neighbors, attacks, store):
        spec = spec_of(tmp_path, tiny_gpt2, neighbors, attacks, store=str(tmp_path / store),
                       output=str(tmp_path / folder))  # fmt: skip
        result = run_audit(spec, Console(file=io.StringIO()))
        run = StoredRun.open(str(tmp_path / folder))
        return result, {a: run.scores("one", a)["score"].to_pylist() for a in run.attacks}

    both, found = scores("both", BOTH, ["spv", "neighbor"], "fresh")
    assert list(found) == ["spv@base+t5", "spv@base+words", "neighbor+t5", "neighbor+words"]
    assert {name: q.made for name, q in both.neighbors_by_name.items()} == {"t5": 12, "words": 18}
    assert both.neighbors == both.neighbors_by_name["t5"]
    for name, section in BOTH.items():
        alone, plain = scores(name, section, ["spv", "neighbor"], "fresh")
        assert sum(stage.asked for stage in alone.stages) == 0, "the two share a store"
        assert found[f"spv@base+{name}"] == plain["spv@base"]
        assert found[f"neighbor+{name}"] == plain["neighbor"]
        assert alone.neighbors_by_name == {}
    assert found["neighbor+t5"] != found["neighbor+words"]
    assert (tmp_path / "both" / "report.html").read_text().count(
        '<h3>Neighbors <span class="name">'
    ) == 2
    costs = {cost.attack: cost.of_target for cost in both.costs}
    assert (costs["neighbor+t5"], costs["neighbor+words"]) == (3, 4)


def test_a_key_of_named_neighbors_can_be_swept(tmp_path, tiny_gpt2):
    spec = spec_of(tmp_path, tiny_gpt2, BOTH, ["spv"])
    swept = with_values(spec, {"neighbors.words.share": 0.5, "neighbors.t5.count": 1})
    assert (swept.neighbors.by_name["words"].share, swept.neighbors.by_name["t5"].count) == (0.5, 1)
    with pytest.raises(InputError, match=r"no such neighbors; did you mean 'words'\?"):
        with_values(spec, {"neighbors.word.share": 0.5})
    with pytest.raises(InputError, match="did you mean 'share'"):
        with_values(spec, {"neighbors.words.shares": 0.5})


def test_an_audit_that_is_written_out_is_read_as_the_same(tmp_path, tiny_gpt2):
    spec = spec_of(tmp_path, tiny_gpt2, BOTH, ["spv"])
    assert AuditSpec.model_validate(spec.model_dump(mode="json")).neighbors == spec.neighbors


def test_two_names_for_one_kind_of_neighbors_are_refused(tmp_path, tiny_gpt2):
    store = EvidenceStore(str(tmp_path / "store"))
    twice = {"few": T5, "many": {**T5, "count": 5}}
    inputs = resolve_inputs(spec_of(tmp_path, tiny_gpt2, twice, ["spv"]))
    with pytest.raises(InputError, match=r"neighbors.many: they are those of neighbors.few"):
        plan_audit(inputs, store)


def test_references_of_other_prompts_are_compared_by_their_names(tmp_path, tiny_gpt2):
    made = {
        "kind": "self_prompt", "texts": 4, "prompt_tokens": 4, "max_tokens": 12,
        "fine_tune": {"epochs": 1, "batch_size": 2, "max_tokens": 16},
    }  # fmt: skip
    texts = passages(12)[9:]
    prompts = [write_jsonl(tmp_path / f"{n}.jsonl", texts[n:]) for n in range(2)]
    references = {
        "base": {"model": str(tiny_gpt2), "max_tokens": 64},
        "letters": {**made, "prompts": prompts[0]},
        "reviews": {**made, "prompts": prompts[1]},
    }
    spec = audit(tmp_path, tiny_gpt2, PARAPHRASER, neighbors=BOTH, references=references,
                 attacks=["spv@letters+t5", "spv@reviews+t5", "difference"])  # fmt: skip
    inputs = resolve_inputs(spec)
    assert [named.label for named in inputs.attacks] == [
        "spv@letters+t5", "spv@reviews+t5",
        "difference@base", "difference@letters", "difference@reviews",
    ]  # fmt: skip
    (plan,) = plan_audit(inputs, EvidenceStore(str(tmp_path / "store")))
    keys = {p.reference: p.recipe.key for p in plan.preparations}
    assert keys["letters"] != keys["reviews"]
    assert [stage.name for stage in plan.made_first] == ["neighbors:t5"], "words are not asked for"


def test_gpus_are_for_neighbors_that_a_model_makes(tmp_path, tiny_gpt2):
    resources = {"engine": "ray", "paraphraser": {"gpus": 1, "labels": {"raymia/pool": "p"}}}
    spec = spec_of(tmp_path, tiny_gpt2, BOTH, ["spv"])
    spec = spec.model_copy(update={"resources": ResourcesSpec(**resources)})
    (plan,) = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    pools = {stage.name: stage.pool for stage in plan.stages if stage.role == "neighbors"}
    given = spec.resources.paraphraser
    assert pools == {"neighbors:t5": given, "neighbors:words": PoolSpec(labels=given.labels)}
