"""Draws are functions of what they are for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, pearsonr

from raymia.util.draws import generator, gumbels, stream_key, uniforms

MASK = 2**64 - 1
WEYL, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(x):
    """SplitMix64's finalizer on Python integers."""
    x = ((x ^ (x >> 30)) * MIX_1) & MASK
    x = ((x ^ (x >> 27)) * MIX_2) & MASK
    return x ^ (x >> 31)


def unmix(x):
    """The finalizer backwards: every step of it can be undone."""

    def unshift(value, bits):
        found = value
        for _ in range(64 // bits + 1):
            found = value ^ (found >> bits)
        return found

    x = unshift(x, 31)
    x = unshift((x * pow(MIX_2, -1, 2**64)) & MASK, 27)
    return unshift((x * pow(MIX_1, -1, 2**64)) & MASK, 30)


def plain_bits(key, step, position):
    """The 64 bits behind one uniform, counted from position 1."""
    stream = mix((key ^ mix(((step + 1) * WEYL) & MASK)) & MASK)
    return mix((stream + position * WEYL) & MASK)


def key_with_bits(bits, step, position):
    """The key whose draw at a step and position has these bits."""
    stream = (unmix(bits) - position * WEYL) & MASK
    key = unmix(stream) ^ mix(((step + 1) * WEYL) & MASK)
    return key - 2**64 if key >= 2**63 else key


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10_000))
def test_uniforms_are_splitmix64_of_their_counters(key, step):
    drawn = uniforms(torch.tensor([key]), step, 3)[0].tolist()
    for position, value in enumerate(drawn, start=1):
        bits = plain_bits(key & MASK, step, position)
        assert value == pytest.approx((bits >> 11) * 2.0**-53, rel=1e-12, abs=2.0**-53)


def test_uniforms_are_uniform():
    keys = torch.tensor([stream_key("uniform", n) for n in range(200)])
    values = uniforms(keys, 0, 500).numpy().ravel()
    assert kstest(values, "uniform").pvalue > 1e-3
    assert values.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * values.size))
    assert values.var() == pytest.approx(1 / 12, rel=0.02)
    assert values.min() > 0
    assert values.max() < 1


@pytest.mark.parametrize("bits", [0, MASK, MASK - 1, 1 << 63])
def test_uniforms_stay_inside_the_open_interval_at_its_ends(bits):
    """A uniform of exactly 1 would be infinite Gumbel noise: its token would win over any logit."""
    key = key_with_bits(bits, step=5, position=2)
    assert plain_bits(key & MASK, 5, 2) == bits
    value = uniforms(torch.tensor([key]), 5, 3)[0, 1].item()
    assert 0 < value < 1
    assert torch.isfinite(gumbels(torch.tensor([key]), 5, 3)).all()


def test_gumbels_have_gumbel_moments():
    keys = torch.tensor([stream_key("gumbel", n) for n in range(200)])
    values = gumbels(keys, 0, 500).numpy().ravel()
    assert kstest(values, "gumbel_r").pvalue > 1e-3


def test_steps_positions_and_keys_are_uncorrelated():
    keys = torch.tensor([stream_key("correlation", n) for n in range(5_000)])
    first, second = uniforms(keys, 0, 2).numpy(), uniforms(keys, 1, 2).numpy()
    pairs = [
        (first[:, 0], second[:, 0]),
        (first[:, 0], first[:, 1]),
        (first[:-1, 0], first[1:, 0]),
        (first[:, 1], second[:, 0]),
    ]
    for a, b in pairs:
        assert abs(pearsonr(a, b).statistic) < 4 / np.sqrt(len(a))


def test_steps_do_not_repeat_positions():
    """Step s at position p must not be step s + 1 at position p - 1."""
    key = torch.tensor([stream_key("overlap")])
    drawn = [v for step in range(50) for v in uniforms(key, step, 50)[0].tolist()]
    assert len(set(drawn)) == len(drawn)


def test_rows_are_drawn_as_if_alone():
    keys = torch.tensor([stream_key("rows", n) for n in range(9)])
    together = uniforms(keys, 4, 6)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniforms(keys[order], 4, 6), together[order])
    assert torch.equal(uniforms(keys[3:4], 4, 6)[0], together[3])


def test_first_numbers_do_not_depend_on_how_many_are_drawn():
    keys = torch.tensor([stream_key("count")])
    assert torch.equal(uniforms(keys, 0, 10)[:, :4], uniforms(keys, 0, 4))


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "bc"), ("ab", "c")), ((1,), ("1",)), (("a", 1), (1, "a")), ((0,), (0, 0)), ((), ("",))],
)
def test_keys_tell_apart_what_they_are_for(one, other):
    assert stream_key(*one) != stream_key(*other)


@given(st.lists(st.one_of(st.integers(), st.text()), max_size=4))
def test_keys_fit_a_signed_64_bit_integer(parts):
    assert -(2**63) <= stream_key(*parts) < 2**63


def test_generators_are_functions_of_their_parts():
    assert generator(0, "mask", "r", 1).integers(0, 10**9, 5).tolist() == (
        generator(0, "mask", "r", 1).integers(0, 10**9, 5).tolist()
    )
    others = [generator(0, "mask", "r", n).integers(0, 10**9) for n in range(50)]
    assert len(set(others)) == 50


def test_draws_are_the_same_in_another_process():
    """Python's own hash changes from process to process; keys must not."""
    code = (
        "from raymia.util.draws import stream_key, generator;"
        "print(stream_key(7, 'fill', 'abc', 3), generator(7, 'abc').integers(0, 10**12))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = f"{stream_key(7, 'fill', 'abc', 3)} {generator(7, 'abc').integers(0, 10**12)}"
    assert there.stdout.strip() == here
