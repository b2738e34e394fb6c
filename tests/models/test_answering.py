"""What a target is given so that it answers, and what becomes of its answer."""

from __future__ import annotations

import json

import pytest
from chat_templates import CHATML, TRIMMED_AND_MARKED, chat
from tiny_models import BASE
from transformers import AutoTokenizer

from raymia.models.causal.answering import Answering, shared_start
from raymia.models.causal.limits import RenderingError
from raymia.models.causal.training import Training


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def answering(tokenizer):
    return Answering(tokenizer, Training("chat", "assistant", template=CHATML))


def test_a_conversation_is_asked_up_to_its_last_answer(answering, tokenizer):
    payload = json.dumps({"messages": chat("Hi", "Yes?", "A bird?", "A heron.")})
    prompt = tokenizer.decode(answering.prompt(payload))
    assert prompt.endswith("A bird?<|im_end|>\n<|im_start|>assistant\n")
    assert "Yes?" in prompt


def test_a_conversation_that_ends_with_a_question_is_asked_as_it_stands(answering, tokenizer):
    payload = json.dumps({"messages": chat("Hi", "Yes?", "A bird?")})
    assert "A bird?" in tokenizer.decode(answering.prompt(payload))
    written = json.loads(answering.answered(payload, tokenizer("A crane.")["input_ids"]))
    assert written["messages"] == chat("Hi", "Yes?", "A bird?", "A crane.")


def test_an_answer_ends_where_the_template_ends_one(answering, tokenizer):
    payload = json.dumps({"messages": chat("A bird?", "A heron.")})
    written = tokenizer("A crane.<|im_end|>\n<|im_start|>user\nMore")["input_ids"]
    record = json.loads(answering.answered(payload, written))
    assert record["messages"] == chat("A bird?", "A crane.")
    assert answering.answered(payload, tokenizer(" <|im_end|>")["input_ids"]) is None


def test_a_target_that_writes_the_question_is_given_the_template_up_to_it(answering, tokenizer):
    assert tokenizer.decode(answering.user_turn_ids()) == "<|im_start|>user\n"
    record = answering.asking(tokenizer("Which bird?<|im_end|>\n<|im")["input_ids"])
    assert json.loads(record)["messages"][0] == {"role": "user", "content": "Which bird?"}
    assert answering.asking(tokenizer("<|im_end|>")["input_ids"]) is None


def test_a_completion_keeps_its_prompt_and_tokens_keep_theirs(tokenizer):
    plain = Answering(tokenizer, Training("completion", "completion", eos=True))
    payload = json.dumps({"prompt": "A bird: ", "completion": "heron"})
    ids = tokenizer("crane")["input_ids"]
    assert json.loads(plain.answered(payload, ids)) == {"prompt": "A bird: ", "completion": "crane"}
    of_tokens = Answering(tokenizer, Training("tokens", "labels"))
    payload = json.dumps({"input_ids": [5, 6, 7], "labels": [-100, -100, 7]})
    assert of_tokens.prompt(payload) == [5, 6]
    assert json.loads(of_tokens.answered(payload, [9, 8])) == {
        "input_ids": [5, 6, 9, 8], "labels": [-100, -100, 9, 8],
    }  # fmt: skip


def test_of_several_turns_of_tokens_the_last_answer_is_written_anew(tokenizer):
    of_tokens = Answering(tokenizer, Training("tokens", "labels"))
    payload = json.dumps(
        {"input_ids": [5, 6, 7, 8, 9, 4, 3], "labels": [-100, 6, 7, -100, -100, 4, 3]}
    )
    assert of_tokens.prompt(payload) == [5, 6, 7, 8, 9]
    assert json.loads(of_tokens.answered(payload, [1])) == {
        "input_ids": [5, 6, 7, 8, 9, 1], "labels": [-100] * 5 + [1],
    }  # fmt: skip


def test_tokens_that_end_a_turn_end_what_is_written(tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    training = Training("chat", "assistant", template=TRIMMED_AND_MARKED)
    assert Answering(tokenizer, training).ends == {tokenizer.convert_tokens_to_ids("<|eot|>")}
    assert Answering(tokenizer, Training("completion", "completion")).ends == set()


def test_a_preference_has_no_one_answer(tokenizer):
    pair = json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"})
    with pytest.raises(RenderingError, match="no one answer"):
        Answering(tokenizer, Training("preference", "completion")).prompt(pair)


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 2), ([[5], [6]], 0), ([[7, 8]], 2)],
)
def test_how_many_tokens_all_prompts_begin_with(prompts, shared):
    assert shared_start(prompts) == shared
