"""Blocks are cut while a stream runs."""

from __future__ import annotations

import threading
import time

import pyarrow as pa
import pytest
import ray
from rich.console import Console

from raymia.engine.on_ray import source as sources
from raymia.engine.on_ray.board import started
from raymia.engine.on_ray.shelf import Shelf
from raymia.engine.on_ray.source import Source, fetched, unwrapped, wrapped

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


class Here:
    """A board in this process, of one stream; calls are counted."""

    def __init__(self):
        self.shelf = Shelf()
        self.fills = 0
        self.most = 0

    def fill(self, _, blocks, gone, end):
        self.fills += 1
        found = self.shelf.fill(blocks, gone, end)
        self.most = max(self.most, len(self.shelf.blocks))
        return found

    def take(self, _, number):
        return self.shelf.take(number)

    def close(self, _):
        self.shelf.close()


def blocks_of(records):
    """Blocks of whole numbers, each as large as is said before it."""

    def make(size):
        first = 0
        while first < records:
            stop = min(records, first + size())
            yield pa.table({"record": list(range(first, stop))})
            first = stop

    return make


def none():
    """Ends nothing."""


def source_of(board, records, wanted, most=4_000):
    return Source(board, "0", blocks_of(records), records=records, wanted=wanted, most=most)


def taken(source, board, key="0"):
    """The records of each block, as an actor that takes one number after another has them."""
    found = []
    for number in range(source.numbers):
        block = fetched(board, key, number)
        if block is None:
            break
        found.append(block["record"].to_pylist())
        source.passed(number)
    return found


@pytest.fixture(autouse=True)
def _no_idling(monkeypatch):
    monkeypatch.setattr(sources, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(sources, "LOOK_SECONDS", 0.01)


def test_blocks_are_of_the_size_that_is_known_when_they_are_cut():
    board, size = Here(), [4]
    source = source_of(board, 400, lambda: size[0])
    assert (source.numbers, source.expected) == (400, 100)
    assert source_of(Here(), 400, lambda: 40).numbers == 40
    with source.filling(none):
        first = [fetched(board, "0", number)["record"].to_pylist() for number in range(2)]
        size[0] = 50
        deadline = time.monotonic() + 60
        while board.shelf.end is None and time.monotonic() < deadline:
            fetched(board, "0", board.shelf.asked)
            time.sleep(0.02)
    lengths = [len(records) for records in first]
    assert lengths == [4, 4]
    made = [len(ray.get(kept[0])) for kept in board.shelf.blocks.values()]
    assert sum(made) == 400
    assert made.count(50) >= 5
    assert board.shelf.end < 40


def test_every_record_is_in_one_block_in_order():
    board = Here()
    source = source_of(board, 95, lambda: 7)
    with source.filling(none):
        found = taken(source, board)
    assert [record for block in found for record in block] == list(range(95))
    assert [len(block) for block in found] == [7] * 13 + [4]


def test_blocks_that_would_become_too_many_grow():
    board, sizes = Here(), iter([10, 10])
    source = source_of(board, 95, lambda: next(sizes, 1), most=20)
    with source.filling(none):
        found = taken(source, board)
    assert (source.expected, source.numbers) == (10, 20)
    assert [len(block) for block in found] == [10] + [5] * 9 + [4] * 10


def test_blocks_of_a_size_that_is_given_keep_it_however_many_they_are():
    board = Here()
    source = source_of(board, 95, lambda: 2, most=10)
    with source.filling(none):
        found = taken(source, board)
    assert [len(block) for block in found] == [2] * 47 + [1]


def test_blocks_that_have_passed_are_let_go():
    board = Here()
    source = source_of(board, 3_000, lambda: 10)
    with source.filling(none):
        assert len(taken(source, board)) == 300
        time.sleep(0.1)
    assert board.most < 200
    assert len(board.shelf.blocks) < 200
    assert not source._held


def test_what_goes_wrong_with_the_first_blocks_is_raised_at_once():
    def make(size):
        yield pa.table({"record": list(range(size()))})
        raise OSError("no neighbors there")

    board, ended = Here(), []
    source = Source(board, "0", make, records=100, wanted=lambda: 5, most=100)
    with pytest.raises(OSError, match="no neighbors there"), source.filling(ended.append):
        raise AssertionError("not reached")


def test_what_goes_wrong_while_blocks_are_made_ends_the_stream():
    given_up = threading.Event()

    def make(size):
        for _ in range(sources.AHEAD + 1):
            yield pa.table({"record": list(range(size()))})
        raise OSError("no neighbors there")

    board = Here()
    source = Source(board, "0", make, records=100, wanted=lambda: 5, most=100)
    with source.filling(given_up.set):
        for number in range(sources.AHEAD + 1):
            assert fetched(board, "0", number).num_rows == 5
        assert given_up.wait(60)
    with pytest.raises(OSError, match="no neighbors there"):
        source.check()


def test_a_number_whose_block_has_passed_is_passed_on():
    """As a call that Ray repeats, though what it gave was taken."""
    board = Here()
    source = source_of(board, 20, lambda: 5)
    with source.filling(none):
        assert fetched(board, "0", 0).num_rows == 5
        source.passed(0)
        time.sleep(0.1)
        assert fetched(board, "0", 0) is None
        assert fetched(board, "0", 1).num_rows == 5


def test_a_board_that_is_away_for_a_moment_is_looked_at_again():
    class Away(Here):
        def fill(self, *given):
            if 3 <= self.fills < 6:
                self.fills += 1
                raise ray.exceptions.RayError("away")
            return super().fill(*given)

    board = Away()
    source = source_of(board, 95, lambda: 7)
    with source.filling(none):
        found = taken(source, board)
    assert [record for block in found for record in block] == list(range(95))
    assert board.most <= 14


def test_an_actor_that_is_started_again_is_given_its_blocks_again():
    with started(Console(quiet=True)) as board:
        source = source_of(board, 60, lambda: 5)
        with source.filling(none):
            first = [fetched(board, "0", number)["record"].to_pylist() for number in range(3)]
            ray.kill(board.actor, no_restart=False)
            again = [fetched(board, "0", number)["record"].to_pylist() for number in range(12)]
    assert again[:3] == first
    assert [record for block in again for record in block] == list(range(60))


def test_an_actor_waits_for_a_block_that_is_not_cut_yet():
    board, given = Here(), threading.Event()

    def make(size):
        yield pa.table({"record": list(range(size()))})
        assert given.wait(60)
        yield pa.table({"record": list(range(size()))})

    source = Source(board, "0", make, records=10, wanted=lambda: 5, most=10)
    filling = threading.Thread(target=source._fill, args=(2, threading.Event()))
    filling.start()
    threading.Timer(0.3, given.set).start()
    assert fetched(board, "0", 1).num_rows == 5
    assert given.is_set()
    filling.join()


def test_a_number_without_a_block_is_passed_on_when_all_have_passed(monkeypatch):
    monkeypatch.setattr(sources, "IDLE_SECONDS", 60.0)
    board = Here()
    source = source_of(board, 5, lambda: 5)
    with source.filling(none):
        assert fetched(board, "0", 0).num_rows == 5
        began = time.monotonic()
        threading.Timer(0.3, board.close, args=("0",)).start()
        assert fetched(board, "0", 1) is None
    assert 0.2 < time.monotonic() - began < 30


def test_a_shelf_that_is_closed_holds_nothing_and_takes_nothing():
    shelf = Shelf()
    shelf.fill({0: ["a"], 1: ["b"]}, [0], None)
    assert shelf.blocks == {1: ["b"]}
    shelf.fill({0: ["a"]}, [], None)
    assert shelf.blocks == {1: ["b"]}, "what has passed does not come back"
    shelf.close()
    shelf.fill({2: ["c"]}, [], 3)
    assert not shelf.blocks
    assert shelf.take(2) == ("pass", [])


def test_a_block_comes_out_as_it_went_in():
    block = pa.table({
        "record_id": ["a", "b"], "payload": [{"text": "x"}, {"text": None}],
        "failed": pa.array([[], []], pa.list_(pa.struct([("target", pa.string())]))),
    })  # fmt: skip
    row = wrapped(7, block)
    assert row.num_rows == 1
    assert row["number"].to_pylist() == [7]
    assert unwrapped(row).equals(block)
    assert unwrapped(wrapped(8, None)) is None
    assert unwrapped(wrapped(9, block.slice(0, 0))).equals(block.slice(0, 0))
