"""Answers and errors of the text probes, one row per item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import BASE, config, passages
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.evidence.store import EvidenceKey
from raymia.models.causal.model import CausalLM
from raymia.questions.base import Item, evidence_key
from raymia.questions.text import (
    NO_NEIGHBOR,
    NO_TOKENS,
    NOT_FINITE,
    SUM_SCHEMA,
    TOKEN_SCHEMA,
    NeighborQuestion,
    TokenQuestion,
)

TEXTS = passages(3)


def items(texts, neighbor=0):
    return [Item(f"r{i}", neighbor, text) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def broken():
    """A model in which one token's embedding is not a number, and that token."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config("llama")).eval()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    word = " Darcy"
    token = tokenizer(word)["input_ids"][-1]
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    return CausalLM(model, tokenizer, batch_tokens=4_096), "I saw" + tokenizer.decode([token]) + "."


def test_token_rows_hold_the_models_answers(base):
    rows = TokenQuestion().ask(base, items(TEXTS)).to_pylist()
    for row, answer in zip(rows, base.answer(TEXTS, moments=True), strict=True):
        assert row["token_ids"] == answer.token_ids.tolist()
        assert row["log_prob"] == answer.log_prob.tolist()
        assert row["mean_log_prob"] == answer.mean_log_prob.tolist()
        assert row["std_log_prob"] == answer.std_log_prob.tolist()
        assert row["is_top1"] == answer.is_top1.tolist()
        assert (row["truncated"], row["error"]) == (False, None)


def test_neighbor_rows_hold_sum_and_count(base):
    rows = NeighborQuestion(3, "key").ask(base, items(TEXTS, neighbor=2)).to_pylist()
    for row, answer in zip(rows, base.answer(TEXTS, moments=False), strict=True):
        assert row["neighbor"] == 2
        assert row["token_count"] == len(answer.log_prob)
        assert row["log_prob_sum"] == pytest.approx(answer.log_prob.astype(float).sum(), abs=1e-9)


def test_tables_have_the_declared_schema(base):
    assert TokenQuestion().ask(base, items(TEXTS)).schema == TOKEN_SCHEMA
    assert NeighborQuestion(3, "key").ask(base, items(TEXTS)).schema == SUM_SCHEMA


@pytest.mark.parametrize("text", ["", "I"])
def test_text_without_scored_tokens_is_an_error_row(base, text):
    for probe in (TokenQuestion(), NeighborQuestion(3, "key")):
        rows = probe.ask(base, items([text, TEXTS[0]])).to_pylist()
        assert [r["error"] for r in rows] == [NO_TOKENS, None]
        assert rows[0].get("log_prob") is None
        assert rows[0].get("log_prob_sum") is None


def test_answer_that_is_not_finite_is_an_error_row_and_touches_no_other(broken):
    model, poisoned = broken
    clean = [t for t in TEXTS if "Darcy" not in t][:2]
    for probe in (TokenQuestion(), NeighborQuestion(3, "key")):
        rows = probe.ask(model, items([clean[0], poisoned, clean[1]])).to_pylist()
        assert [r["error"] for r in rows] == [None, NOT_FINITE, None]
        values = rows[1].get("log_prob", rows[1].get("log_prob_sum"))
        assert values is None, "no number that is not one reaches the store"
        for row in (rows[0], rows[2]):
            assert np.isfinite(row.get("log_prob", row.get("log_prob_sum"))).all()


def test_infinite_logit_is_an_error_row(base):
    class Infinite:
        def answer(self, texts, *, moments):
            answers = base.answer(texts, moments=moments)
            answers[0].log_prob[2] = -np.inf
            return answers

    rows = TokenQuestion().ask(Infinite(), items(TEXTS[:2])).to_pylist()
    assert [r["error"] for r in rows] == [NOT_FINITE, None]


def test_neighbor_that_could_not_be_made_is_an_error_row(base):
    some = [Item("r0", 1, TEXTS[0]), Item("r0", 2, None), Item("r0", 3, TEXTS[1])]
    rows = NeighborQuestion(3, "key").ask(base, some).to_pylist()
    assert [r["error"] for r in rows] == [None, NO_NEIGHBOR, None]
    alone = NeighborQuestion(3, "key").ask(base, some[2:]).to_pylist()[0]
    assert rows[2]["log_prob_sum"] == pytest.approx(alone["log_prob_sum"], abs=1e-3)


def test_block_in_which_no_neighbor_could_be_made_is_error_rows(base):
    """A block of one-word records has no neighbor at all; that stops no run."""
    some = [Item("r0", 1, None), Item("r0", 2, None)]
    rows = NeighborQuestion(2, "key").ask(base, some).to_pylist()
    assert [r["error"] for r in rows] == [NO_NEIGHBOR] * 2


def test_cut_text_is_flagged_in_its_row(base):
    long = " ".join(passages(12))
    for probe in (TokenQuestion(), NeighborQuestion(3, "key")):
        rows = probe.ask(base, items([long, TEXTS[0]])).to_pylist()
        assert [r["truncated"] for r in rows] == [True, False]


# ---------------------------------------------------------------------------- keys


def test_key_changes_with_model_neighbors_and_version(monkeypatch):
    plain = evidence_key(NeighborQuestion(10, "n1"), "model 1")
    assert evidence_key(NeighborQuestion(10, "n1"), "model 2").hash != plain.hash
    assert evidence_key(NeighborQuestion(10, "n2"), "model 1").hash != plain.hash
    assert evidence_key(TokenQuestion(), "model 1").hash != plain.hash
    monkeypatch.setattr(NeighborQuestion, "version", 2)
    assert evidence_key(NeighborQuestion(10, "n1"), "model 1").hash != plain.hash


def test_count_of_neighbors_is_no_part_of_the_key():
    keys = [evidence_key(NeighborQuestion(count, "n"), "model") for count in (5, 10)]
    assert keys[0].hash == keys[1].hash
    assert NeighborQuestion(5, "n").indices() == range(1, 6)
    assert TokenQuestion().indices() == range(1)


def test_key_names_its_kind():
    key = evidence_key(TokenQuestion(), "model")
    assert key == EvidenceKey("text.tokens", {"model": "model", "version": TokenQuestion.version})
    assert key.folder == f"evidence/text.tokens/{key.hash}"


def test_lists_of_answers_are_null_where_there_is_an_error_or_a_server_said_nothing(base):
    class Server:
        def answer(self, texts, *, moments):
            return [
                replace(answer, mean_log_prob=None, std_log_prob=None, error=error)
                for answer, error in zip(
                    base.answer(texts, moments=moments), (None, "refused", None), strict=True
                )
            ]

    table = TokenQuestion().ask(Server(), items(TEXTS))
    table.validate(full=True)
    assert table["token_ids"].null_count == 1
    assert table["mean_log_prob"].null_count == table["std_log_prob"].null_count == 3
    assert table["log_prob"][1].as_py() is None
    assert table["log_prob"][2].as_py() == base.answer(TEXTS, moments=False)[2].log_prob.tolist()
    nothing = TokenQuestion().ask(base, [])
    assert (nothing.num_rows, nothing.schema) == (0, TOKEN_SCHEMA)
