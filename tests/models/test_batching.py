"""Micro-batches: every sequence once, within the budget, smaller when memory is short."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raymia.models.batching import is_out_of_memory, length_sorted_batches, run_batched
from raymia.util.errors import RaymiaError

LENGTHS = st.lists(st.integers(0, 200), max_size=60)
MOST = st.one_of(st.none(), st.integers(1, 5))


LEAST = st.one_of(st.none(), st.integers(1, 300))


@given(LENGTHS, st.integers(1, 1_000), MOST, LEAST)
def test_each_sequence_is_in_one_batch_within_the_budget(lengths, budget, most, least):
    batches = list(length_sorted_batches(lengths, budget, most, least))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= budget or len(batch) == 1
        assert most is None or len(batch) <= most


@given(LENGTHS, st.integers(1, 1_000), LEAST)
def test_longest_come_first(lengths, budget, least):
    batches = length_sorted_batches(lengths, budget, None, least)
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)


@given(LENGTHS, st.integers(1, 300))
def test_batch_that_is_large_enough_has_little_padding(lengths, least):
    for batch in length_sorted_batches(lengths, 10**6, None, least):
        padded = len(batch) * lengths[batch[0]]
        padding = padded - sum(lengths[i] for i in batch)
        assert padding <= padded / 8 or padded - lengths[batch[0]] < least


@given(LENGTHS, st.integers(1, 1_000), MOST)
def test_answers_come_back_in_input_order(lengths, budget, most):
    answers = run_batched(
        lengths, lambda batch: [f"#{i}" for i in batch], budget=budget, max_rows=most
    )
    assert answers == [f"#{i}" for i in range(len(lengths))]


@given(LENGTHS.filter(bool), st.integers(200, 400))
def test_with_little_memory_every_sequence_is_answered_once(lengths, memory):
    answered = []

    def run(batch):
        if len(batch) * max(lengths[i] for i in batch) > memory:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        answered.extend(batch)
        return batch

    assert run_batched(lengths, run, budget=10**6) == list(range(len(lengths)))
    assert sorted(answered) == list(range(len(lengths)))


def test_batch_that_does_not_fit_is_halved():
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return batch

    assert run_batched([10] * 16, run, budget=160) == list(range(16))
    assert sizes == [16, 8, 4, *[2] * 8]


def test_sequence_that_does_not_fit_alone_is_named_by_its_length():
    def run(_):
        raise MemoryError

    with pytest.raises(RaymiaError, match="one sequence of 77 tokens"):
        run_batched([77, 5], run, budget=1_000)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("bad value"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, is_memory):
    assert is_out_of_memory(error) is is_memory
