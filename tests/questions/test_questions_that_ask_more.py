"""Probes of changed copies, prefixes, gradients and samples, held against plain transcriptions."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_models import BASE, checkpoint, passages, save_adapter, save_tiny, with_an_end
from transformers import AutoModelForCausalLM, AutoTokenizer, Lfm2Config

from raymia.models.causal import answering, generation
from raymia.models.causal.conditional import answer_after, prefix_tokens
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.perturbed import normals
from raymia.models.causal.reading import PlainReader, rest_begins
from raymia.models.causal.readings import Readings
from raymia.questions.base import Item
from raymia.questions.deeper import (
    TOO_LONG,
    TOO_LONG_WITH_PREFIX,
    TOO_SHORT,
    GradientQuestion,
    PrefixQuestion,
    SampleQuestion,
)
from raymia.questions.text import NO_TOKENS, NOT_FINITE
from raymia.questions.variants import (
    ONE_WORD,
    LowercaseQuestion,
    NoiseQuestion,
    SwapQuestion,
    swap_words,
)
from raymia.spec import NoiseSpec, SamplesSpec, SwapsSpec

TEXTS = [" ".join(text.split()[: 4 + 9 * i]) for i, text in enumerate(passages(6))]
SHOTS = tuple(" ".join(text.split()[:12]) for text in passages(9)[6:])


def items(indices, texts=TEXTS):
    return [Item(f"r{i}", n, text) for i, text in enumerate(texts) for n in indices]


PROBES = {
    "lowercase": LowercaseQuestion(),
    "prefixed": PrefixQuestion(SHOTS),
    "swaps": SwapQuestion(SwapsSpec(count=2), 0),
    "noise": NoiseQuestion(NoiseSpec(pairs=1), 0),
    "gradient": GradientQuestion(),
    "samples": SampleQuestion(SamplesSpec(count=2), 0),
}


def rows(probe, model, asked):
    table = probe.ask(model, asked)
    assert table.schema == probe.schema
    return {(row["record_id"], row["neighbor"]): row for row in table.to_pylist()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, float | list):
            np.testing.assert_allclose(value, other[name], rtol=2e-5, atol=2e-5)
        else:
            assert value == other[name]


@pytest.mark.parametrize("name", PROBES)
def test_answer_does_not_depend_on_batch_mates_or_order(name, base):
    probe = PROBES[name]
    asked = items(probe.indices())
    together = rows(probe, base, asked)
    backwards = rows(probe, base, asked[::-1])
    for item in asked[:: 3 if name == "samples" else 1]:
        key = (item.record_id, item.neighbor)
        (alone,) = rows(probe, base, [item]).values()
        assert alone["error"] is None
        assert_same(alone, together[key])
        assert_same(alone, backwards[key])


@pytest.mark.parametrize("name", PROBES)
def test_one_token_is_an_error_row_or_has_an_answer(name, base):
    probe = PROBES[name]
    reasons = {NO_TOKENS, ONE_WORD, TOO_SHORT}
    for row in rows(probe, base, items(probe.indices(), ["I"])).values():
        if name == "prefixed":
            assert row["token_count"] == 1, "after a prefix the first token has a context"
        else:
            assert row["error"] in reasons


@pytest.mark.parametrize("name", ["lowercase", "prefixed", "swaps", "noise", "gradient"])
def test_answer_that_is_not_finite_is_an_error_row(name, tmp_path):
    model = load_causal_lm(checkpoint(save_tiny(tmp_path / "m")), batch_tokens=512)
    with torch.no_grad():
        model.model.get_output_embeddings().weight[7] = float("nan")
    probe = PROBES[name]
    found = rows(probe, model, items(probe.indices(), TEXTS[1:2])).values()
    assert {row["error"] for row in found} == {NOT_FINITE}


# ---------------------------------------------------------------- changed copies


def test_lowercase_is_the_answer_on_the_lowered_text(base):
    found = rows(LowercaseQuestion(), base, items([0]))
    answers = base.answer([text.lower() for text in TEXTS], moments=False)
    for row, answer in zip(found.values(), answers, strict=True):
        assert row["log_prob_sum"] == pytest.approx(answer.log_prob.astype(float).sum(), abs=1e-5)


def test_swapped_copy_has_the_same_words_in_another_order():
    text = passages(1)[0]
    copy = swap_words(Item("r", 1, text), 0.3, 0)
    assert Counter(copy.split()) == Counter(text.split())
    assert copy.split() != text.split()
    assert copy != swap_words(Item("r", 2, text), 0.3, 0)
    assert copy == swap_words(Item("r", 1, text), 0.3, 0)
    assert copy != swap_words(Item("r", 1, text), 0.3, 1)


def test_what_is_between_words_stays_where_it_is():
    """Joined by blanks, copies would measure the line breaks and not the words."""
    text = "  one\ttwo\n\nthree   four\u00a0five\r\nsix \n"
    copy = swap_words(Item("r", 1, text), 0.5, 0)
    assert re.sub(r"\S+", "w", copy) == re.sub(r"\S+", "w", text)
    assert Counter(copy.split()) == Counter(text.split())
    assert copy != text
    assert swap_words(Item("r", 1, " \n alone\t"), 0.5, 0) is None


def test_every_pair_of_words_changes_places_equally_often():
    pairs = Counter(swap_words(Item(f"r{i}", 1, "a b c d"), 0.25, 0) for i in range(3_000))
    assert len(pairs) == 6
    statistic = sum((n - 500) ** 2 / 500 for n in pairs.values())
    assert statistic < 20.5, "chi-square with 5 degrees of freedom, p = 0.001"


def test_noise_is_gaussian_and_shared_by_longer_texts():
    noise = normals(3, 400, 64, torch.device("cpu"))
    assert abs(float(noise.mean())) < 4 / math.sqrt(noise.numel())
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(normals(3, 10, 64, torch.device("cpu")), noise[:10])
    assert not torch.equal(normals(4, 10, 64, torch.device("cpu")), noise[:10])


def test_noise_has_both_signs_and_its_size(base):
    """Embeddings are perturbed by hand and put through the whole model."""
    text, probe = TEXTS[2], NoiseQuestion(NoiseSpec(pairs=2, scale=0.3), 5)
    found = rows(probe, base, [Item("r", n, text) for n in (1, 2, 3, 4)])
    ids = torch.tensor([base.encode([text])[0]])
    table = base.model.get_input_embeddings()
    from raymia.util.draws import stream_key

    for n in (1, 2, 3, 4):
        key = stream_key(5, "embedding noise", "r", (n + 1) // 2)
        noise = normals(key, ids.shape[1], table.weight.shape[1], torch.device("cpu"))
        sign = 1 if n % 2 else -1
        with torch.inference_mode():
            perturbed = table(ids) + sign * 0.3 * table.weight.std() * noise
            logits = base.model(inputs_embeds=perturbed).logits[0, :-1]
        log_p = logits.log_softmax(-1).gather(-1, ids[0, 1:, None]).sum()
        assert found["r", n]["log_prob_sum"] == pytest.approx(float(log_p), abs=1e-3)


# ---------------------------------------------------------------------- prefixes


def conditional(model, prefix, text):
    """All tokens in one forward pass, the naive way."""
    own = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*prefix, *own]])
    with torch.inference_mode():
        log_p = model.model(ids).logits[0, :-1].float().log_softmax(-1)
    return log_p.gather(-1, ids[0, 1:, None])[len(prefix) - 1 :, 0].numpy()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "cohere", "granite", "falcon-h1"])
def test_expanded_prefix_gives_what_one_pass_gives(kind, tmp_path):
    model = load_causal_lm(checkpoint(save_tiny(tmp_path / kind, kind)), batch_tokens=2_048)
    prefix = prefix_tokens(model, SHOTS[:1])
    texts = [text[:120] for text in TEXTS]
    for text, answer in zip(texts, answer_after(model, prefix, texts), strict=True):
        np.testing.assert_allclose(answer.log_prob, conditional(model, prefix, text), atol=3e-5)


def test_adapter_with_virtual_tokens_is_run_together_with_the_prefix(tmp_path, tiny_gpt2):
    from peft import PromptTuningConfig, get_peft_model

    model = load_causal_lm(checkpoint(tiny_gpt2), batch_tokens=2_048)
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    get_peft_model(model.model, settings).save_pretrained(tmp_path / "adapter")
    adapted = load_causal_lm(
        checkpoint(tiny_gpt2, adapter=str(tmp_path / "adapter")), batch_tokens=2_048
    )
    prefix = prefix_tokens(adapted, SHOTS[:1])
    (answer,) = answer_after(adapted, prefix, [TEXTS[1]])
    own = adapted.tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = adapted.model(torch.tensor([[*prefix, *own]])).logits[0]
    log_p = logits[-len(own) - 1 : -1].log_softmax(-1)
    expected = log_p.gather(-1, torch.tensor(own)[:, None])[:, 0]
    np.testing.assert_allclose(answer.log_prob, expected.numpy(), atol=3e-5)


def test_lora_adapter_shares_the_prefix_too(tmp_path, tiny_gpt2):
    adapter = save_adapter(tmp_path / "lora", tiny_gpt2)
    model = load_causal_lm(checkpoint(tiny_gpt2, adapter=str(adapter)), batch_tokens=2_048)
    prefix = prefix_tokens(model, SHOTS[:1])
    (answer,) = answer_after(model, prefix, [TEXTS[1]])
    np.testing.assert_allclose(answer.log_prob, conditional(model, prefix, TEXTS[1]), atol=3e-5)


def test_an_adapter_that_tokens_invoke_is_on_after_a_prefix_as_in_one_pass(tmp_path):
    """It looks for them in all that it is given at once."""
    llama = save_tiny(tmp_path / "base", "llama")
    settings = {"target_modules": ["q_proj", "v_proj"], "alora_invocation_tokens": [259]}
    adapter = str(save_adapter(tmp_path / "adapter", llama, **settings))
    model = load_causal_lm(checkpoint(llama, adapter=adapter), batch_tokens=2_048)
    invokes = model.tokenizer.decode([259])
    prefix = prefix_tokens(model, [f"{SHOTS[0][:40]}{invokes}{SHOTS[0][40:80]}"])
    text = f"{TEXTS[1][:40]}{invokes}{TEXTS[1][40:80]}"
    assert 259 in prefix
    (answer,) = answer_after(model, prefix, [text])
    np.testing.assert_allclose(answer.log_prob, conditional(model, prefix, text), atol=3e-5)


def test_prefix_takes_at_most_half_of_the_context(tmp_path):
    model = load_causal_lm(checkpoint(save_tiny(tmp_path / "m")), batch_tokens=2_048)
    assert model.max_tokens == 128
    whole = prefix_tokens(model, SHOTS)
    assert 0 < len(whole) <= 64
    assert model.tokenizer.decode(whole).startswith(SHOTS[0])
    assert len(prefix_tokens(model, [passages(1)[0] * 5])) == 64
    (answer,) = answer_after(model, whole, [passages(1)[0] * 5])
    assert answer.truncated
    assert len(answer.log_prob) == 128 - len(whole)
    (row,) = rows(PrefixQuestion(SHOTS), model, items([0], [passages(1)[0] * 5])).values()
    assert row["error"] == TOO_LONG_WITH_PREFIX, "its other tokens have no answer to compare"


def test_other_shots_have_another_key():
    assert PrefixQuestion(SHOTS).key_parts() != PrefixQuestion(SHOTS[::-1]).key_parts()


# --------------------------------------------------------------------- gradients


def test_gradient_norms_are_those_of_a_plain_backward_pass(tiny_gpt2):
    model = load_causal_lm(checkpoint(tiny_gpt2), batch_tokens=512)
    (row,) = rows(GradientQuestion(), model, items([0], TEXTS[1:2])).values()
    assert not any(weight.requires_grad for weight in model.model.parameters())
    plain = load_causal_lm(checkpoint(tiny_gpt2), batch_tokens=512)
    ids = torch.tensor([plain.encode(TEXTS[1:2])[0]])
    plain.model(ids, labels=ids).loss.backward()
    gradients = [w.grad for w in plain.model.parameters() if w.grad is not None]
    assert row["l2"] == pytest.approx(
        sum(float(g.norm()) for g in gradients) / len(gradients), 1e-4
    )
    largest = sum(float(g.abs().max()) for g in gradients) / len(gradients)
    assert row["largest"] == pytest.approx(largest, 1e-4)


# ----------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("text", "rest"),
    [("one two three four", "three four"), ("one  two\nthree", "two\nthree"), ("one", None),
     ("", None), (" one two ", "two ")],
)  # fmt: skip
def test_rest_begins_at_the_first_word_that_is_not_given(text, rest):
    start = rest_begins(text, 0.5)
    assert (text[start:] if start else None) == rest


def test_samples_differ_and_are_no_longer_than_the_rest(base):
    probe = SampleQuestion(SamplesSpec(count=3, top_k=None), 0)
    found = rows(probe, base, items(probe.indices(), TEXTS[3:5]))
    for i, text in enumerate(TEXTS[3:5]):
        samples = [found[f"r{i}", n]["sample"] for n in (1, 2, 3)]
        assert len(set(samples)) == 3
        start = found[f"r{i}", 1]["start"]
        longest = len(base.encode([text])[0]) - len(base.encode([text[:start].rstrip()])[0])
        for sample in samples:
            assert len(base.encode([sample])[0]) <= longest + 2


def test_a_sample_ends_where_the_training_ends_an_answer(base, monkeypatch):
    given = []

    def noting(_, prompts, __, *, ends, **___):
        given.append(ends)
        return [[] for _ in prompts]

    monkeypatch.setattr(answering, "ends_of_answers", lambda reader: {7} if reader else set())
    monkeypatch.setattr(generation, "continue_tokens", noting)
    probe = SampleQuestion(SamplesSpec(count=2), 0)
    probe.ask(base, items(probe.indices(), TEXTS[3:5]))
    assert given == [{7}, {7}]


def test_record_longer_than_the_context_is_said_to_be(tmp_path):
    model = load_causal_lm(checkpoint(save_tiny(tmp_path / "m")), batch_tokens=2_048)
    probe = SampleQuestion(SamplesSpec(count=2), 0)
    found = rows(probe, model, items(probe.indices(), [passages(1)[0] * 5])).values()
    assert {row["error"] for row in found} == {TOO_LONG}


def test_model_that_takes_one_text_at_a_time_is_given_one(base, monkeypatch):
    probe = SampleQuestion(SamplesSpec(count=3), 0)
    together = rows(probe, base, items(probe.indices(), TEXTS[2:3]))
    sizes, generate = [], base.model.generate

    def seen(input_ids, **settings):
        sizes.append(len(input_ids))
        return generate(input_ids=input_ids, **settings)

    monkeypatch.setattr(base, "one_by_one", True)
    monkeypatch.setattr(base.model, "generate", seen)
    assert rows(probe, base, items(probe.indices(), TEXTS[2:3])) == together
    assert set(sizes) == {1}


def test_end_that_a_tokenizer_adds_is_not_put_before_what_follows(base, monkeypatch):
    monkeypatch.setattr(base, "tokenizer", with_an_end(base.tokenizer))
    (whole,) = base.encode(["One two"])
    assert whole[-1] == base.tokenizer.eos_token_id
    assert base.encode_beginnings(["One two"]) == [whole[:-1]]


def test_after_a_prefix_the_same_tokens_are_scored_as_without_it(base, monkeypatch):
    """ReCaLL compares the two: an end that is added counts on both sides or on neither."""
    texts = ["One two three", "I", passages(1)[0]]
    assert [record.ids for record in base.reader.read_after(texts)] == base.encode(texts)
    monkeypatch.setattr(base, "tokenizer", with_an_end(base.tokenizer))
    monkeypatch.setattr(base, "readings", Readings(PlainReader(base.tokenizer)))
    for whole, scored in zip(base.encode(texts), base.reader.read_after(texts), strict=True):
        assert whole[0] == whole[-1] == base.tokenizer.eos_token_id
        assert scored.ids == whole[1:]
    answers = base.answer(texts, moments=False)
    prefix = prefix_tokens(base, SHOTS[:1])
    assert prefix[-1] != base.tokenizer.eos_token_id
    for plain, after in zip(answers, answer_after(base, prefix, texts), strict=True):
        assert len(plain.log_prob) == len(after.log_prob)


def test_model_without_an_expandable_cache_is_run_together_with_the_prefix(tmp_path):
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=2048, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        layer_types=["conv", "full_attention"], bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path)
    model = load_causal_lm(checkpoint(tmp_path), batch_tokens=2_048)
    prefix = prefix_tokens(model, SHOTS[:1])
    texts = [text[:120] for text in TEXTS]
    for text, answer in zip(texts, answer_after(model, prefix, texts), strict=True):
        np.testing.assert_allclose(answer.log_prob, conditional(model, prefix, text), atol=3e-5)
