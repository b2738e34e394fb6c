"""What a causal model answers: the definition, whatever stands beside the text."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import BASE, checkpoint, passages, plain_answer, save_tiny

from raymia.models.causal import tiles
from raymia.models.causal.facts import context_length
from raymia.models.causal.family import load_causal_lm, neutral_generation
from raymia.models.causal.model import CausalLM
from raymia.util.errors import InputError, RaymiaError

COLUMNS = ("log_prob", "mean_log_prob", "std_log_prob")


def load(folder, **settings):
    batch_tokens = settings.pop("batch_tokens", 4_096)
    return load_causal_lm(checkpoint(folder, **settings), batch_tokens=batch_tokens)


def assert_same(answers, others, tolerance=1e-5):
    for answer, other in zip(answers, others, strict=True):
        assert answer.token_ids.tolist() == other.token_ids.tolist()
        for column in COLUMNS:
            np.testing.assert_allclose(
                getattr(answer, column), getattr(other, column), rtol=0, atol=tolerance
            )
        assert answer.truncated == other.truncated


@pytest.fixture(scope="module", params=["trained", "gpt2", "llama"])
def model(request, base, tiny_gpt2, tiny_llama):
    folders = {"gpt2": tiny_gpt2, "llama": tiny_llama}
    return base if request.param == "trained" else load(folders[request.param])


# ------------------------------------------------------------------ the definition


def test_answers_are_the_definition_token_by_token(model, texts):
    for text, answer in zip(texts[:16], model.answer(texts[:16], moments=True), strict=True):
        plain = plain_answer(model.model, model.tokenizer, text, model.max_tokens)
        assert answer.token_ids.tolist() == plain.token_ids
        np.testing.assert_allclose(answer.log_prob, plain.log_prob, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer.mean_log_prob, plain.mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer.std_log_prob, plain.std, rtol=0, atol=1e-5)
        assert answer.is_top1.tolist() == plain.top1.tolist()


def test_first_token_is_never_scored_and_last_one_is(model):
    text = "It is a truth universally acknowledged"
    ids = model.encode([text])[0]
    assert model.answer([text], moments=False)[0].token_ids.tolist() == ids[1:]


def test_answers_are_float32_natural_logarithms(model, texts):
    answer = model.answer(texts[1:2], moments=True)[0]
    assert {getattr(answer, c).dtype for c in COLUMNS} == {np.dtype(np.float32)}
    assert answer.token_ids.dtype == np.int32
    assert answer.is_top1.dtype == np.bool_
    assert (answer.log_prob < 0).all()


def test_moments_are_left_out_where_nobody_asks(model, texts):
    plain = model.answer(texts[:4], moments=False)
    full = model.answer(texts[:4], moments=True)
    for answer, other in zip(plain, full, strict=True):
        assert (answer.mean_log_prob, answer.std_log_prob, answer.is_top1) == (None, None, None)
        np.testing.assert_array_equal(answer.log_prob, other.log_prob)


# ------------------------------------------------- promise 1: whatever stands beside


def test_text_alone_is_answered_as_in_a_batch_of_64(model, texts):
    together = model.answer(texts, moments=True)
    alone = [model.answer([text], moments=True)[0] for text in texts]
    assert_same(alone, together)


def test_order_does_not_matter(model, texts):
    forward = model.answer(texts, moments=True)
    backward = model.answer(texts[::-1], moments=True)[::-1]
    assert_same(backward, forward)


@pytest.mark.parametrize("batch_tokens", [16, 333])
def test_batch_size_does_not_matter(model, texts, batch_tokens):
    small = CausalLM(model.model, model.tokenizer, batch_tokens=batch_tokens)
    assert_same(small.answer(texts[:24], moments=True), model.answer(texts[:24], moments=True))


def test_padding_is_no_part_of_a_text(model):
    """A short text beside a long one: neither its count nor its mean takes a padding token in."""
    short, long = "Yes, sir.", " ".join(passages(2))
    alone = model.answer([short], moments=True)[0]
    beside = model.answer([long, short], moments=True)[1]
    assert len(beside.log_prob) == len(model.encode([short])[0]) - 1
    np.testing.assert_allclose(beside.log_prob, alone.log_prob, rtol=0, atol=1e-5)


def test_same_text_twice_in_a_batch_is_answered_twice(model, texts):
    first, second = model.answer([texts[1], texts[1]], moments=True)
    assert_same([first], [second])


def test_more_texts_than_a_batch_come_back_in_their_order(base):
    texts = [f"{word} went to the house of his father" for word in ["Abraham", "Isaac", "Jacob"]]
    model = CausalLM(base.model, base.tokenizer, batch_tokens=16)
    answers = model.answer([*texts, *texts[::-1]], moments=False)
    for text, answer in zip([*texts, *texts[::-1]], answers, strict=True):
        assert answer.token_ids.tolist() == base.encode([text])[0][1:]


# ------------------------------------------------------------------------- length


def test_text_beyond_the_context_is_cut_and_says_so(tiny_gpt2):
    model = load(tiny_gpt2)
    long, short = " ".join(passages(8)), "Yes, sir."
    answers = model.answer([long, short], moments=True)
    assert [a.truncated for a in answers] == [True, False]
    assert len(answers[0].log_prob) == context_length(model.model.config) - 1 == 127
    plain = plain_answer(model.model, model.tokenizer, long, 128)
    np.testing.assert_allclose(answers[0].log_prob, plain.log_prob, rtol=0, atol=1e-5)


def test_max_tokens_is_exact(tiny_gpt2):
    text = "And it came to pass in those days that there went out a decree"
    count = len(load(tiny_gpt2).encode([text])[0])
    for limit, cut in ((count - 1, True), (count, False), (count + 1, False)):
        answer = load(tiny_gpt2, max_tokens=limit).answer([text], moments=False)[0]
        assert answer.truncated is cut
        assert len(answer.log_prob) == min(limit, count) - 1


def test_max_tokens_cannot_exceed_the_context(tiny_gpt2):
    assert load(tiny_gpt2, max_tokens=10_000).max_tokens == 128


def test_start_of_a_text_does_not_know_that_the_end_was_cut(tiny_llama):
    text = passages(1)[0]
    whole = load(tiny_llama).answer([text], moments=True)[0]
    cut = load(tiny_llama, max_tokens=9).answer([text], moments=True)[0]
    np.testing.assert_allclose(cut.log_prob, whole.log_prob[:8], rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", ["", "I"])
def test_text_without_a_token_that_has_context_has_an_empty_answer(model, text, texts):
    assert len(model.encode([text])[0]) < 2
    for batch in ([text], [texts[1], text], [text, text]):
        answer = model.answer(batch, moments=True)[-1]
        assert [len(c) for c in (answer.token_ids, answer.log_prob, answer.mean_log_prob)] == [
            0
        ] * 3
        assert len(answer.is_top1) == 0


def test_text_beside_one_without_tokens_is_answered_as_alone(model, texts):
    alone = model.answer([texts[1]], moments=True)
    assert_same(model.answer(["", texts[1], "I"], moments=True)[1:2], alone)


def test_no_texts_have_no_answers(base):
    assert base.answer([], moments=True) == []


# ------------------------------------------------------------------------- memory


@pytest.fixture
def asked_rows(base):
    """How many rows the output layer is asked for at once, call by call."""
    rows = []

    def note(_layer, _given, output):
        if output.shape[-1] == base.model.config.vocab_size:
            rows.append(output.shape[:-1].numel())

    hook = base.model.get_output_embeddings().register_forward_hook(note)
    yield rows
    hook.remove()


def test_head_never_holds_more_logits_than_its_tile(base, texts, monkeypatch, asked_rows):
    vocabulary = base.model.config.vocab_size
    monkeypatch.setattr(tiles, "CACHED_BYTES", 7 * 4 * vocabulary)
    model = CausalLM(base.model, base.tokenizer, batch_tokens=4_096)
    asked_rows.clear()
    answers = model.answer(texts[:12], moments=True)
    monkeypatch.undo()
    assert max(asked_rows) == 7
    assert sum(asked_rows) == sum(len(a.log_prob) for a in answers), "padding was asked for"
    assert_same(answers, base.answer(texts[:12], moments=True))


@pytest.mark.long
def test_default_tile_bounds_float32_logits(base, asked_rows):
    model = CausalLM(base.model, base.tokenizer, batch_tokens=10**6)
    asked_rows.clear()
    model.answer([" ".join(passages(5))] * 40, moments=False)
    assert sum(asked_rows) * 4 * 2048 > tiles.CACHED_BYTES, "too little to tell"
    assert max(asked_rows) * 4 * 2048 <= tiles.CACHED_BYTES


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_lack_of_memory_makes_batches_smaller_and_changes_no_answer(base, texts, error):
    model = CausalLM(base.model, base.tokenizer, batch_tokens=4_096)
    forward, seen = model._forward, []

    def short_of_memory(ids, *others):
        padded = len(ids) * max(map(len, ids))
        seen.append(padded)
        if padded > 300:
            raise error
        return forward(ids, *others)

    model._forward = short_of_memory
    assert_same(model.answer(texts, moments=True), base.answer(texts, moments=True))
    failed = [padded for padded in seen if padded > 300]
    assert failed, "the batch never was too large"
    assert len(failed) < 8, "the budget is not kept small after a lack of memory"


def test_one_text_too_large_for_memory_is_a_clear_error(base):
    model = CausalLM(base.model, base.tokenizer, batch_tokens=4_096)

    def no_memory(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    model._forward = no_memory
    with pytest.raises(RaymiaError, match=r"one sequence of \d+ tokens.*max_tokens"):
        model.answer(passages(4), moments=True)


def test_other_errors_of_a_model_are_not_taken_for_lack_of_memory(base):
    model = CausalLM(base.model, base.tokenizer, batch_tokens=4_096)

    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model._forward = broken
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        model.answer(passages(4), moments=True)


# ------------------------------------------------------------------------ loading


def test_authors_taste_in_sampling_is_dropped_and_special_tokens_kept(tiny_gpt2):
    model = load(tiny_gpt2)
    model.model.generation_config.update(temperature=0.6, top_p=0.9, repetition_penalty=1.3)
    neutral = neutral_generation(model.model.generation_config)
    assert (neutral.temperature, neutral.top_p) in {(None, None), (1.0, 1.0)}
    assert neutral.repetition_penalty in (None, 1.0)
    assert neutral.eos_token_id == 0


def test_what_is_no_model_is_refused_with_its_path(tmp_path):
    broken = save_tiny(tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(InputError, match=r"broken: cannot be loaded as a causal language model"):
        load(broken)


def test_damaged_weights_are_refused_with_their_path(tmp_path):
    broken = save_tiny(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="broken"):
        load(broken)


def test_weights_that_lack_a_layer_are_refused_and_not_filled_with_random_numbers(tmp_path):
    lacking = save_tiny(tmp_path / "lacking")
    config = json.loads((lacking / "config.json").read_text())
    config["n_layer"] += 1
    (lacking / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"lacking: its weights lack 12 of the tensors .*h\.\d\."):
        load(lacking)


@pytest.mark.long
def test_lower_precision_still_answers_in_float32_near_the_full_one(base, texts):
    low = load(BASE, dtype="bfloat16").answer(texts[:8], moments=True)
    for answer, full in zip(low, base.answer(texts[:8], moments=True), strict=True):
        assert answer.log_prob.dtype == np.float32
        assert abs(answer.log_prob.mean() - full.log_prob.mean()) < 0.05
        assert len(set(answer.log_prob.tolist())) > len(answer.log_prob) / 2, "rounded to bfloat16"


def test_checkpoint_survives_its_way_to_a_worker(tiny_gpt2):
    there = checkpoint(tiny_gpt2, max_tokens=9, fingerprint="f")
    assert pickle.loads(pickle.dumps(there)) == there
    assert replace(there, max_tokens=None) != there
