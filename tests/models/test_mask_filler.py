"""Filling masks: requests are answered as if each were alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tiny_models import PARAPHRASER, passages

from raymia.models import sampling
from raymia.models.paraphrasers.mask_filler import FillRequest, MaskFiller, load_mask_filler
from raymia.util.draws import stream_key
from raymia.util.errors import InputError


def requests(count=8, seed=0, spans=2):
    made = []
    for number, text in enumerate(passages(count)):
        words = text.split()
        for span in range(spans):
            words[3 + 5 * span : 5 + 5 * span] = [f"<extra_id_{span}>"]
        made.append(FillRequest(" ".join(words), spans, 24, stream_key(seed, "test", number)))
    return made


def fill(filler, some, **settings):
    return filler.fill(some, **{"temperature": 1.0, "top_k": 50, **settings})


@pytest.fixture(scope="module")
def together(filler):
    return fill(filler, requests())


def test_most_requests_are_filled_with_one_text_per_span(together):
    filled = [fills for fills in together if fills is not None]
    assert len(filled) >= 4
    for fills in filled:
        assert len(fills) == 2
        assert all(text and text == text.strip() and "<" not in text for text in fills)


def test_request_alone_is_filled_as_in_a_batch(filler, together):
    assert [fill(filler, [request])[0] for request in requests()] == together


def test_order_does_not_matter(filler, together):
    assert fill(filler, requests()[::-1])[::-1] == together


def test_batch_size_does_not_matter(filler, together):
    small = MaskFiller(filler.model, filler.tokenizer, batch_tokens=16)
    assert fill(small, requests()) == together


def test_longer_limit_of_a_batch_mate_gives_no_more_tokens(filler):
    """Generation goes on until the last row ends; a row is cut at its own limit all the same."""
    short = [FillRequest(r.text, r.spans, 3, r.key) for r in requests(4)]
    assert fill(filler, [*short, *requests()])[:4] == [fill(filler, [r])[0] for r in short]


def test_other_key_draws_other_fills(filler, together):
    assert fill(filler, requests(seed=1)) != together


def test_seeds_of_torch_change_nothing(filler, together):
    import torch

    torch.manual_seed(123)
    assert fill(filler, requests()) == together


def test_close_calls_are_sampled_again_alone(filler, monkeypatch):
    """With every draw a close call, every request is generated once in the batch and once alone."""
    alone = [fill(filler, [request])[0] for request in requests(4)]
    monkeypatch.setattr(sampling, "TOO_CLOSE", 1e9)
    sizes, generate = [], filler._generate

    def counted(batch, *args):
        sizes.append(len(batch))
        answers = generate(batch, *args)
        if len(batch) > 1:  # as if rounding had decided: what the batch drew must not be used
            answers = [([5, 6, 7], close) for _, close in answers]
        return answers

    monkeypatch.setattr(filler, "_generate", counted)
    assert fill(filler, requests(4)) == alone
    assert sizes == [4, 1, 1, 1, 1]


def test_few_draws_are_close_calls(filler, monkeypatch):
    sizes, generate = [], filler._generate
    monkeypatch.setattr(
        filler, "_generate", lambda batch, *a: sizes.append(len(batch)) or generate(batch, *a)
    )
    fill(filler, requests())
    assert sizes.count(1) <= 2, "resampling most requests alone would make batches pointless"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("<extra_id_0> one two <extra_id_1> three <extra_id_2>", ["one two", "three"]),
        ("<extra_id_0> one <extra_id_1> three </s> more <extra_id_2>", ["one", "three"]),
        ("<pad> <extra_id_0> one <extra_id_1> three <extra_id_2>", ["one", "three"]),
        ("<extra_id_0> one <extra_id_1> <extra_id_2>", None),
        ("<extra_id_0> one <extra_id_2> three <extra_id_1>", None),
        ("<extra_id_0> one <extra_id_1> three", None),
        ("<extra_id_1> one <extra_id_2>", None),
        ("one two", None),
        ("", None),
    ],
)
def test_fills_are_what_stands_between_sentinels_in_order(filler, words, expected):
    tokens = filler.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    assert filler._read(tokens, spans=2) == expected


def test_token_spans_cover_every_letter_once(filler):
    text = "  It is a truth,\n universally — acknowledged… naïve 5£!  "
    spans = filler.token_spans(text)
    assert spans == sorted(spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert "".join(text[b:e] for b, e in spans) == "".join(text.split())
    assert all(text[b:e] == text[b:e].strip() for b, e in spans)


def test_model_without_sentinels_is_refused(tmp_path):
    from tiny_models import BASE
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    settings = {"vocab_size": 2048, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(**settings, num_layers=1)).save_pretrained(tmp_path / "t5")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "t5")
    with pytest.raises(InputError, match=r"t5: its tokenizer has no <extra_id_0>"):
        load_mask_filler(str(tmp_path / "t5"), batch_tokens=64)


def test_causal_model_is_refused_as_paraphraser(tiny_gpt2):
    with pytest.raises(InputError, match="cannot be loaded as a T5 model"):
        load_mask_filler(str(tiny_gpt2), batch_tokens=64)


def test_paraphraser_runs_in_float32_though_stored_in_less():
    import torch

    model = load_mask_filler(str(PARAPHRASER), batch_tokens=64).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
