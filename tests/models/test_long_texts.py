"""Texts longer than the context: cut, or read in windows that score each token once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_models import checkpoint, fingerprint, passages, plain_answer

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.causal.windows import windows
from raymia.spec import ModelSpec
from raymia.util.errors import InputError

CONTEXT = 40
SETTINGS = {"max_tokens": CONTEXT, "long_texts": "windows"}


def load(folder, **settings):
    return load_causal_lm(checkpoint(folder, **settings), batch_tokens=256)


def by_hand(model, text, context, stride, lead=()):
    """One token at a time: which tokens its window has before it, and what the model then says."""
    ids = model.encode([text])[0]
    found = []
    for t in range(1, len(ids)):
        steps = max(0, -(-(t + 1 - context) // stride))
        end = min(context + steps * stride, len(ids))
        start = end - (context - len(lead)) if end > context else 0
        window = [*(lead if start else ()), *ids[start:t]]
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([window])).logits[0, -1]
        found.append(float(logits.float().log_softmax(-1)[ids[t]]))
    return found


@given(st.integers(2, 60), st.data())
def test_every_token_but_the_first_is_scored_once_and_with_context(context, data):
    stride = data.draw(st.integers(1, context - 1))
    length = data.draw(st.integers(context + 1, 10 * context))
    parts = windows(length, context, stride)
    scored = [t for p in parts for t in range(max(p.scored_from, 1), p.end)]
    assert scored == list(range(1, length))
    assert all(p.end - p.start == context for p in parts)
    assert all(p.scored_from - p.start >= context - stride for p in parts[1:])


@pytest.mark.parametrize("stride", [1, 7, 39])
def test_tokens_in_windows_are_the_definition(tiny_llama, stride):
    model = load(tiny_llama, **SETTINGS, stride=stride)
    text = " ".join(passages(2))
    answer = model.answer([text], moments=True)[0]
    ids = model.encode([text])[0]
    assert len(ids) > CONTEXT + stride
    assert answer.token_ids.tolist() == ids[1:]
    assert not answer.truncated
    assert len(answer.std_log_prob) == len(answer.is_top1) == len(ids) - 1
    expected = by_hand(model, text, CONTEXT, stride)
    np.testing.assert_allclose(answer.log_prob, expected, rtol=0, atol=1e-5)


def test_stride_is_half_of_what_is_read_at_once_unless_given(tiny_llama):
    text = passages(1)[0]
    default = load(tiny_llama, **SETTINGS).answer([text], moments=False)[0]
    half = load(tiny_llama, **SETTINGS, stride=CONTEXT // 2).answer([text], moments=False)[0]
    np.testing.assert_array_equal(default.log_prob, half.log_prob)


def test_text_within_the_context_is_answered_as_ever(tiny_llama):
    text = " ".join(passages(1)[0].split()[:20])
    windowed, cut = load(tiny_llama, **SETTINGS), load(tiny_llama, max_tokens=CONTEXT)
    assert len(cut.encode([text])[0]) <= CONTEXT
    np.testing.assert_array_equal(
        windowed.answer([text], moments=False)[0].log_prob,
        cut.answer([text], moments=False)[0].log_prob,
    )


def test_start_of_a_long_text_is_answered_as_if_it_were_cut(tiny_llama):
    text = passages(1)[0]
    windowed = load(tiny_llama, **SETTINGS).answer([text], moments=False)[0]
    cut = load(tiny_llama, max_tokens=CONTEXT).answer([text], moments=False)[0]
    assert cut.truncated
    first = windowed.log_prob[: CONTEXT - 1]
    np.testing.assert_allclose(first, cut.log_prob, rtol=0, atol=1e-5)


def test_windows_do_not_depend_on_batch_mates(tiny_llama):
    model = load(tiny_llama, **SETTINGS)
    texts = [" ".join(passages(2)), "I", "Yes, sir.", passages(1)[0]]
    for text, answer in zip(texts, model.answer(texts, moments=True), strict=True):
        alone = model.answer([text], moments=True)[0]
        for column in ("log_prob", "mean_log_prob", "std_log_prob"):
            np.testing.assert_allclose(
                getattr(answer, column), getattr(alone, column), rtol=0, atol=1e-5
            )


def test_no_forward_pass_is_larger_than_its_budget_however_long_a_text(tiny_llama):
    model = load(tiny_llama, **SETTINGS)
    forward, sizes = model._forward, []

    def counted(ids, *others):
        sizes.append(len(ids) * max(map(len, ids)))
        return forward(ids, *others)

    model._forward = counted
    model.answer([" ".join(passages(12))], moments=False)
    assert sum(sizes) > 5 * model.batch_tokens
    assert max(sizes) <= model.batch_tokens


def test_whole_text_in_one_window_is_the_plain_answer(tiny_llama):
    model = load(tiny_llama, long_texts="windows")
    text = " ".join(passages(1)[0].split()[:30])
    expected = plain_answer(model.model, model.tokenizer, text)
    answer = model.answer([text], moments=False)[0]
    np.testing.assert_allclose(answer.log_prob, expected.log_prob, rtol=0, atol=1e-5)


def test_windows_and_their_stride_are_in_the_fingerprint(tiny_llama):
    settings = [{}, {"long_texts": "windows"}, {"long_texts": "windows", "stride": 5},
                {"long_texts": "windows", "stride": 6}]  # fmt: skip
    found = {fingerprint(checkpoint(tiny_llama, max_tokens=20, **s)) for s in settings}
    assert len(found) == len(settings)


def test_audit_file_says_what_a_checkpoint_does_with_long_texts(tiny_llama):
    spec = ModelSpec(model=str(tiny_llama), long_texts="windows", stride=30)
    found = resolve_causal_lm(spec, "targets[0].model", on_gpu=False)
    assert (found.long_texts, found.stride) == ("windows", 30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 5}, "long_texts: windows"),
        ({"stride": 20, "long_texts": "windows", "max_tokens": 20}, "stride 20 must be less than"),
    ],
)
def test_stride_that_cannot_be_is_refused_in_the_audit_file(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(model="m", **settings)


def test_stride_beyond_the_context_is_refused(tiny_llama):
    with pytest.raises(InputError, match="stride: 128 is not less than the 128 tokens"):
        load(tiny_llama, long_texts="windows", stride=128)


# ------------------------------------------------------- windows that begin as texts do


def test_windows_that_begin_with_a_bos_are_the_definition(tiny_llama):
    model = load(tiny_llama, **SETTINGS, stride=9, window_bos=True)
    text = " ".join(passages(3))
    (ids,) = model.encode([text])
    expected = by_hand(model, text, CONTEXT, 9, [model.tokenizer.bos_token_id])
    assert len(ids) > 2 * CONTEXT
    answer = model.answer([text], moments=True)[0]
    assert answer.token_ids.tolist() == ids[1:]
    np.testing.assert_allclose(answer.log_prob, expected, rtol=0, atol=1e-5)
    assert len(answer.mean_log_prob) == len(answer.is_top1) == len(ids) - 1
    assert not answer.truncated


def test_windows_that_begin_with_a_bos_have_a_fingerprint_of_their_own(tiny_llama):
    plain, begun = (
        ModelSpec(model=str(tiny_llama), long_texts="windows", window_bos=b) for b in (False, True)
    )
    found = [resolve_causal_lm(spec, "targets[0].model", on_gpu=False) for spec in (plain, begun)]
    assert found[0].fingerprint != found[1].fingerprint


def test_a_bos_belongs_to_windows_and_takes_a_tokenizer_that_has_one(tiny_llama):
    with pytest.raises(ValidationError, match="add `long_texts: windows`"):
        ModelSpec(model="m", window_bos=True)
    with pytest.raises(InputError, match="stride: 39 is not less than the 39 tokens"):
        load(tiny_llama, **SETTINGS, stride=CONTEXT - 1, window_bos=True)
    model = load(tiny_llama, **SETTINGS).model
    with pytest.raises(InputError, match="has no beginning-of-text token"):
        CausalLM(model, SimpleNamespace(bos_token_id=None), batch_tokens=64, window_bos=True)
