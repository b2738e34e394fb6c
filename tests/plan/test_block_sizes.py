"""How many records a block has where the audit file leaves it open, and what a plan says of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from io import StringIO

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from small_inputs import audit
from tiny_models import BASE, PARAPHRASER

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan import blocks
from raymia.plan.blocks import (
    BLOCKS_EACH,
    FIRST_RECORDS,
    MOST_QUESTIONS,
    MOST_RECORDS,
    BlockSize,
    BlockSizes,
    block_size,
)
from raymia.plan.estimate import estimate
from raymia.plan.missing import Missing
from raymia.plan.planning import plan_audit
from raymia.plan.pools import Pool, pools_of
from raymia.plan.rates import Rates
from raymia.report.estimate_table import estimate_table


@dataclass
class Line:
    done: int
    seconds: float


@pytest.fixture
def planned(tmp_path, tiny_gpt2):
    def make(targets=None, **resources):
        changes = {} if targets is None else {"targets": targets}
        spec = audit(
            tmp_path / "a", tiny_gpt2, PARAPHRASER, attacks=["loss", "neighbor", "difference@base"],
            references={"base": {"model": str(BASE)}}, resources=resources, **changes,
        )  # fmt: skip
        inputs, store = resolve_inputs(spec), EvidenceStore(str(tmp_path / "store"))
        return inputs, store, plan_audit(inputs, store)

    return make


def said(found):
    console = Console(file=StringIO(), width=200)
    console.print(estimate_table(found, None))
    return console.file.getvalue()


WORK = {"neighbors": Line(12, 12.0), "target:one": Line(18, 9.0), "reference:base": Line(12, 0.6)}
"""Of six records: the paraphraser takes 2 s for one."""


def test_until_anything_was_measured_a_block_is_small_and_the_plan_says_so(planned):
    inputs, store, plans = planned()
    found = estimate(inputs, plans, store)
    assert found.blocks == [BlockSize(FIRST_RECORDS, None)]
    assert f"blocks of {FIRST_RECORDS} records; how long one takes is not known" in said(found)


def test_the_first_blocks_are_smaller_where_a_record_takes_many_questions(planned, monkeypatch):
    """So that the first answers are stored soon."""
    _, _, plans = planned()
    pools = pools_of(plans.streams[0])
    most = max(sum(stage.to_ask for stage in pool.stages) for pool in pools)
    assert most > blocks.records_of(pools) == 6
    for questions, records in ((most // 2, 3), (most - 1, 5), (1, 1)):
        monkeypatch.setattr(blocks, "FIRST_QUESTIONS", questions)
        assert block_size(None, pools, lambda _: None).records == records


def test_a_block_takes_its_seconds_of_the_slowest_pool_and_the_plan_says_so(planned):
    inputs, store, plans = planned()
    Rates(store).keep_run(inputs, plans, WORK, store)
    found = estimate(inputs, plans, store)
    assert found.blocks == [BlockSize(1, pytest.approx(2.0))]
    assert "blocks of 1 record, each about 2.0 s of an actor of the slowest pool" in said(found)


def test_the_audit_file_has_the_last_word(planned):
    inputs, store, plans = planned(block_records=3)
    Rates(store).keep_run(inputs, plans, WORK, store)
    assert estimate(inputs, plans, store).blocks == [BlockSize(3, pytest.approx(6.0))]


def test_what_this_run_takes_counts_and_not_what_an_earlier_one_took(planned):
    inputs, store, plans = planned()
    Rates(store).keep_run(inputs, plans, WORK, store)
    lines = {"neighbors": Line(0, 0.0)}
    sizes = BlockSizes(inputs, plans.streams, store, lambda: lines)
    (stream,) = plans.streams
    assert sizes.records(stream) == sizes.smallest() == 1
    lines["neighbors"] = Line(8, 0.08)  # a hundredth of what they took
    assert sizes.of(stream) == BlockSize(1, pytest.approx(1.5))  # the target's three questions
    lines["target:one"] = Line(9, 0.09)
    assert sizes.of(stream).records == 40  # the reference's, a twentieth of a second for a record


@pytest.fixture
def two_targets(planned, tiny_gpt2):
    """In two precisions, so that they are two streams."""
    one = {"name": "one", "model": str(tiny_gpt2)}
    return planned(targets=[one, {**one, "name": "two", "dtype": "bfloat16"}])


@pytest.mark.parametrize("ask", [lambda s, one: s.records(one), lambda s, _: s.smallest()])
def test_the_board_is_looked_at_once_for_a_block_size(two_targets, ask):
    inputs, store, plans = two_targets
    assert len(plans.streams) == 2
    looks = []
    sizes = BlockSizes(inputs, plans.streams, store, lambda: looks.append(1) or {})
    assert ask(sizes, plans.streams[0]) == FIRST_RECORDS
    assert looks == [1]


def test_what_a_stream_asks_is_looked_at_once_for_all_its_blocks(planned, monkeypatch):
    inputs, store, plans = planned()
    Rates(store).keep_run(inputs, plans, WORK, store)
    looks = Counter()

    def noted(whole):
        def look(*given):
            looks[whole.__name__] += 1
            return whole(*given)

        return look

    for whole in (blocks.pools_of, blocks.records_of, blocks.stage_key):
        monkeypatch.setattr(blocks, whole.__name__, noted(whole))
    sizes = BlockSizes(inputs, plans.streams, store)
    assert [sizes.records(plans.streams[0]) for _ in range(3)] == [1, 1, 1]
    assert looks == {"pools_of": 1, "records_of": 1, "stage_key": len(plans.streams[0])}


def test_nothing_is_looked_at_where_the_audit_file_says_what_a_block_is(planned):
    inputs, store, plans = planned(block_records=3)

    def refuse():
        pytest.fail("the board was asked")

    sizes = BlockSizes(inputs, plans.streams, store, refuse)
    assert sizes.records(plans.streams[0]) == sizes.smallest() == 3


@pytest.mark.parametrize("actors", [1, 4])
@pytest.mark.parametrize("seconds", [1e-7, 1e-3, 0.02, 0.7, 3.0, 19.0, 60.0])
def test_a_block_takes_two_to_twenty_seconds_unless_one_record_takes_more(planned, seconds, actors):
    _, _, plans = planned(paraphraser={"actors": actors})
    pools = pools_of(plans.streams[0])
    size = block_size(None, pools, lambda stage: seconds / 2 * (stage.name == "neighbors"))
    assert size.seconds == pytest.approx(size.records * seconds)
    if size.records in (1, MOST_RECORDS):
        assert size.records == (1 if seconds > 1 else MOST_RECORDS)
    else:
        assert 1.9 <= size.seconds <= 20


@pytest.mark.parametrize("seconds", [None, 1e-7, 0.7, 60.0])
def test_many_records_have_larger_blocks_rather_than_more(planned, monkeypatch, seconds):
    _, _, plans = planned()
    pools = pools_of(plans.streams[0])
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 2)
    monkeypatch.setattr(blocks, "FIRST_RECORDS", 1)
    monkeypatch.setattr(blocks, "MOST_RECORDS", 1)
    size = block_size(None, pools, lambda _: seconds)
    assert size.records == 3  # of six
    assert block_size(2, pools, lambda _: seconds).records == 2  # the audit file has the last word


RECORDS = 10_000


@pytest.fixture
def adapters(planned):
    """A pool of so many adapters, each with two questions about each of many records."""
    _, _, plans = planned()
    (target,) = (stage for stage in plans.streams[0] if stage.role == "target")
    ids = pa.chunked_array([[f"{n}" for n in range(RECORDS)]])
    missing = Missing.of(ids, range(1), np.ones((RECORDS, 1), bool))
    asked = replace(target.questions[0], missing=missing)

    def make(count, **pool):
        spec = target.pool.model_copy(update=pool)
        stage = replace(target, questions=(asked, asked), pool=spec)
        return [Pool((stage,) * count, None)]

    return make


def number_of(size):
    return -(-RECORDS // size.records)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 10.0), (25, 10.0), (50, 20.0), (300, 120.0), (2_000, 120.0)]
)
def test_a_block_of_more_than_50_keys_takes_a_fifth_of_a_second_for_each(adapters, count, seconds):
    """So that a bucket that takes 0.1 s for a part is no slower than the device."""
    size = block_size(None, adapters(count), lambda _: 0.005)
    assert size.seconds == pytest.approx(seconds)
    assert number_of(size) == pytest.approx(RECORDS * 0.005 * 2 * count / seconds, abs=1)


@pytest.mark.parametrize("seconds", [0.0005, 0.005, 0.05])
def test_500_adapters_are_asked_for_longer_than_a_slow_bucket_takes_their_parts(adapters, seconds):
    size = block_size(None, adapters(500), lambda _: seconds)
    keys, put = 2 * 500, 0.1
    assert number_of(size) * keys * put <= RECORDS * keys * seconds


@pytest.mark.parametrize("pool", [{"actors": 100}, {"max_actors": 100}])
def test_many_keys_leave_each_actor_there_may_be_its_blocks(adapters, pool):
    size = block_size(None, adapters(500, **pool), lambda _: 0.005)
    assert number_of(size) == pytest.approx(100 * BLOCKS_EACH, rel=0.05)


def test_a_block_of_many_keys_has_no_more_questions_than_fit_in_memory(adapters):
    assert block_size(None, adapters(500), lambda _: 1e-4).records == MOST_QUESTIONS // 1_000
