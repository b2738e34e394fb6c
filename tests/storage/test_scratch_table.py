"""Tables that lie in a file without a name."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from raymia.storage.scratch_table import ScratchTable
from raymia.util.errors import RaymiaError

SCHEMA = pa.schema([("record_id", pa.string()), ("sizes", pa.list_(pa.int16()))])


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def rows(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    columns = [[str(n) for n in numbers], [[n] * (n % 3) for n in numbers]]
    return pa.table(columns, schema=SCHEMA)


def test_what_was_written_is_read_in_the_same_pieces_and_takes_no_memory(place):
    scratch, before = ScratchTable(SCHEMA), pa.total_allocated_bytes()
    for first in (0, 1000, 2000):
        scratch.add(rows(first, 1000))
    table = scratch.table()
    assert table.equals(rows(0, 3000))
    assert [batch.num_rows for batch in table.to_batches()] == [1000] * 3
    assert pa.total_allocated_bytes() - before < table.nbytes / 10
    assert not [*place.iterdir()], "nothing is left of it, however the process ends"


def test_a_table_may_be_empty():
    assert ScratchTable(SCHEMA).table().equals(SCHEMA.empty_table())


def test_a_full_disk_is_named_with_what_to_do(place, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(RaymiaError, match=rf"{place}.*No space left.*TMPDIR"):
        ScratchTable(SCHEMA).add(rows(0, 10))
