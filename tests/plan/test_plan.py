"""What is asked is what is needed less what is stored."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from chat_templates import CHATML, chat
from rich.console import Console
from small_inputs import answer, audit, write_jsonl
from tiny_models import BASE, PARAPHRASER, checkpoint, passages

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.modalities.texts.tokens import TokenCounts, count_tokens
from raymia.models.causal.model import CausalLM
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.plan.estimate import estimate
from raymia.plan.planning import plan_audit
from raymia.plan.stages import stored_neighbors
from raymia.report.plan_table import plan_table
from raymia.util.errors import InputError

RECORDS, NEIGHBORS = 6, 2


@pytest.fixture(scope="module")
def second(tmp_path_factory, tiny_gpt2):
    """Another checkpoint of the same architecture."""
    folder = tmp_path_factory.mktemp("models") / "second"
    shutil.copytree(tiny_gpt2, folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def store(folder):
    return EvidenceStore(str(folder / "store"))


@pytest.fixture
def inputs(folder, tiny_gpt2):
    def resolved(**changes):
        changes = {
            "references": {"base": {"model": str(tiny_gpt2), "max_tokens": 64}},
            "attacks": ["loss", "neighbor", "spv"],
            **changes,
        }
        return resolve_inputs(audit(folder, tiny_gpt2, PARAPHRASER, **changes))

    return resolved


def asked(plan):
    """How many questions each stage has, by stage and kind."""
    return {(s.name, p.key.kind): p.to_ask for s in plan.stages for p in s.questions}


def neighbors_in_store(plan, store):
    """Payloads of the stored neighbors that are still to be asked about; each comes once."""
    ids = next((p.missing.ids for s in plan.stages for p in s.questions if p.missing), [])
    rows = [row for table in stored_neighbors(plan.stages, store) for row in table.to_pylist()]
    found = {(str(ids[row["row"]]), row["neighbor"]): row["payload"] for row in rows}
    assert len(found) == len(rows)
    return found


def answer_all(store, plan):
    for stage in plan.stages:
        for planned in stage.questions:
            answer(store, planned)


NOTHING_STORED = {
    ("neighbors", "neighbors.mask_fill"): 12,
    ("target:one", "text.tokens"): 6,
    ("target:one", "text.neighbors"): 12,
    ("reference:base", "text.tokens"): 6,
    ("reference:base", "text.neighbors"): 12,
}


def test_with_an_empty_store_everything_is_asked(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    assert asked(plan) == NOTHING_STORED
    assert plan.to_ask == sum(NOTHING_STORED.values())
    assert [stage.stored for stage in plan.stages] == [0, 0, 0]


def test_with_everything_stored_nothing_is_asked(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    (again,) = plan_audit(inputs(), store)
    assert again.to_ask == 0
    assert [stage.stored for stage in again.stages] == [12, 18, 18]
    assert neighbors_in_store(again, store) == {}


def test_missing_is_needed_minus_stored(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    ids = inputs().records.table["record_id"].to_pylist()
    answer(store, plan.target.questions[0], records=ids[:4])
    (again,) = plan_audit(inputs(), store)
    assert again.target.questions[0].missing.by_record() == {ids[4]: [0], ids[5]: [0]}
    assert again.target.questions[0].stored == 4
    assert again.target.questions[1].to_ask == 12, "the other questions are not answered by these"


def test_stage_with_everything_stored_has_nothing_to_ask(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    for planned in plan.references["base"].questions:
        answer(store, planned)
    (again,) = plan_audit(inputs(), store)
    assert again.references["base"].to_ask == 0
    assert again.target.to_ask == 18


def test_neighbors_are_made_only_where_a_model_is_still_to_be_asked(inputs, store):
    """They are paraphrases by a slow model: none is made to be thrown away."""
    (plan,) = plan_audit(inputs(), store)
    for stage in (plan.target, plan.references["base"]):
        for planned in stage.questions:
            answer(store, planned)
    (again,) = plan_audit(inputs(), store)
    assert again.neighbors.to_ask == 0, "the neighbors are not stored, but nobody needs them"
    assert again.to_ask == 0


def test_more_records_ask_only_for_the_new_ones(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    texts = passages(30)[20:22]
    spec = inputs().spec
    with Path(spec.records.members[0]).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": t}) + "\n" for t in texts)
    more = resolve_inputs(spec)
    (again,) = plan_audit(more, store)
    assert set(asked(again).values()) == {2, 4}
    ids = more.records.table["record_id"].to_pylist()
    new = {i for i in ids if i not in inputs_ids(plan)}
    assert set(again.target.questions[0].missing.by_record()) == new


def inputs_ids(plan):
    return set(plan.target.questions[0].missing.by_record())


def test_higher_count_asks_only_for_the_new_neighbors(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    more = inputs(neighbors={"model": str(PARAPHRASER), "count": 5})
    (again,) = plan_audit(more, store)
    assert asked(again) == {
        ("neighbors", "neighbors.mask_fill"): 18,
        ("target:one", "text.tokens"): 0,
        ("target:one", "text.neighbors"): 18,
        ("reference:base", "text.tokens"): 0,
        ("reference:base", "text.neighbors"): 18,
    }
    missing = again.target.questions[1].missing.by_record()
    assert {tuple(indices) for indices in missing.values()} == {(3, 4, 5)}


def test_lower_count_asks_for_nothing(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    (again,) = plan_audit(inputs(neighbors={"model": str(PARAPHRASER), "count": 1}), store)
    assert again.to_ask == 0


@pytest.mark.parametrize("change", [{"mask_share": 0.2}, {"top_k": 10}, {"unit": "token"}])
def test_other_neighbors_are_asked_about_anew(inputs, store, change):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    other = inputs(neighbors={"model": str(PARAPHRASER), "count": 2, **change})
    (again,) = plan_audit(other, store)
    assert again.target.questions[0].to_ask == 0, "the records' own evidence is what it was"
    assert again.target.questions[1].to_ask == again.neighbors.to_ask == 12


def test_other_kinds_of_neighbors_have_keys_and_loaders_of_their_own(inputs, tiny_gpt2):
    sections = {
        "mask_fill": {"model": str(PARAPHRASER), "count": 2},
        "infill": {"kind": "infill", "model": str(tiny_gpt2), "count": 2},
        "substitute": {"kind": "substitute", "count": 2},
    }
    keys = set()
    for kind, section in sections.items():
        found = inputs(neighbors=section)
        (plan,) = plan_audit(found, EvidenceStore("unused"))
        assert asked(plan)["neighbors", f"neighbors.{kind}"] == 12
        assert plan.neighbors.loader.checkpoint == found.modality.paraphraser
        assert (found.modality.paraphraser is None) == (kind == "substitute")
        keys.add(plan.target.questions[1].key.hash)
    assert len(keys) == 3


def test_other_seed_makes_other_neighbors_and_keeps_the_records_evidence(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    (again,) = plan_audit(inputs(seed=1), store)
    assert again.target.questions[0].to_ask == 0
    assert again.target.questions[1].to_ask == 12


def test_checkpoint_that_changed_is_asked_anew(inputs, store, second):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    (again,) = plan_audit(inputs(targets=[{"name": "one", "model": str(second)}]), store)
    assert again.target.to_ask == 18
    assert again.references["base"].to_ask == 0


def test_copy_of_a_checkpoint_under_another_path_and_name_is_not_asked_again(
    inputs, store, tiny_gpt2, tmp_path
):
    (plan,) = plan_audit(inputs(), store)
    answer_all(store, plan)
    shutil.copytree(tiny_gpt2, tmp_path / "copy")
    (again,) = plan_audit(
        inputs(targets=[{"name": "renamed", "model": str(tmp_path / "copy")}]), store
    )
    assert again.to_ask == 0


# --------------------------------------------------------------------- many targets


def test_second_target_does_not_ask_what_the_first_will_have_asked(
    inputs, store, second, tiny_gpt2
):
    both = inputs(
        targets=[{"name": "one", "model": str(tiny_gpt2)}, {"name": "two", "model": str(second)}]
    )
    first, other = plan_audit(both, store)
    assert asked(first) == NOTHING_STORED
    assert asked(other) == {
        ("neighbors", "neighbors.mask_fill"): 0,
        ("target:two", "text.tokens"): 6,
        ("target:two", "text.neighbors"): 12,
        ("reference:base", "text.tokens"): 0,
        ("reference:base", "text.neighbors"): 0,
    }
    assert (other.references["base"].stored, other.references["base"].shared) == (0, 18)


def test_reference_that_is_the_target_itself_is_asked_once(inputs, store, tiny_gpt2):
    same = inputs(references={"base": {"model": str(tiny_gpt2)}})
    (plan,) = plan_audit(same, store)
    assert plan.target.questions[0].key.hash == plan.references["base"].questions[0].key.hash


def test_the_plan_says_apart_what_is_stored_and_what_is_asked_above(inputs, store, tiny_gpt2):
    found = inputs(references={"base": {"model": str(tiny_gpt2)}})
    text = printed(found, store)
    row = next(line for line in text.splitlines() if "reference:base" in line)
    assert "asked above" in text
    assert [cell.strip() for cell in row.split("│")[3:6]] == ["0", "0", "18"]
    assert "asked above" not in printed(inputs(), store)


def test_the_plan_names_the_attacks_that_run_and_no_others(inputs, store):
    found = inputs()
    cannot = replace(found, left_out={("one", found.attacks[0].label): "it has no weights"})
    assert "set aside; attacks: neighbor, spv@base\n" in printed(cannot, store)


def printed(found, store):
    plans = plan_audit(found, store)
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(found, plans, estimate(found, plans, store)))
    return console.file.getvalue()


def test_target_alone_is_planned_without_regard_to_others(inputs, store, second, tiny_gpt2):
    both = inputs(
        targets=[{"name": "one", "model": str(tiny_gpt2)}, {"name": "two", "model": str(second)}]
    )
    (alone,) = plan_audit(both, store).without(["one"])
    assert alone.references["base"].to_ask == 18


# ---------------------------------------------------------------- what attacks need


def test_without_neighbor_attacks_no_neighbor_is_made(inputs, store):
    (plan,) = plan_audit(inputs(attacks=["loss", "difference"]), store)
    assert plan.neighbors is None
    assert asked(plan) == {("target:one", "text.tokens"): 6, ("reference:base", "text.tokens"): 6}


def test_without_reference_attacks_no_reference_is_asked(inputs, store):
    (plan,) = plan_audit(inputs(attacks=["loss", "neighbor"]), store)
    assert plan.references == {}


def test_reference_is_asked_about_neighbors_only_where_an_attack_compares_them(inputs, store):
    (plan,) = plan_audit(inputs(attacks=["neighbor", "difference"]), store)
    assert [p.key.kind for p in plan.references["base"].questions] == ["text.tokens"]
    assert [p.key.kind for p in plan.target.questions] == ["text.tokens", "text.neighbors"]


def test_stages_stand_in_the_order_a_record_passes_them(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    assert [stage.role for stage in plan.stages] == ["neighbors", "target", "reference"]


def test_same_model_in_two_roles_is_asked_once_and_about_the_population_too(inputs, folder, store):
    """One of the roles alone needs the population: two stages would ask the same question."""
    base = inputs().references["base"].path
    records = {
        "members": str(folder / "m.jsonl"),
        "non_members": str(folder / "n.jsonl"),
        "population": write_jsonl(folder / "population.jsonl", passages(14)[9:14]),
    }
    references = {"x": {"model": base}, "y": {"model": base}}
    attacks = ["loss", "difference@x", "rmia@y"]
    (plan,) = plan_audit(
        inputs(records=records, references=references, attacks=attacks, neighbors=None), store
    )
    assert [stage.to_ask for stage in plan.stages] == [RECORDS + 5, 0, 0]


def test_neighbors_key_stands_in_the_key_of_the_answers_on_them(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    made = plan.neighbors.questions[0].key.hash
    assert plan.target.questions[1].key.parts["neighbors"] == made
    assert plan.references["base"].questions[1].key.parts["neighbors"] == made


# -------------------------------------------------------------------- stored neighbors


def test_stored_neighbors_come_where_a_model_is_still_to_be_asked(inputs, store):
    (plan,) = plan_audit(inputs(), store)
    ids = list(plan.target.questions[0].missing.by_record())
    answer(store, plan.neighbors.questions[0], records=ids[:3])
    (again,) = plan_audit(inputs(), store)
    assert again.neighbors.to_ask == 6
    assert neighbors_in_store(again, store) == {
        (record, n): f"neighbor {n} of {record}" for record in ids[:3] for n in (1, 2)
    }
    answer(store, again.target.questions[1], records=ids[:1])
    answer(store, again.references["base"].questions[1], records=ids[:2])
    (third,) = plan_audit(inputs(), store)
    assert {record for record, _ in neighbors_in_store(third, store)} == {ids[1], ids[2]}


# ------------------------------------------------------------------------ self-prompt


SELF = {
    "kind": "self_prompt", "texts": 4, "prompt_tokens": 4, "max_tokens": 12,
    "fine_tune": {"epochs": 1, "batch_size": 2, "max_tokens": 16},
}  # fmt: skip


@pytest.fixture
def prompted(inputs, folder, tiny_gpt2):
    def resolved(base=tiny_gpt2, **changes):
        settings = {**SELF, "prompts": str(folder / "p.jsonl"), **changes}
        references = {"base": {"model": str(base)}, "sp": settings}
        return inputs(references=references, attacks=["difference@sp"])

    return resolved


def test_reference_to_be_made_is_a_preparation_and_is_asked_everything(prompted, store):
    (plan,) = plan_audit(prompted(), store)
    (preparation,) = plan.preparations
    assert (preparation.reference, preparation.ready) == ("sp", False)
    assert list(plan.references) == ["sp"], "the base is made from, not asked"
    assert plan.references["sp"].name == "reference:sp:one"
    assert plan.references["sp"].to_ask == 6


def test_made_reference_has_a_key_of_its_content(prompted, store, tmp_path):
    (before,) = plan_audit(prompted(), store)
    recipe = before.preparations[0].recipe
    shutil.copytree(BASE, tmp_path / "made")
    (tmp_path / "made" / "facts.json").write_text("{}")
    store.commit_prepared(recipe.key, tmp_path / "made")
    (after,) = plan_audit(prompted(), store)
    assert after.preparations[0].ready
    key = after.references["sp"].questions[0].key
    assert key != before.references["sp"].questions[0].key
    made = after.references["sp"].loader.checkpoint
    assert key.parts["model"] == made.fingerprint
    assert made.path == str(store.prepared_path(recipe.key))


def test_each_target_has_a_self_prompt_reference_of_its_own(
    inputs, store, folder, tiny_gpt2, second
):
    both = inputs(
        targets=[{"name": "one", "model": str(tiny_gpt2)}, {"name": "two", "model": str(second)}],
        references={
            "base": {"model": str(tiny_gpt2)},
            "sp": {**SELF, "prompts": str(folder / "p.jsonl")},
        },
        attacks=["difference@sp"],
    )
    first, other = plan_audit(both, store)
    assert first.preparations[0].recipe.key != other.preparations[0].recipe.key
    assert other.references["sp"].to_ask == 6


@pytest.mark.parametrize(
    "change",
    [{"texts": 5}, {"prompt_tokens": 5}, {"max_tokens": 13}, {"temperature": 0.9}, {"top_k": 5}],
)
def test_recipe_changes_with_what_changes_its_texts(prompted, store, change):
    plain, other = (
        plan_audit(i, store)[0].preparations[0].recipe for i in (prompted(), prompted(**change))
    )
    assert plain.material_key != other.material_key
    assert plain.key != other.key


def test_recipe_with_other_fine_tuning_keeps_its_texts(prompted, store, second):
    plain = plan_audit(prompted(), store)[0].preparations[0].recipe
    tuned = prompted(fine_tune={**SELF["fine_tune"], "epochs": 2})
    for other in (tuned, prompted(base=second)):
        recipe = plan_audit(other, store)[0].preparations[0].recipe
        assert plain.material_key == recipe.material_key
        assert plain.key != recipe.key


def test_recipe_changes_with_seed_prompts_and_target(prompted, store):
    recipe = plan_audit(prompted(), store)[0].preparations[0].recipe
    others = [
        replace(recipe, seed=1),
        replace(recipe, prompts=recipe.prompts[::-1]),
        replace(recipe, target=replace(recipe.target, fingerprint="other")),
    ]
    assert len({recipe.material_key, *(r.material_key for r in others)}) == 4
    assert len({recipe.key, *(r.key for r in others)}) == 4


# ------------------------------------------------------------------------------ cost


def test_tokens_per_record_are_those_the_model_is_given(inputs, base: CausalLM):
    resolved = inputs()
    texts = resolved.records.table["payload"]
    counts = [len(ids) for ids in base.encode(texts.to_pylist())]
    target = resolved.targets["one"]
    assert TokenCounts(texts).per_record(target) == pytest.approx(
        sum(min(c, 128) for c in counts) / RECORDS
    )
    cut = replace(target, max_tokens=10)
    assert TokenCounts(texts).per_record(cut) == 10


def test_the_tokens_of_a_very_long_text_are_counted_at_its_start(tiny_gpt2, monkeypatch):
    target = checkpoint(tiny_gpt2)
    whole = count_tokens(target, ["one two three four " * 500]).tokens
    monkeypatch.setattr("raymia.modalities.texts.tokens.COUNTED", 1_900)
    assert count_tokens(target, ["one two three four " * 500]).tokens == pytest.approx(
        whole, rel=0.02
    )


@pytest.mark.parametrize(("kind", "loss_on"), [("completion", "completion"), ("chat", "assistant")])
def test_of_what_models_are_trained_on_no_more_is_cut_into_tokens(monkeypatch, kind, loss_on):
    said, answer = "one two three four " * 500, "five " * 20
    pair = {"prompt": said, "completion": answer}
    payload = json.dumps(pair if kind == "completion" else {"messages": chat(said, answer)})
    target = checkpoint(BASE, training=Training(kind, loss_on, template=CHATML))
    whole = count_tokens(target, [payload]).tokens
    read, given = TrainedReader.read, []

    def spy(self, payloads):
        given.extend(map(len, payloads))
        return read(self, payloads)

    monkeypatch.setattr(TrainedReader, "read", spy)
    monkeypatch.setattr("raymia.modalities.texts.tokens.COUNTED", 1_900)
    assert count_tokens(target, [payload]).tokens == pytest.approx(whole, rel=0.05)
    assert max(given) < 2_100


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("tokenizer.json", "{}", "KeyError: 'added_tokens'"),
    ],
)
def test_a_tokenizer_or_config_that_cannot_be_loaded_is_named(
    inputs, second, tmp_path, file, content, why
):
    resolved = inputs()
    shutil.copytree(second, tmp_path / "odd")
    (tmp_path / "odd" / file).write_text(content)
    odd = replace(resolved.targets["one"], path=str(tmp_path / "odd"))
    with pytest.raises(InputError) as refused:
        TokenCounts(resolved.records.table["payload"]).per_record(odd)
    assert str(refused.value).startswith(f"{tmp_path / 'odd'}: transformers cannot load")
    assert why in str(refused.value)
