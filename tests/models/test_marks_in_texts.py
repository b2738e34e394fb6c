"""Plain texts with marks of a chat template in them: their text is one, cut or not."""

from __future__ import annotations

import pytest
from tiny_models import BASE, with_an_end
from transformers import AutoTokenizer

from raymia.models.causal.reading import PlainReader, added_around
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training

TEXT = "<|im_start|>user\nWhich bird ?<|im_end|>\n<|im_start|>assistant\nA heron .<|im_end|>\n"


@pytest.fixture(params=["adds nothing", "adds a beginning and an end"])
def tokenizer(request):
    known = AutoTokenizer.from_pretrained(BASE)
    known.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return known if request.param == "adds nothing" else with_an_end(known)


def reader(tokenizer, **settings):
    return TrainedReader(tokenizer, Training("text", "all", **settings))


@pytest.mark.parametrize("eos", [True, False])
def test_a_text_that_was_cut_has_the_marks_of_one_that_was_not(tokenizer, eos):
    assert reader(tokenizer, eos=eos).text(TEXT) == TEXT
    begin, end = added_around(tokenizer)
    length = len(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    for left in (8, length - 2):
        at_end = reader(tokenizer, eos=eos, max_length=len(begin) + left, truncate="end")
        text = at_end.text(TEXT)
        assert TEXT.startswith(text)
        assert text.startswith("<|im_start|>user")
        assert len(text) < len(TEXT)
        at_start = reader(tokenizer, eos=eos, max_length=left + eos + len(end), truncate="start")
        text = at_start.text(TEXT)
        assert TEXT.endswith(text)
        assert text.endswith("heron .<|im_end|>\n")
        assert len(text) < len(TEXT)


def test_an_end_that_a_text_has_itself_is_kept(tokenizer):
    text = f"A heron .{tokenizer.eos_token} A coot .{tokenizer.eos_token}"
    length = 4 + len(added_around(tokenizer)[1])
    cut = reader(tokenizer, eos=True, max_length=length, truncate="start").text(text)
    assert text.endswith(cut)
    assert cut.endswith(f".{tokenizer.eos_token}")


def test_what_is_written_has_marks_where_the_text_of_the_record_has_them(tokenizer):
    ids = tokenizer("A heron .<|im_end|>\n", add_special_tokens=False)["input_ids"]
    for plain in (PlainReader(tokenizer), reader(tokenizer)):
        assert plain.words(ids) == "A heron .<|im_end|>\n"
    chat = TrainedReader(tokenizer, Training("chat", "assistant"))
    assert chat.words(ids) == "A heron .\n"
