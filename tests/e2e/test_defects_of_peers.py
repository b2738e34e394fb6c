"""Defects that were found in other tools of this kind; none of them may come back here.

Where another test file holds a defect's test already, it is named instead: keys by model
(test_plan.py), the prefix of ReCaLL (test_inputs.py), samples of one record (attacks), frequencies
by tokenizer (test_corpus.py).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_answers import evidence, one, scores
from tiny_models import checkpoint, passages, save_tiny

from raymia.evidence.text import TextEvidence
from raymia.metrics.measuring import measure
from raymia.models.causal.family import load_causal_lm
from raymia.questions.text import TokenQuestion

TEXTS = [" ".join(text.split()[:n]) for text, n in zip(passages(4), (4, 30, 11, 60), strict=True)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Pad, end and begin are one token, as in GPT-2."""
    return load_causal_lm(
        checkpoint(save_tiny(tmp_path_factory.mktemp("m") / "gpt2")), batch_tokens=2_048
    )


def test_padding_is_never_scored_and_pad_may_be_the_end_token(model):
    """A mask of contexts in place of targets scores the first pad of every text but the longest."""
    assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id
    together = model.answer(TEXTS, moments=True)
    for text, answer in zip(TEXTS, together, strict=True):
        (alone,) = model.answer([text], moments=True)
        assert len(answer.log_prob) == len(model.encode([text])[0]) - 1
        np.testing.assert_allclose(answer.log_prob, alone.log_prob, atol=1e-5)


def test_token_0_is_a_token_and_not_padding(model):
    text = f"{model.tokenizer.decode([0])} and more words"
    ids = model.encode([text])[0]
    assert 0 in ids
    (answer,) = model.answer([text], moments=False)
    assert answer.token_ids.tolist() == ids[1:]


def test_last_token_counts_in_every_attack(model):
    (answer,) = model.answer(TEXTS[1:2], moments=True)
    assert answer.token_ids[-1] == model.encode(TEXTS[1:2])[0][-1]
    assert len(answer.mean_log_prob) == len(answer.log_prob)


def test_moments_are_expectations_under_p_and_not_means_over_the_vocabulary(model):
    (answer,) = model.answer(TEXTS[:1], moments=True)
    ids = torch.tensor([model.encode(TEXTS[:1])[0]])
    with torch.inference_mode():
        log_p = model.model(ids).logits[0, :-1].double().log_softmax(-1)
    expected = (log_p.exp() * log_p).sum(-1)
    np.testing.assert_allclose(answer.mean_log_prob, expected.numpy(), atol=1e-4)
    assert np.abs(answer.mean_log_prob - log_p.mean(-1).numpy()).min() > 0.1


def test_log_probabilities_are_float32_whatever_the_model_computes_in(tmp_path):
    half = load_causal_lm(
        checkpoint(save_tiny(tmp_path / "m"), dtype="bfloat16"), batch_tokens=2_048
    )
    (answer,) = half.answer(TEXTS[1:2], moments=True)
    assert answer.log_prob.dtype == np.float32
    total = np.exp(answer.log_prob.astype(float))
    assert len(set((total * 256).round(4))) > 10, "not rounded to bfloat16's few values"


def test_surest_members_do_not_get_the_lowest_ez_score():
    """Where no error token moved down, P / N has no value, and released code says 0."""
    target = {"sure": one(-2.0), "unsure": [(-2.0, -3.0, 1.0), (-4.0, -3.0, 1.0)]}
    reference = {"sure": one(-5.0), "unsure": [(-3.0, -3.0, 1.0), (-3.0, -3.0, 1.0)]}
    given = evidence((target, {}), (reference, {}), ["sure", "unsure"], ["t"] * 2, 0)
    sure, unsure = scores("ez", given)
    assert sure == 1.0 > unsure


def test_reference_is_scored_by_its_own_answers():
    given = evidence()
    swapped = TextEvidence(given.texts, given.reference, given.target)
    np.testing.assert_allclose(
        scores("difference", swapped), -scores("difference", given), equal_nan=True
    )


def test_member_is_the_positive_class():
    """With the other orientation this audit would find every non-member and no member."""
    values = np.array([3.0, 3.0, 3.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    is_member = np.arange(8) < 4
    found = measure(values, is_member, target="t", attack="a", fprs=(0.25,))
    assert found.tpr[0].estimate.value == 0.75


def test_budget_of_false_positives_is_never_exceeded_or_interpolated():
    values = np.array([5.0, 4.0, 2.0, 4.5, 3.0, 1.0])
    is_member = np.array([True, True, True, False, False, False])
    found = measure(values, is_member, target="t", attack="a", fprs=(0.34, 0.5))
    assert [t.estimate.value for t in found.tpr] == [pytest.approx(2 / 3)] * 2


def test_text_of_one_token_is_named_and_not_scored_as_0(model):
    from raymia.questions.base import Item

    (row,) = TokenQuestion().ask(model, [Item("r", 0, "I")]).to_pylist()
    assert row["error"]
    assert row["log_prob"] is None
