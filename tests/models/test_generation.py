"""Writing side by side: each row is what it would be alone, and rows that ended are let go of."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import BASE, checkpoint, save_tiny
from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM

from raymia.models.causal import generation
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.generation import continue_tokens
from raymia.models.sampling import CounterSampler
from raymia.util.draws import stream_key

PROMPTS = [list(range(5 + n, 8 + n + length)) for n, length in enumerate((0, 9, 2, 17, 2, 5))]
KEYS = [stream_key(0, "generation", place) for place in range(len(PROMPTS))]
ENDS = range(1_000, 1_120)
"""About one token in 17 ends a text."""
WHOLE = 60


def load(folder):
    return load_causal_lm(checkpoint(folder), batch_tokens=1_024)


def write(model, places=None, **settings):
    places = range(len(PROMPTS)) if places is None else places
    return continue_tokens(
        model, [PROMPTS[n] for n in places], [KEYS[n] for n in places],
        **{"whole": WHOLE, "temperature": 1.0, "top_k": None, "budget": 1_024, "ends": ENDS,
           **settings},
    )  # fmt: skip


def alone(model, **settings):
    return [write(model, [n], **settings)[0] for n in range(len(PROMPTS))]


@pytest.fixture
def rows(monkeypatch):
    """Rows of each call of a model's ``generate``, which writes four tokens."""
    seen = []
    go_on = generation._Writer._go_on

    def watched(self, ids, *rest):
        seen.append(len(ids))
        return go_on(self, ids, *rest)

    monkeypatch.setattr(generation._Writer, "_go_on", watched)
    monkeypatch.setattr(generation, "STRETCH", 4)
    return seen


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {}), ("llama", {}), ("gptj", {}), ("falcon", {}), ("falcon-alibi", {}),
        ("gemma2", {"sliding_window": 7}), ("cohere", {}), ("granite", {}),
    ],
)  # fmt: skip
def test_each_row_is_what_it_is_alone(tmp_path, kind, settings, rows):
    model = load(save_tiny(tmp_path / kind, kind, **settings))
    expected = alone(model)
    rows.clear()
    assert write(model) == expected
    assert rows[0] == len(PROMPTS)
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0]
    lengths = {len(row) for row in expected}
    assert len(lengths) > 3


def test_a_text_is_as_long_as_it_may_be_and_has_no_end_in_it(base):
    written = write(base, whole=24, ends=())
    lengths = [len(prompt) + len(row) for prompt, row in zip(PROMPTS, written, strict=True)]
    assert max(lengths) == 24
    ended = write(base, whole=24)
    for row, longer in zip(ended, written, strict=True):
        assert row == longer[: len(row)]
        assert not set(row) & set(ENDS)
        assert len(row) == len(longer) or longer[len(row)] in ENDS


@pytest.mark.long
def test_a_model_with_a_recurrent_state_is_not_given_padding(tmp_path, rows):
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=2_048, hidden_size=16, num_hidden_layers=2, state_size=4,
                         initializer_range=0.3, eos_token_id=0, pad_token_id=0)  # fmt: skip
    MambaForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path)
    model = load(tmp_path)
    expected = alone(model)
    rows.clear()
    assert write(model) == expected
    assert sorted(rows) == [1, 1, 1, 1, 2]


def test_a_prompt_without_room_is_an_error_of_the_caller(base):
    with pytest.raises(ValueError, match="no room for a continuation in 9 tokens"):
        write(base, whole=9)


def test_a_draw_that_is_near_is_noted_with_its_row_and_its_first_step():
    sampler = CounterSampler([1, 2, 3], 1.0, top_k=1)
    clear = torch.tensor([[0.0, 50.0], [0.0, 50.0], [0.0, 50.0]])
    sampler(None, clear)
    sampler.keep([0, 2])
    sampler(None, torch.tensor([[0.0, 50.0], [50.0, 50.0]]))
    sampler(None, torch.tensor([[0.0, 50.0], [50.0, 50.0]]))
    assert sampler.first_close == [math.inf, math.inf, 1]
    assert sampler.close_calls == [False, False, True]


def test_a_row_is_not_written_again_for_what_is_drawn_after_its_end(base, monkeypatch, rows):
    monkeypatch.setattr(generation, "STRETCH", WHOLE)
    draw = CounterSampler.__call__

    def near_from_the_thirtieth(self, ids, scores):
        if self.step >= 30:
            self.first_close = [min(step, 30) for step in self.first_close]
        return draw(self, ids, scores)

    monkeypatch.setattr(CounterSampler, "__call__", near_from_the_thirtieth)
    lengths = [len(row) for row in write(base)]
    assert 0 < sum(length < 30 for length in lengths) < 6
    assert rows == [6] + [1] * sum(length >= 30 for length in lengths)


@pytest.mark.parametrize("places", [[3], range(len(PROMPTS))], ids=["alone", "side by side"])
def test_the_end_of_a_text_is_told_where_it_is_wanted_and_none_where_it_was_stopped(
    tmp_path, places
):
    model = load(save_tiny(tmp_path / "m"))
    plain, ended = write(model, places), write(model, places, with_end=True)
    for place, without, row in zip(places, plain, ended, strict=True):
        is_stopped = len(PROMPTS[place]) + len(without) == WHOLE
        assert row[: len(without)] == without
        assert len(row) == len(without) + (not is_stopped)
        assert is_stopped or row[-1] in ENDS
