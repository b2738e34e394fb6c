"""Models that read a long text with other rotary frequencies than a short one (LongRoPE, as in
Phi-3 and Phi-4): a text is answered as it is alone, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import checkpoint, passages, plain_answer, save_adapter, save_tiny

from raymia.models.causal.beginnings import answer_alike
from raymia.models.causal.conditional import answer_after, prefix_tokens
from raymia.models.causal.facts import CausalFacts
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.generation import continue_tokens
from raymia.models.causal.perturbed import NoiseRequest, answer_perturbed
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.spec import ModelSpec

CHANGE = 40
"""Tokens beyond which the frequencies are others."""
WORDS = passages(6)
MIXED = [" ".join(t.split()[: 12 if n % 2 else 30]) for n, t in enumerate(WORDS)]


def save(folder, context=128):
    rope = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 3.2, "short_factor": [1.0] * 8,
        "long_factor": [2.0 + n for n in range(8)], "original_max_position_embeddings": CHANGE,
    }  # fmt: skip
    return save_tiny(folder, "llama", rope_parameters=rope, max_position_embeddings=context)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("longrope"))


@pytest.fixture(scope="module")
def model(folder):
    return load_causal_lm(checkpoint(folder), batch_tokens=4_096)


def assert_same(answers, alone):
    for answer, other in zip(answers, alone, strict=True):
        np.testing.assert_allclose(answer.log_prob, other.log_prob, rtol=0, atol=1e-5)


def test_short_text_beside_a_long_one_is_answered_as_alone(model):
    lengths = [len(ids) for ids in model.encode(MIXED)]
    assert min(lengths) < CHANGE < max(lengths)
    alone = [plain_answer(model.model, model.tokenizer, text) for text in MIXED]
    assert_same(model.answer(MIXED, moments=False), alone)


def test_noise_on_a_text_beside_a_long_one_says_the_same(model):
    asked = [NoiseRequest(text, number, 0.1) for number, text in enumerate(MIXED)]
    assert_same(answer_perturbed(model, asked), [answer_perturbed(model, [r])[0] for r in asked])


@pytest.mark.parametrize("words", [6, 40])
def test_text_after_a_prefix_is_answered_as_the_whole_of_both(model, words):
    prefix = prefix_tokens(model, [" ".join(passages(1, 9)[0].split()[:words])])
    for text, answer in zip(MIXED, answer_after(model, prefix, MIXED), strict=True):
        whole = model.tokenizer.decode(prefix + model.encode([text])[0])
        ids = [*prefix, *model.encode([text])[0]]
        assert model.encode([whole])[0] == ids
        expected = plain_answer(model.model, model.tokenizer, whole).log_prob
        np.testing.assert_allclose(answer.log_prob, expected[len(prefix) - 1 :], atol=1e-5)


def test_texts_that_begin_alike_are_answered_each_as_alone(model):
    beginning = MIXED[1].split()
    texts = [
        " ".join([*beginning, *passages(1, 7 + n)[0].split()[: 6 * n]])
        for n in range(6)
    ]  # fmt: skip
    alone = [plain_answer(model.model, model.tokenizer, text) for text in texts]
    assert_same(answer_alike(model, texts, [0] * len(texts)), alone)


def test_what_follows_a_short_prompt_beside_a_long_one_is_what_follows_it_alone(model):
    prompts = [ids[:30] for ids in model.encode(MIXED[:3])]

    def written(some):
        keys = [prompts.index(prompt) for prompt in some]
        return continue_tokens(
            model, some, keys, whole=CHANGE + 8, temperature=1.0, top_k=None, budget=4_096
        )

    assert written(prompts) == [written([prompt])[0] for prompt in prompts]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_padding_takes_no_position_that_a_model_lacks(tmp_path, kind):
    model = load_causal_lm(checkpoint(save_tiny(tmp_path, kind)), batch_tokens=4_096)
    words = " ".join(WORDS).split()
    texts = [" ".join([*words[:n], "sea", *words[n:end]]) for n, end in ((2, 65), (50, 53))]
    texts.append(" ".join(words[:65]))
    assert 90 < max(len(ids) for ids in model.encode(texts)) <= 128
    seen = []
    model.model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given.get("position_ids")), with_kwargs=True
    )
    alone = [plain_answer(model.model, model.tokenizer, text) for text in texts]
    assert_same(answer_alike(model, texts, [0, 0, 0]), alone)
    assert max(int(positions.max()) for positions in seen if positions is not None) < 128


@pytest.mark.parametrize(("context", "is_another"), [(128, True), (CHANGE, False)])
def test_answers_from_when_longer_texts_stood_beside_are_not_taken(tmp_path, context, is_another):
    save(tmp_path, context)
    spec = ModelSpec(model=str(tmp_path))
    now = resolve_causal_lm(spec, "targets[0].model", on_gpu=False)
    assert now.facts.frequencies_change == CHANGE
    before = CausalFacts(**{**vars(now.facts), "frequencies_change": None})
    then = type(now)(**{**vars(now), "facts": before}).with_fingerprint()
    assert (then.fingerprint != now.fingerprint) == is_another


def test_what_an_adapter_puts_before_a_text_counts(tmp_path, folder):
    adapter = save_adapter(tmp_path / "p", folder, method="PrefixTuning", num_virtual_tokens=5)
    model = load_causal_lm(checkpoint(folder, adapter=str(adapter)), batch_tokens=4_096)
    assert model.apart == CHANGE - 5
