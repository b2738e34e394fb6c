"""Guessers of an audit whose targets were trained on different parts of the same records."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from small_audit import BASE, reweigh
from small_chat_audit import write_chat_audit

from raymia.evidence.store import EvidenceStore
from raymia.inputs.compatibility import identical_models
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.models.tokenizers import tokenizer_of
from raymia.plan.planning import plan_audit
from raymia.questions.text import TOKEN_SCHEMA
from raymia.results.wording import overlap_lines
from raymia.scoring.blind import ask_blind
from raymia.shift.check import KnownRecords, _same_texts
from raymia.spec.file import load_spec

KIND = 26
ALL, ANSWERS = "all tokens", "the assistant's turns alone"


def with_one_answer(text):
    """A question of its own, and the answer of all others."""
    turns = [
        {"role": "user", "content": text[: 20 + len(text) % 9]},
        {"role": "assistant", "content": "the same answer of many words " * 3},
    ]
    return {"messages": turns}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """An audit of two targets, the first of which was trained on everything; `same` is the second,
    and each model said something else of what each target reads."""
    folder = tmp_path_factory.mktemp("otherwise")
    tuned, other = folder / "tuned", folder / "other"
    for place, factor in ((tuned, 0.98), (other, 0.97)):
        place.mkdir()
        reweigh(BASE, place, lambda tensor, factor=factor: tensor * factor)
    template = {"template": "template.jinja"}
    file = write_chat_audit(
        folder,
        make=with_one_answer,
        count=KIND,
        training={**template, "loss_on": "all"},
        targets=[
            {"name": "one", "model": str(BASE)},
            {"name": "two", "model": str(tuned),
             "training": {**template, "loss_on": "assistant"}},
        ],
        shift={"error_rate": 0.9},
        references={"base": {"model": str(other)}, "same": {"model": str(tuned)}},
        attacks=["loss", "difference@base", "difference@same"],
    )  # fmt: skip
    spec = load_spec(file)
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    draws = np.random.default_rng(0)
    said = {}
    for plan in plan_audit(inputs, store):
        for stage in plan.stages:
            for planned in stage.questions:
                found = {i: float(draws.normal() - 8) for i in planned.missing.by_record()}
                rows = [
                    {"record_id": record, "neighbor": 0, "truncated": False, "token_ids": [1],
                     "log_prob": [value], "mean_log_prob": [-3.0], "std_log_prob": [1.0],
                     "is_top1": [False]}
                    for record, value in found.items()
                ]  # fmt: skip
                if rows:
                    store.commit(planned.key, pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA))
                    said[stage.name] = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raymia.shift.check.LABELINGS", 30)
        check = ask_blind(inputs, store, plan_audit(inputs, store)).check
    return inputs, said, check


def area(inputs, values):
    """The AUC of some values, turned to the side on which it is larger."""
    members = np.array(inputs.records.table["is_member"].to_pylist())
    pairs = values[members][:, None] - values[~members][None]
    found = float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    return max(found, 1 - found)


def test_guessers_look_at_what_each_target_is_scored_on(checked):
    inputs, _, check = checked
    found = {guess.name: guess for guess in check.guesses}
    kinds = ("text", "markers", "length", "zlib")
    assert {*kinds, *(f"{kind}:{ALL}" for kind in kinds), "prompt"} < {*found}
    texts = {
        choice: reading.for_guessers(inputs.records.table["payload"].to_pylist())[0]
        for choice, reading in inputs.modality.readings().items()
    }
    for name, choice in (("length", ANSWERS), (f"length:{ALL}", ALL)):
        lengths = np.array([*map(len, texts[choice])], float)
        value = found[name].auc.value
        assert max(value, 1 - value) == pytest.approx(area(inputs, lengths))
    assert found[f"length:{ALL}"].title == f"the length of the text of {ALL}"


def test_copies_in_what_one_target_is_scored_on_are_copies(checked):
    """Their questions differ, which only the first target was trained on."""
    *_, check = checked
    assert (check.copies.members, check.copies.non_members) == (KIND, KIND)
    assert check.near_duplicates.non_members == KIND, "each has the answer of a member"
    assert check.near_duplicates.pairs[0].similarity == 1
    assert check.same_text == KIND
    assert f"{KIND} non-members scored on the very text" in " ".join(overlap_lines(check))


def test_a_member_and_others_with_one_short_answer_are_found():
    texts = ["Yes.", "No.", "Yes.", "Yes, it is.", " "]
    is_member = np.array([True, True, False, False, False])
    ids = [*"abcde"]
    assert _same_texts(KnownRecords(ids, is_member, ids, texts, None, {})) == 1


def test_a_reference_guesses_as_it_reads_for_each_target(checked):
    inputs, said, check = checked
    found = {guess.name: guess.auc.value for guess in check.guesses}
    for name, stage in (
        ("loss@base", "reference:base"),
        ("loss@base, read as for two", "reference:base:two"),
    ):
        values = np.array([said[stage][record] for record in inputs.records.ids])
        assert max(found[name], 1 - found[name]) == pytest.approx(area(inputs, values))


def test_a_reference_that_is_a_later_target_is_no_guesser_and_is_named(checked):
    inputs, _, check = checked
    assert not [guess.name for guess in check.guesses if "same" in guess.name]
    (line,) = identical_models(inputs)
    assert line.startswith("reference 'same' is the same model as target 'two'")


def test_targets_of_plain_texts_are_scored_alike_whatever_is_said_of_their_training(tmp_path):
    targets = [
        {"name": "one", "model": str(BASE)},
        {"name": "two", "model": str(BASE), "training": {"max_length": 16}},
    ]
    file = write_chat_audit(
        tmp_path,
        make=lambda text: {"text": text},
        training=None,
        targets=targets,
        neighbors={"kind": "substitute", "count": 2},
    )
    assert list(resolve_inputs(load_spec(file)).modality.readings()) == [""]


def test_guessers_see_no_words_that_were_cut(tmp_path):
    training = {"template": "template.jinja", "loss_on": "assistant", "max_length": 40}
    file = write_chat_audit(tmp_path, count=2, words=60, training=training)
    inputs = resolve_inputs(load_spec(file))
    payloads = inputs.records.table["payload"].to_pylist()
    (target,) = inputs.targets.values()
    reader = TrainedReader(tokenizer_of(target), target.training)
    seen = inputs.modality.for_guessers(payloads)[0]
    for text, payload, rendered in zip(seen, payloads, reader.read(payloads), strict=True):
        assert rendered.truncated
        assert text == reader.tokenizer.decode(np.array(rendered.ids)[rendered.scored])
        answer = json.loads(payload)["messages"][1]["content"]
        assert answer.startswith(text)
        assert len(text) < len(answer)
    numbers = replace(inputs.modality, training=Training("tokens", "all", max_length=2))
    assert numbers.text('{"input_ids":[5,6,7]}') == "5 6"
