"""Hashes of many strings at once, which decide what stored files mean."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from raymia.util.hashing import string_hashes

PINNED = [
    0, 17123789566204894052, 7312420101519423053, 13262575208485732605, 5183468287328969165,
    15413394149595243386,
]  # fmt: skip
WORD = 2**64
ODD = 0x9E3779B97F4A7C15


def transcribed(text):
    """The hash of one string in whole numbers of Python, as the docstrings say."""
    content = text.encode()
    value = len(content) * ODD % WORD
    for start in range(0, len(content), 8):
        value = (value ^ int.from_bytes(content[start : start + 8], "little")) * ODD % WORD
        value ^= value >> 32
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ value >> shift) * factor % WORD
    return value ^ value >> 31


def test_hashes_are_those_that_files_were_written_with():
    """Halves of records, and files of scores, are named by these values."""
    texts = ["", "a", "record 17", "é" * 9, "0123456789abcdef" * 2, "long " * 2_000]
    assert string_hashes(pa.array(texts)).tolist() == PINNED


def test_hashes_of_all_lengths_are_those_of_the_formula():
    draws = np.random.default_rng(0)
    lengths = [*range(70), *draws.integers(0, 3_000, 50).tolist(), 20_000]
    texts = ["".join(map(chr, draws.integers(1, 0x3FF, length))) for length in lengths]
    assert string_hashes(pa.array(texts)).tolist() == [transcribed(text) for text in texts]


@pytest.mark.long
@pytest.mark.parametrize("longest", [10_000, 1_000_000])
def test_one_long_string_among_many_takes_no_memory_for_the_others(longest):
    """Beside it 65,535 short ones: filled up to its length they took over 1 GiB."""
    texts = pa.array([*(f"name {n}" for n in range(2**16 - 1)), "x" * longest])
    tracemalloc.start()
    string_hashes(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


@pytest.mark.long
def test_many_long_strings_are_taken_a_few_at_a_time():
    texts = pa.array([f"{n:05d}" * 1_000 for n in range(20_000)])
    tracemalloc.start()
    string_hashes(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts.nbytes > 90 * 2**20
    assert peak < 48 * 2**20


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_hash_depends_on_its_string_alone(chunk):
    texts = ["", "a", "a\0", "aaaaaaaa", "aaaaaaaaa", "é", *map(str, range(200)), "x" * 100]
    alone = [int(string_hashes(pa.array([text]))[0]) for text in texts]
    parts = [texts[i : i + chunk] for i in range(0, len(texts), chunk)]
    together = string_hashes(pa.chunked_array(parts, pa.string()))
    assert together.tolist() == alone
    assert len({*alone}) == len(alone)
    sliced = pa.array(["skipped", *texts]).slice(1)
    assert string_hashes(sliced).tolist() == alone


def test_hashes_are_even():
    """Chi-squared over 256 bins, of the highest and of the lowest bits."""
    hashes = string_hashes(pa.array([f"record {i}" for i in range(100_000)]))
    for bits in (hashes >> np.uint64(56), hashes & np.uint64(255)):
        counts = np.bincount(bits.astype(np.int64), minlength=256)
        statistic = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
        assert 160 < statistic < 370  # 255 degrees of freedom, beyond 1 in 10,000 on each side
