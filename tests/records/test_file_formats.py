"""File formats: which files a path means, and which rows come from each."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import suppress
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.records import formats
from raymia.records.formats import CUT_OFF, TOO_LONG
from raymia.records.structured import read_records
from raymia.records.tables import NO_TABLE, read_rows
from raymia.records.texts import EMPTY
from raymia.spec import TextRecordsSpec
from raymia.util.credentials import sayable
from raymia.util.errors import InputError

TEXTS = ["one", "two, with a comma", 'three "quoted"\nlines', "vier, größer"]


def rows(path, **columns):
    return [
        (row.where.removeprefix(str(path)).strip(), row.reason or row.values["text_column"])
        for row in read_rows(str(path), {"text_column": "text", **columns})
    ]


def texts(path):
    return [text for _, text in rows(path)]


def problem(path, **columns):
    with pytest.raises(InputError) as caught:
        rows(path, **columns)
    (found,) = caught.value.problems
    assert found.startswith(sayable(str(path)))
    return found


def lines(given=TEXTS):
    return "".join(json.dumps({"text": text}) + "\n" for text in given).encode()


# ------------------------------------------------------------------------ one file


def table(given, separator):
    quoted = ('"' + text.replace('"', '""') + '"' for text in given)
    return "".join(f"{row}{separator}x\n" for row in ("text", *quoted)).encode()


def zstd(content):
    half = len(content) // 2  # two frames, as appending writers leave them
    pieces = (content[:half], content[half:])
    return b"".join(pa.Codec("zstd").compress(piece).to_pybytes() for piece in pieces)


def arrow(writer):
    table, out = pa.table({"id": [1, 2, 3, 4], "text": TEXTS}), pa.BufferOutputStream()
    with writer(out, table.schema) as stream:
        for batch in table.to_batches(max_chunksize=3):
            stream.write_batch(batch)
    return out.getvalue().to_pybytes()


WRITTEN = {
    "m.jsonl": lines(),
    "m.NDJSON": lines(),
    "m.json": json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
    "lines.json": b"\xef\xbb\xbf" + lines(),
    "m.csv": table(TEXTS, ","),
    "m.tsv": table(TEXTS, "\t"),
    "m.jsonl.gz": gzip.compress(lines(TEXTS[:2])) + gzip.compress(lines(TEXTS[2:])),
    "m.jsonl.zst": zstd(lines()),
    "m.json.gz": gzip.compress(json.dumps([{"text": text} for text in TEXTS]).encode()),
    "m.csv.zst": zstd(table(TEXTS, ",")),
    "m.arrow": arrow(pa.ipc.new_stream),
    "m.feather": arrow(pa.ipc.new_file),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_text_is_the_same_in_every_format(tmp_path, name):
    (tmp_path / name).write_bytes(WRITTEN[name])
    assert texts(tmp_path / name) == TEXTS


def test_a_text_file_has_one_record_a_line(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(b"\xef\xbb\xbffirst\r\n\n  third, with spaces\nlast")
    spec = TextRecordsSpec(members=str(path))
    found = read_records(spec)
    assert found.table["payload"].to_pylist() == ["first", "  third, with spaces", "last"]
    assert [(a.where, a.reason) for a in found.set_aside] == [(f"{path} line 2", EMPTY)]
    assert "no columns, so none for group_column" in problem(path, group_column="document")


def test_a_key_that_a_row_lacks_is_a_null_there(tmp_path):
    """Spark and others leave nulls out."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": 1}\n{"text": "a"}\n{"text": "b", "doc": 3}\n')
    found = list(read_rows(str(path), {"text_column": "text", "group_column": "doc"}))
    assert [dict(row.values) for row in found] == [
        {"text_column": None, "group_column": None},
        {"text_column": "a", "group_column": None},
        {"text_column": "b", "group_column": 3},
    ]
    assert "no column 'txt'; found: id. Name the right one as group_column" in problem(
        path, group_column="txt"
    )


@pytest.mark.parametrize("lines", ['{"id": 1}\n{"text": "a"}\n', '[{"id": 1}, {"text": "a"}]'])
def test_a_record_whose_row_has_no_key_for_it_is_set_aside_saying_so(tmp_path, lines):
    path = tmp_path / ("m.json" if lines[0] == "[" else "m.jsonl")
    path.write_text(lines)
    (aside,) = read_records(TextRecordsSpec(members=str(path))).set_aside
    assert aside.reason == "no key 'text'"
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"id": 1}\n{"messages": [{"role": "user", "content": "a"}]}\n')
    (aside,) = read_records(TextRecordsSpec(members=str(chats)), "chat").set_aside
    assert aside.reason == "no key 'messages'"


def test_semicolons_between_the_fields_of_a_csv_are_named(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("id;text\n1;one, or two\n")
    assert "its header has semicolons between its fields (id;text)" in problem(path)
    path.write_text("id;text\na\n")
    assert rows(path, text_column="id;text") == [("row 1", "a")], "a name may hold one"


@pytest.mark.parametrize("end", [b'{"text": "cut in the mi', b'{"text": "caf\xc3', b'{"te'])
def test_a_last_line_that_is_cut_off_is_one_bad_record(tmp_path, end):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"text": "whole"}\n' + end)
    assert rows(path) == [("line 1", "whole"), ("line 2", CUT_OFF)]
    path.write_bytes(b'{"text": "whole"}\n' + end + b'\n{"text": "after"}\n')
    assert problem(path)  # what is broken in the middle is no writer that was stopped
    path.write_bytes(end)
    assert problem(path)


@pytest.mark.parametrize(
    "row",
    [
        '{"text": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"text": ' + '{"a":' * 200 + "1" + "}" * 201,
        '{"text": ' + "7" * 5_000 + "}",
        '{"text": "a", "text": "b"}',
        '{"text": "a", "of": {"role": "x", "role": "y"}}',
    ],
    ids=["deep", "deeper than may be", "long number", "key twice", "inner key twice"],
)
def test_json_that_cannot_be_taken_is_one_bad_record(tmp_path, row):
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"text": "a"}}\n{row}\n{{"text": "b"}}\n')
    (_, (where, reason), _) = rows(path)
    assert (where, reason.partition(":")[0]) == ("line 2", "JSON that cannot be taken")
    assert len(reason) < 200
    array = tmp_path / "m.json"
    array.write_text(f'[{{"text": "a"}}, {row}]')
    if "twice" in reason:
        assert rows(array) == [("element 1", "a"), ("element 2", reason)]
    else:
        assert problem(array)


def test_two_columns_of_one_name_are_refused(tmp_path):
    csv, tsv, parquet = (tmp_path / f"m.{suffix}" for suffix in ("csv", "tsv", "parquet"))
    csv.write_text("text,id,text\na,1,b\n")
    tsv.write_text("text\ttext\na\tb\n")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, parquet)
    for path in (csv, tsv, parquet):
        assert "more than one column 'text'" in problem(path)
    csv.write_text("text,other,other\na,1,2\n")
    assert texts(csv) == ["a"]  # no one asks which is meant


@pytest.mark.parametrize("suffix", ["jsonl", "txt", "jsonl.gz"])
def test_no_more_is_held_of_a_line_that_is_too_long(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(formats, "MAX_LINE", 100)
    path = tmp_path / f"m.{suffix}"
    written = ["short", "x" * 1_000, "after"]
    content = "\n".join(written).encode() if suffix == "txt" else lines(written)
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert texts(path) == ["short", TOO_LONG, "after"]


def test_a_line_of_csv_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_LINE", 100)
    path = tmp_path / "m.csv"
    path.write_text("text\nshort\n" + "x" * 1_000 + "\n")
    assert " line 3: a line of more than" in problem(path)


def test_an_array_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_ARRAY_BYTES", 100)
    path = tmp_path / "m.json"
    path.write_bytes(WRITTEN["m.json"])
    assert "save it as JSONL" in problem(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl.gz", WRITTEN["m.jsonl.gz"][:-20]),
        ("m.jsonl.zst", WRITTEN["m.jsonl.zst"][:-4]),
        ("m.csv.gz", b"text\nnot compressed\n"),
        ("m.json", b'[{"text": "a"}'),
        ("m.json", b'[{"text": "a"}, "b"]'),
        ("m.json", b'{"text":\n"pretty"}\n'),
        ("m.tsv", b"text\tid\na\t1\t2\n"),
        ("m.jsonl", '{"text": "a"}'.encode("utf-16")),
        ("m.arrow", WRITTEN["m.arrow"][:-60]),
        ("m.feather", WRITTEN["m.feather"][:-60]),
        ("m.arrow", b""),
    ],
    ids=[
        "gz cut", "zst cut", "not gz", "no end", "not objects", "one object", "odd row", "utf-16",
        "stream cut", "file cut", "no stream",
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    problem(path)


# ---------------------------------------------------------------- what a path means


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "shards.jsonl"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "part-0.csv").write_text("text\nthird\n")
    (folder / "a-1.jsonl").write_bytes(lines(["second"]))
    (folder / "a-0.jsonl.gz").write_bytes(gzip.compress(lines(["first"])))
    for passed_over in ("_SUCCESS", ".a-1.jsonl.crc", "_delta.json"):
        (folder / passed_over).write_text("x")
    assert texts(folder) == ["first", "second", "third"]
    (folder / "readme.md").write_text("x")
    assert ("/readme.md", NO_TABLE) in rows(folder)


def test_a_pattern_means_the_files_that_match_it(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        (tmp_path / name).write_bytes(lines([name]))
    assert texts(tmp_path / "*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert texts(tmp_path / "[b-z].js*") == ["b.jsonl"]
    assert "no file matches it" in problem(tmp_path / "*.tsv")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_folder_that_a_pattern_matches_is_read_beside_the_files(tmp_path, suffix):
    """As Spark and Dask write what is called as one file."""
    for name in (
        f"2022.{suffix}",
        f"2023.{suffix}/part-0.{suffix}",
        f"2023.{suffix}/part-1.{suffix}",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if suffix == "parquet":
            pq.write_table(pa.table({"text": [name]}), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(lines([name]))
    parts = [f"2023.{suffix}/part-{number}.{suffix}" for number in (0, 1)]
    assert texts(tmp_path / f"*.{suffix}") == [f"2022.{suffix}", *parts]
    (tmp_path / f"2023.{suffix}" / "notes.md").touch()
    assert (f"{tmp_path}/2023.{suffix}/notes.md", NO_TABLE) in rows(tmp_path / f"*.{suffix}")


def test_hidden_files_and_folders_are_matched_by_a_pattern_that_names_them_alone(tmp_path):
    for name in ("a.jsonl", "._a.jsonl", ".kept/b.jsonl", "run/.c.jsonl", "run/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines([name]))
    assert texts(tmp_path / "*.jsonl") == ["a.jsonl"]
    assert texts(tmp_path / "**" / "*.jsonl") == ["a.jsonl", "run/d.jsonl"]
    assert texts(tmp_path / ".kept" / "*.jsonl") == [".kept/b.jsonl"]
    assert texts(tmp_path / "*" / ".*.jsonl") == ["run/.c.jsonl"]


def test_a_pattern_on_another_filesystem(tmp_path):
    fs = fsspec.filesystem("memory")
    for name in ("b", "a"):
        fs.pipe_file(f"/{tmp_path.name}/{name}.jsonl", lines([name]))
    (one, _), two = rows(f"memory://{tmp_path.name}/*.jsonl")
    assert (one, two[1]) == (f"memory://{tmp_path.name}/a.jsonl line 1", "b")
    assert texts(f"memory://{tmp_path.name}") == ["a", "b"]


def test_a_folder_that_datasets_saved_is_the_table_in_it_and_one_of_splits_is_not(tmp_path):
    from datasets import Dataset, DatasetDict

    saved = Dataset.from_dict({"text": [*reversed(TEXTS)], "document": ["a", "a", "b", "b"]})
    chosen = saved.filter(lambda row: row["document"] == "b").select([1, 0])
    chosen.save_to_disk(tmp_path / "one", num_shards=2)
    assert texts(tmp_path / "one") == TEXTS[:2]
    assert "found: text, document" in problem(tmp_path / "one", group_column="author")
    DatasetDict(train=saved, test=chosen).save_to_disk(tmp_path / "all")
    with pytest.raises(InputError, match=r"all holds the splits of a dataset: test, train; name"):
        rows(tmp_path / "all")
    assert texts(tmp_path / "all" / "test") == TEXTS[:2]


@pytest.mark.parametrize(
    "name", ["what?.jsonl", "a::b.jsonl", "[1].jsonl", "a*.jsonl", "s3:x.jsonl", "a#b%20.jsonl"]
)
def test_signs_in_the_name_of_a_file_that_is_there_are_letters(tmp_path, name):
    (tmp_path / name).write_bytes(lines())
    assert texts(tmp_path / name) == TEXTS


@pytest.mark.parametrize("kind", ["empty folder", "folder of others", "pattern of others"])
def test_a_path_without_a_file_of_records_is_refused(tmp_path, kind):
    if kind != "empty folder":
        (tmp_path / "notes.md").write_text("x")
    path = tmp_path / "*.md" if kind == "pattern of others" else tmp_path
    problem(path)


def test_a_link_to_a_file_without_a_suffix_is_read_by_its_own_name(tmp_path):
    """As files are kept in the caches of Hugging Face and DVC."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b2c").write_bytes(lines())
    (tmp_path / "m.jsonl").symlink_to("blobs/0a1b2c")
    assert texts(tmp_path / "m.jsonl") == TEXTS


def bad_paths(folder):
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "dangling.jsonl").symlink_to("nowhere")
    (folder / "circle.jsonl").symlink_to("circle.jsonl")
    (folder / "device.jsonl").symlink_to("/dev/zero")
    return {
        "a named pipe": folder / "pipe.jsonl",
        "no such file": folder / "dangling.jsonl",
        "Too many levels": folder / "circle.jsonl",
        "a device": folder / "device.jsonl",
        "embedded null": f"{folder}/nul\0.jsonl",
        "too long": folder / ("x" * 300 + ".jsonl"),
        "no such file here": "no-such-folder-here/m.jsonl",
        "not known": "nosuchscheme://x/m.jsonl",
        "home": "~nobody-of-this-name/m.jsonl",
    }


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    for says, path in bad_paths(tmp_path).items():
        assert says.removesuffix(" here") in problem(path)


# --------------------------------------------------------------------------- fuzzed

PIECES = st.sampled_from(
    [b'{"text": "a"}', b"text\n", b"\n", b"\r", b",", b"\t", b'"', b"[", b"{", b"}", b"]", b"\0",
     b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"1e999", b"-" * 40, b"PAR1",
     b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"NaN", b":"]
)  # fmt: skip


def damaged(content):
    """Files that are nearly right: cut, with bytes changed, and with pieces put in."""
    at = st.integers(0, max(0, len(content) - 1))

    def put(change):
        place, piece, take = change
        return content[:place] + piece + content[place + take :]

    pieces = PIECES | st.binary(max_size=6)
    return st.tuples(at, pieces, st.integers(0, 30)).map(put) | at.map(lambda n: content[:n])


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", [*WRITTEN, "m.txt", "m.parquet"])
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("f")
    path = Path(folder, name)
    if name == "m.parquet":
        pq.write_table(pa.table({"text": TEXTS}), path)
        content = path.read_bytes()
    else:
        content = WRITTEN.get(name, b"one\ntwo\n")
    joined = st.lists(PIECES, max_size=12).map(b"".join)
    path.write_bytes(data.draw(damaged(content) | joined))
    with suppress(InputError):
        assert all(where for where, _ in rows(path))
