"""Spans filled by a causal model: continuations of the left, drawn by how likely the right is."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_models import checkpoint, save_tiny

from raymia.models import sampling
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.paraphrasers.infiller import CausalInfiller, InfillRequest, _draw
from raymia.spec import InfillNeighbors
from raymia.util.draws import stream_key
from raymia.util.errors import InputError

LEFT, RIGHT = "And the LORD spake unto ", " and said unto him, Go forth"


def spec(**settings):
    return InfillNeighbors(kind="infill", model="m", **settings)


def request(number=0, left=LEFT, words=1, right=RIGHT):
    return InfillRequest(left, words, right, stream_key("test", number))


@pytest.fixture(scope="module")
def infiller(base):
    return CausalInfiller(base)


# ------------------------------------------------------------------- what is proposed


@torch.inference_mode()
def next_tokens(lm, text):
    """The model's distribution of the next token, none of which ends the text."""
    logits = lm.model(torch.tensor(lm.encode([text]))).logits[0, -1].double()
    logits[lm.tokenizer.eos_token_id] = -torch.inf
    return logits.softmax(-1)


@pytest.mark.long
def test_single_candidates_are_the_models_own_continuations(base, infiller):
    """Of one-token words, w is proposed in proportion to p(w | left) p(a word follows | left w)."""
    settings = spec(candidates=1, top_k=None, max_fill_tokens=1)
    fills = infiller.fill([request(n) for n in range(1_000)], settings)
    counts = Counter(fill for fill in fills if fill is not None)
    begins_word = torch.tensor(
        [base.tokenizer.decode([t])[:1].isspace() for t in range(len(base.tokenizer))]
    )
    proposed = next_tokens(base, LEFT.rstrip())
    expected = {}
    for token in proposed.topk(40).indices.tolist():
        word = base.tokenizer.decode([token])
        if begins_word[token] and word.strip():
            follows = next_tokens(base, LEFT.rstrip() + word)[begins_word].sum()
            expected[word.strip()] = float(proposed[token] * follows)
    assert len(counts) > 5
    for word, p in expected.items():
        assert abs(counts[word] - 1_000 * p) < 5 * math.sqrt(1_000 * p) + 1, word


def test_greedy_fill_is_the_greedy_continuation(base, infiller):
    ids = base.encode([LEFT.rstrip()])[0]
    for _ in range(12):
        logits = base.model(torch.tensor([ids])).logits[0, -1].detach()
        logits[base.tokenizer.eos_token_id] = -torch.inf
        ids.append(int(logits.argmax()))
    expected = base.tokenizer.decode(ids)[len(LEFT) :].split()[:3]
    (fill,) = infiller.fill([request(words=3)], spec(top_k=1))
    assert fill.split() == expected


@pytest.mark.parametrize("words", [1, 2, 4])
def test_fill_has_as_many_whole_words_as_were_asked_for(infiller, words):
    fills = infiller.fill([request(n, words=words) for n in range(12)], spec())
    made = [fill for fill in fills if fill is not None]
    assert len(made) >= 8
    assert all(len(fill.split()) == words and fill == fill.strip() for fill in made)
    assert len(set(made)) > 1


def test_word_that_is_cut_off_is_no_fill(base, infiller):
    """With one token and one more, a fill is one token that a word or a space follows."""
    fills = infiller.fill(
        [request(n) for n in range(40)], spec(candidates=1, max_fill_tokens=1, top_k=None)
    )
    made = [fill for fill in fills if fill is not None]
    assert 0 < len(made) < 40
    assert all(len(base.tokenizer(f" {fill}")["input_ids"]) == 1 for fill in made)


def test_first_words_of_a_text_are_filled_from_the_start_token(infiller):
    fills = infiller.fill([request(n, left="", right=" the LORD") for n in range(8)], spec())
    assert any(fill is not None for fill in fills)


# --------------------------------------------------------------------- what is drawn


def test_draw_is_in_proportion_to_the_weights():
    fills = ["a", "b", None, "a", "c"]
    weights = {"a": math.log(0.1), "b": math.log(0.5), "c": math.log(0.3)}
    drawn = Counter(_draw(stream_key("test", n), fills, weights)[0] for n in range(3_000))
    for fill, share in {"a": 0.2, "b": 0.5, "c": 0.3}.items():
        assert abs(drawn[fill] / 3_000 - share) < 0.04


def test_nothing_is_drawn_where_no_weight_is_finite():
    assert _draw(1, ["a", None], {"a": math.nan})[0] is None
    assert _draw(1, [None], {})[0] is None


def test_margin_is_to_the_next_other_fill():
    assert _draw(1, ["a", "a", None], {"a": 0.0}) == ("a", math.inf)
    fill, margin = _draw(1, ["a", "b"], {"a": 0.0, "b": -50.0})
    assert fill == "a"
    assert 30 < margin < 70


def test_more_candidates_fit_the_right_better(infiller):
    def mean_of(candidates):
        fills = infiller.fill([request(n) for n in range(40)], spec(candidates=candidates))
        made = [(LEFT + fill, RIGHT) for fill in fills if fill is not None]
        return np.mean(infiller._log_probs(made, spec()))

    assert mean_of(8) > mean_of(1) + 0.5


def test_right_is_judged_by_the_log_probability_of_its_first_tokens(base, infiller):
    (answer,) = base.answer([f"{LEFT}Moses{RIGHT}"], moments=False)
    before = len(base.encode([f"{LEFT}Moses"])[0])
    for tokens in (1, 3, 32):
        (found,) = infiller._log_probs([(f"{LEFT}Moses", RIGHT)], spec(right_tokens=tokens))
        assert found == pytest.approx(answer.log_prob[before - 1 :][:tokens].sum(), abs=1e-4)
    assert infiller._log_probs([(f"{LEFT}Moses", "\n")], spec()) == [0.0]


# ------------------------------------------------------- promise 1: whatever stands beside

LEFTS = ["", LEFT, "In the beginning ", f"{LEFT}Moses, saying, Speak unto all the people "]
MANY = [request(n, LEFTS[n % 4], 1 + n % 2, ["", RIGHT, " of the earth"][n % 3]) for n in range(6)]
SHORT = spec(candidates=2, max_fill_tokens=4)


@pytest.fixture(scope="module", params=["base", "gpt2", "llama", "unpaddable"])
def some_infiller(request, base, tiny_gpt2, tiny_llama):
    folders = {"gpt2": tiny_gpt2, "llama": tiny_llama}
    if request.param in folders:
        return CausalInfiller(
            load_causal_lm(checkpoint(folders[request.param]), batch_tokens=4_096)
        )
    if request.param == "base":
        return CausalInfiller(base)
    lm = CausalLM(_DropsMask(base.model), base.tokenizer, batch_tokens=4_096)
    return CausalInfiller(lm)


class _DropsMask:
    """A model that does not look at its mask, so that padding changes what it says."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, *args, **settings):
        return self.model(*args, **settings)

    def generate(self, input_ids, attention_mask, **settings):
        return self.model.generate(
            input_ids=input_ids, attention_mask=torch.ones_like(attention_mask), **settings
        )


@pytest.fixture(scope="module")
def together(some_infiller):
    return some_infiller.fill(MANY, SHORT)


def test_fill_alone_is_the_one_of_the_batch(some_infiller, together):
    assert [some_infiller.fill([one], SHORT)[0] for one in MANY] == together
    assert some_infiller.fill(MANY[::-1], SHORT)[::-1] == together
    assert any(fill is not None for fill in together)


def test_batch_size_does_not_matter(some_infiller, together):
    lm = some_infiller.lm
    small = CausalInfiller(CausalLM(lm.model, lm.tokenizer, batch_tokens=90))
    assert small.fill(MANY, SHORT) == together


def test_model_that_padding_disturbs_is_asked_row_by_row(base, infiller):
    assert infiller.max_rows is None
    lm = CausalLM(_DropsMask(base.model), base.tokenizer, batch_tokens=4_096)
    assert CausalInfiller(lm).max_rows == 1


def test_close_calls_are_what_the_fill_alone_would_be(infiller, monkeypatch):
    together = infiller.fill(MANY, SHORT)
    monkeypatch.setattr(sampling, "TOO_CLOSE", 1e9)
    assert infiller.fill(MANY, SHORT) == together


# ------------------------------------------------------------------------ limits


def test_long_left_is_cut_to_its_last_tokens(infiller):
    long = "And he went up into the mountain. " * 60
    settings = spec(left_tokens=6)
    cut, whole = (
        infiller.fill([request(n, left) for n in range(6)], settings)
        for left in ("up into the mountain. " + LEFT, long + LEFT)
    )
    assert cut == whole
    assert len(infiller._cut_left(request(left=long + LEFT), settings)[0]) == 6
    assert infiller._cut_left(request(left=long + LEFT), settings)[1].endswith("spake unto ")


def test_left_leaves_room_in_the_models_context(base):
    lm = CausalLM(base.model, base.tokenizer, batch_tokens=4_096, max_tokens=64)
    short = CausalInfiller(lm)
    ids, _ = short._cut_left(request(left="word " * 200), spec(right_tokens=20))
    assert len(ids) == 64 - 9 - 20 - 8
    with pytest.raises(InputError, match=r"reads 64 tokens.*make span, max_fill_tokens"):
        short.fill([request(words=8)], spec())


def test_tokenizer_without_a_start_is_told_of(tmp_path):
    lm = load_causal_lm(checkpoint(save_tiny(tmp_path / "gpt2")), batch_tokens=512)
    lm.tokenizer.bos_token = lm.tokenizer.eos_token = None
    with pytest.raises(InputError, match="neither a BOS nor an EOS"):
        CausalInfiller(lm).fill([request(left="")], spec())
