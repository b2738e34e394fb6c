"""Where the turns of a conversation begin, for who reads it in the report."""

from __future__ import annotations

import json

import pytest
from chat_templates import CHATML, MARKED, NOT_BY_PREFIXES, RAISES, chat
from tiny_models import BASE
from transformers import AutoTokenizer

from raymia.modalities.texts.pieces import pieces_of
from raymia.models.causal.training import Training

TURNS = chat("What is a heron?", "A bird that wades.", "And a crane?", "Another, taller bird.")
ROLES = ["user", "assistant", "user", "assistant"]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def shown(tokenizer, training, **content):
    pieces = pieces_of(tokenizer, training, json.dumps(content))
    turns: list[tuple[str, str]] = []
    for piece in pieces:
        if piece.turn is not None:
            turns.append((piece.turn, ""))
        turns[-1] = (turns[-1][0], turns[-1][1] + piece.text)
    return turns


@pytest.mark.parametrize("template", [CHATML, MARKED])
@pytest.mark.parametrize("settings", [
    {}, {"max_length": 60}, {"max_length": 30, "truncate": "start"}, {"loss_on": "all"},
])  # fmt: skip
def test_every_turn_is_named_where_its_text_begins(tokenizer, template, settings):
    training = Training("chat", **{"loss_on": "assistant", "template": template, **settings})
    turns = shown(tokenizer, training, messages=TURNS)
    assert [role for role, _ in turns] == ROLES
    for (role, text), message in zip(turns, TURNS, strict=True):
        assert text == f"<|im_start|>{role}\n{message['content']}<|im_end|>\n"


def test_messages_of_other_formats_have_turns_and_texts_have_none(tokenizer):
    training = Training("completion", "completion", template=CHATML)
    turns = shown(tokenizer, training, prompt=TURNS[:1], completion=TURNS[1:2])
    assert [role for role, _ in turns] == ROLES[:2]
    training = Training("preference", "completion", template=CHATML, side="rejected")
    turns = shown(tokenizer, training, chosen=TURNS[:2], rejected=[TURNS[0], TURNS[3]])
    assert [role for role, _ in turns] == ROLES[:2]
    assert "taller bird" in turns[1][1]
    plain = Training("completion", "completion")
    pieces = pieces_of(tokenizer, plain, json.dumps({"prompt": "What? ", "completion": "That."}))
    assert {piece.turn for piece in pieces} == {None}


def test_a_turn_that_cannot_be_told_has_no_name(tokenizer):
    training = Training("chat", "all", template=NOT_BY_PREFIXES)
    turns = shown(tokenizer, training, messages=TURNS)
    assert [role for role, _ in turns] == ["user", "assistant", "assistant"]
    training = Training("chat", "all", template=RAISES)
    assert pieces_of(tokenizer, training, json.dumps({"messages": TURNS})) == []
