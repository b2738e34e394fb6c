"""Texts that begin alike: what they share is run once, and nothing is answered otherwise."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from chat_templates import CHATML, chat
from tiny_models import BASE, checkpoint, passages, save_adapter, save_tiny

from raymia.models.causal import beginnings
from raymia.models.causal.beginnings import answer_alike
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.training import Training

WORDS = [text.split()[:30] for text in passages(3)]


def load(folder, batch_tokens=1_024, **settings):
    return load_causal_lm(checkpoint(folder, **settings), batch_tokens=batch_tokens)


def neighbors(count=5):
    """Texts with a word changed, and which each was made of."""
    made = [
        (" ".join([*words[: 8 + 4 * n], "sea", *words[9 + 4 * n :]]), number)
        for n in range(count)
        for number, words in enumerate(WORDS)
    ]
    return [text for text, _ in made], [number for _, number in made]


def assert_same(answers, others, tolerance=1e-5):
    for answer, other in zip(answers, others, strict=True):
        assert (answer.error, answer.truncated) == (other.error, other.truncated)
        np.testing.assert_array_equal(answer.token_ids, other.token_ids)
        np.testing.assert_allclose(answer.log_prob, other.log_prob, rtol=0, atol=tolerance)


@contextmanager
def counted(model):
    """The tokens that go into the model, padding too."""
    sizes: list[int] = []

    def count(_, __, given):
        sizes.append(given["input_ids"].numel())

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {}), ("llama", {}), ("gptj", {}), ("falcon", {}), ("falcon-alibi", {}),
        ("gemma2", {"sliding_window": 7}),
    ],
)  # fmt: skip
def test_answers_are_those_of_each_text_alone_and_fewer_tokens_are_run(tmp_path, kind, settings):
    model = load(save_tiny(tmp_path / kind, kind, **settings))
    texts, groups = neighbors()
    answer_alike(model, texts, groups)  # the model is tried once
    with counted(model) as plain:
        expected = model.answer(texts, moments=False)
    with counted(model) as shared:
        found = answer_alike(model, texts, groups)
    assert_same(found, expected)
    assert sum(shared) < 0.8 * sum(plain)


def test_what_is_odd_is_answered_as_ever(base):
    words = " ".join(WORDS[0])
    texts = [words, words, " ".join(WORDS[0][:20]), "a", "", words + " on", "a b", " ".join(
        ["very"] * 400)]  # fmt: skip
    found = answer_alike(base, texts, [0] * len(texts))
    assert_same(found, base.answer(texts, moments=False))
    assert found[-1].truncated
    assert answer_alike(base, [], []) == []


def test_texts_in_windows_are_answered_as_ever(tmp_path):
    model = load(save_tiny(tmp_path / "m"), max_tokens=32, long_texts="windows")
    texts, groups = neighbors()
    texts += [" ".join([*WORDS[0], *WORDS[1], *WORDS[2]]), "short"]
    groups += [0, 0]
    assert_same(answer_alike(model, texts, groups), model.answer(texts, moments=False))


def test_the_prompt_of_answers_to_it_is_run_once():
    training = Training("chat", "assistant", template=CHATML)
    model = load(BASE, training=training)
    question = " ".join(WORDS[0] + WORDS[1][:20])
    texts = [
        json.dumps({"messages": chat(question, f"It is {n} of them, or so he said.")})
        for n in ("one", "two", "three", "four", "five")
    ]
    expected = model.answer(texts, moments=False)
    answer_alike(model, texts, [0] * 5)
    with counted(model) as shared:
        found = answer_alike(model, texts, [0] * 5)
    assert_same(found, expected)
    assert all(0 < len(answer.log_prob) < 40 for answer in found)
    tokens = [len(rendered.ids) for rendered in model.reader.read(texts)]
    assert sum(shared) < 0.5 * sum(tokens)


def test_a_model_that_keeps_nothing_is_asked_as_ever(tmp_path):
    folder = save_tiny(tmp_path / "base")
    prefix = save_adapter(tmp_path / "prefix", folder, method="PrefixTuning", num_virtual_tokens=3)
    texts, groups = neighbors(2)
    model = load(folder, adapter=str(prefix))
    with counted(model) as tokens:
        found = answer_alike(model, texts, groups)
    assert_same(found, model.answer(texts, moments=False))
    assert sum(tokens) >= sum(len(answer.token_ids) + 1 for answer in found)


def test_a_model_that_takes_no_positions_is_found_out(tmp_path, monkeypatch):
    model = load(save_tiny(tmp_path / "gpt2"))
    whole = model.model.forward
    model.packs = False
    model.head.takes -= {"position_ids"}  # so it takes what follows for the text's beginning

    def lost(*args, **given):
        return whole(*args, **{**given, "position_ids": None})

    monkeypatch.setattr(model.model, "forward", lost)
    texts, groups = neighbors(2)
    tried = beginnings._tried(model)
    assert_same(answer_alike(model, texts, groups), model.answer(texts, moments=False))
    assert not tried


def test_a_lack_of_memory_makes_batches_smaller(tmp_path, monkeypatch):
    model = load(save_tiny(tmp_path / "llama", "llama"))
    texts, groups = neighbors()
    expected = answer_alike(model, texts, groups)
    whole = model.head.hidden

    def scarce(mask, **given):
        if given["input_ids"].numel() > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return whole(mask, **given)

    monkeypatch.setattr(model.head, "hidden", scarce)
    assert_same(answer_alike(model, texts, groups), expected)


def test_an_adapter_that_tokens_invoke_is_on_in_each_text(tmp_path):
    """It looks for them in all that it is given at once, and so not in what is kept."""
    base = save_tiny(tmp_path / "base", "llama")
    settings = {"target_modules": ["q_proj", "v_proj"], "alora_invocation_tokens": [259]}
    model = load(base, adapter=str(save_adapter(tmp_path / "adapter", base, **settings)))
    invokes = model.tokenizer.decode([259])
    texts, groups = neighbors()
    invoked = [f"{text[:20]}{invokes}{text[20:]}" for text in texts]
    assert all(259 in ids for ids in model.encode(invoked))
    expected = model.answer(invoked, moments=False)
    assert_same(answer_alike(model, invoked, groups), expected)
    plain = load(base).answer(invoked, moments=False)
    assert max(
        np.abs(one.log_prob - other.log_prob).max()
        for one, other in zip(expected, plain, strict=True)
    ) > 0.01  # fmt: skip
