"""Reading records: nothing vanishes, and what is wrong is said with its place."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.records.base import CONTRADICTION, SetAside, count_reasons
from raymia.records.structured import read_records
from raymia.records.texts import EMPTY, NOT_TEXT, SCHEMA, TOO_LONG, record_id
from raymia.spec import TextRecordsSpec
from raymia.util.errors import InputError
from raymia.util.reasons import REPEATED

STRANGE = [
    "plain",
    "naïve café — “quotes”",
    "🦄 emoji and 汉字",
    'with "quotes", commas,\nnew lines\r\nand\ttabs',
    "line\u2028separator and nul-like \x01 control",
    "  spaces kept  ",
]


def write(path, rows, column="text"):
    path = str(path)
    if path.endswith(".jsonl"):
        lines = "".join(json.dumps({column: r}, ensure_ascii=False) + "\n" for r in rows)
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            file.write(lines)
    elif path.endswith(".csv"):
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerows([[column, "other"], *([r, "x"] for r in rows)])
    else:
        pq.write_table(pa.table({column: pa.array(rows, pa.string())}), path)
    return path


def read(**files):
    return read_records(TextRecordsSpec(**files))


def problems(**files):
    with pytest.raises(InputError) as caught:
        read(**files)
    return caught.value.problems


def payloads(records, is_member):
    rows = records.table.to_pylist()
    return [r["payload"] for r in rows if r["is_member"] is is_member]


# ----------------------------------------------------------------------- round trips


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_texts_are_read_as_they_were_written(tmp_path, suffix):
    records = read(members=write(tmp_path / f"m.{suffix}", STRANGE))
    assert payloads(records, True) == STRANGE
    assert records.set_aside == []
    assert records.table.schema == SCHEMA


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_same_text_has_the_same_id_in_every_format(tmp_path, suffix):
    records = read(candidates=write(tmp_path / f"c.{suffix}", STRANGE))
    assert records.table["record_id"].to_pylist() == [record_id(t) for t in STRANGE]


def test_files_on_other_filesystems_are_read(tmp_path):
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/{tmp_path.name}/m.jsonl", b'{"text": "over the wire"}\n')
    records = read(members=f"memory://{tmp_path.name}/m.jsonl")
    assert payloads(records, True) == ["over the wire"]


def test_byte_order_mark_is_no_part_of_a_file(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n')
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbftext\ntwo\n")
    records = read(members=[str(tmp_path / "m.jsonl"), str(tmp_path / "m.csv")])
    assert payloads(records, True) == ["one", "two"]


def test_column_can_be_named(tmp_path):
    path = write(tmp_path / "m.csv", ["a", "b"], column="body")
    assert payloads(read(members=path, text_column="body"), True) == ["a", "b"]


def test_classes_are_kept_apart(tmp_path):
    records = read(
        members=write(tmp_path / "m.jsonl", ["a", "b"]),
        non_members=[write(tmp_path / "n.csv", ["c"]), write(tmp_path / "o.csv", ["d"])],
        candidates=write(tmp_path / "c.parquet", ["e"]),
    )
    assert payloads(records, True) == ["a", "b"]
    assert payloads(records, False) == ["c", "d"]
    assert payloads(records, None) == ["e"]
    assert [records.count(x) for x in (True, False, None)] == [2, 2, 1]


def test_blank_lines_of_jsonl_are_no_records_and_count_as_lines(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"text": "a"}\n\n{"text": ""}\n')
    records = read(members=str(tmp_path / "m.jsonl"))
    assert [a.where for a in records.set_aside] == [f"{tmp_path / 'm.jsonl'} line 3"]


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_ids_differ_where_texts_do(text):
    assert record_id(text) == record_id(str(text))
    assert record_id(text) != record_id(text + " ")


# ------------------------------------------------------------------------- set aside


def test_unusable_rows_are_set_aside_with_place_and_reason(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = ["good", "", " \n\t", None, 7, 1.5, True, ["x"], {"a": 1}]
    path.write_text("".join(json.dumps({"text": r}) + "\n" for r in rows))
    records = read(members=str(path))
    assert payloads(records, True) == ["good"]
    assert [(a.where, a.reason) for a in records.set_aside] == [
        (f"{path} line 2", EMPTY),
        (f"{path} line 3", EMPTY),
        (f"{path} line 4", f"{NOT_TEXT} but null"),
        (f"{path} line 5", f"{NOT_TEXT} but int"),
        (f"{path} line 6", f"{NOT_TEXT} but float"),
        (f"{path} line 7", f"{NOT_TEXT} but bool"),
        (f"{path} line 8", f"{NOT_TEXT} but list"),
        (f"{path} line 9", f"{NOT_TEXT} but dict"),
    ]


def test_a_text_that_is_too_long_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr("raymia.records.texts.MAX_TEXT", 10)
    records = read(members=write(tmp_path / "m.jsonl", ["x" * 10, "y" * 11]))
    assert payloads(records, True) == ["x" * 10]
    assert [a.reason for a in records.set_aside] == [f"{TOO_LONG}; came: 11"]


def test_short_row_of_csv_is_set_aside(tmp_path):
    (tmp_path / "m.csv").write_text("id,text\n1,a\n2\n3,b\n")
    records = read(members=str(tmp_path / "m.csv"))
    assert payloads(records, True) == ["a", "b"]
    assert [a.where for a in records.set_aside] == [f"{tmp_path / 'm.csv'} row 2"]


def test_null_of_parquet_is_set_aside_with_its_row(tmp_path):
    records = read(members=write(tmp_path / "m.parquet", ["a", None, "b"]))
    assert [a.where for a in records.set_aside] == [f"{tmp_path / 'm.parquet'} row 2"]


def test_text_that_no_encoding_can_hold_is_set_aside(tmp_path):
    r"""JSON may spell half of a surrogate pair (\ud83d), which is no character."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"text": "good"}\n{"text": "half an emoji \\ud83d"}\n')
    records = read(members=str(path))
    assert payloads(records, True) == ["good"]
    assert [a.where for a in records.set_aside] == [f"{path} line 2"]


def test_repetition_is_set_aside_with_the_place_of_the_first(tmp_path):
    one, two = write(tmp_path / "1.jsonl", ["a", "b", "a"]), write(tmp_path / "2.jsonl", ["b"])
    records = read(members=[one, two])
    assert payloads(records, True) == ["a", "b"]
    assert records.set_aside == [
        SetAside(f"{one} line 3", record_id("a"), f"{REPEATED} {one} line 1"),
        SetAside(f"{two} line 1", record_id("b"), f"{REPEATED} {one} line 2"),
    ]


def test_text_that_is_member_and_non_member_is_set_aside_twice(tmp_path):
    one, two = write(tmp_path / "m.jsonl", ["a", "x"]), write(tmp_path / "n.jsonl", ["x", "b"])
    records = read(members=one, non_members=two)
    assert (payloads(records, True), payloads(records, False)) == (["a"], ["b"])
    assert [(a.where, a.reason) for a in records.set_aside] == [
        (f"{one} line 2", CONTRADICTION),
        (f"{two} line 1", CONTRADICTION),
    ]


@pytest.mark.parametrize("known", ["members", "non_members"])
def test_candidate_that_is_known_is_set_aside_as_a_candidate(tmp_path, known):
    one, two = write(tmp_path / "k.jsonl", ["a"]), write(tmp_path / "c.jsonl", ["b", "a"])
    records = read(**{known: one, "candidates": two})
    assert payloads(records, known == "members") == ["a"]
    assert payloads(records, None) == ["b"]
    assert records.set_aside == [
        SetAside(f"{two} line 2", record_id("a"), f"{REPEATED} {one} line 1")
    ]


@given(st.lists(st.sampled_from(["a", "b", "c", "", " ", "d"]), min_size=1, max_size=20))
def test_every_row_is_a_record_or_set_aside(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("r") / "m.jsonl", ["always", *rows])
    records = read(members=path)
    assert records.table.num_rows + len(records.set_aside) == len(rows) + 1
    assert len(set(records.table["record_id"].to_pylist())) == records.table.num_rows


def test_reasons_are_counted_the_most_frequent_first():
    reasons = [EMPTY, f"{REPEATED} x line 1", f"{REPEATED} x line 2"]
    assert list(count_reasons(reasons).items()) == [
        (f"{REPEATED} another record", 2), (EMPTY, 1),
    ]  # fmt: skip


def test_what_came_is_left_out_of_counts_unless_all_had_the_same():
    def counts(*reasons):
        return count_reasons(reasons)

    assert counts("too large; came: 5", "too large; came: 6", "other") == {
        "too large": 2,
        "other": 1,
    }
    assert counts("too large; came: 5", "too large; came: 5") == {"too large; came: 5": 2}


def test_more_records_than_fit_into_a_batch_of_the_table_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("raymia.records.base._ROWS_PER_BATCH", 2)
    texts = [f"text {i}" for i in range(7)]
    records = read(
        members=write(tmp_path / "m.jsonl", texts[:5]),
        candidates=write(tmp_path / "c.jsonl", texts[5:]),
    )
    assert records.table["payload"].to_pylist() == texts
    assert [records.count(x) for x in (True, None)] == [5, 2]


def test_no_more_than_a_batch_of_bytes_is_held_before_it_is_written(tmp_path, monkeypatch):
    """Else arrow makes several arrays of long texts, and large images fill the memory."""
    monkeypatch.setattr("raymia.records.base._BYTES_PER_BATCH", 12)
    texts = [*(f"text {i}" for i in range(5)), "a text that is longer than a batch", "text 6"]
    payloads = read(members=write(tmp_path / "m.jsonl", texts)).table["payload"]
    assert payloads.to_pylist() == texts
    assert [len(batch) for batch in payloads.chunks] == [2, 2, 2, 1]


# --------------------------------------------------------------------------- refused


def test_all_unusable_files_are_named_together(tmp_path):
    found = problems(
        members=[str(tmp_path / "no.jsonl"), write(tmp_path / "m.csv", ["a"], column="body")],
        non_members=str(tmp_path / "gone.parquet"),
    )
    assert found[0].startswith(f"{tmp_path / 'no.jsonl'}: no such file; relative paths start at")
    assert "no column 'text'; found: body, other" in found[1]
    assert "text_column" in found[1]
    assert found[2].startswith(f"{tmp_path / 'gone.parquet'}: no such file")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_missing_column_lists_those_found(tmp_path, suffix):
    path = write(tmp_path / f"m.{suffix}", ["a"], column="body")
    (found,) = problems(members=path)
    assert found.startswith(path)
    assert "no column 'text'; found: body" in found


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "b"', "line 2: not valid JSON (Expecting ',' delimiter, at character 14); each"),
        ('"just a text"', "line 2: each line should be an object"),
        ('["a"]', "line 2: each line should be an object"),
    ],
)
def test_malformed_jsonl_is_refused_with_its_line(tmp_path, line, says):
    path = tmp_path / "m.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n")
    (found,) = problems(members=str(path))
    assert found.startswith(f"{path} {says}")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_file_that_is_not_utf8_is_refused(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    content = "text\ncaf\xe9\n" if suffix == "csv" else '{"text": "caf\xe9"}\n'
    path.write_bytes(content.encode("latin-1"))
    (found,) = problems(members=str(path))
    assert found.startswith(f"{path}: not UTF-8 text")
    assert found.endswith("save it as UTF-8")


@pytest.mark.parametrize("content", ['text\n"open quote', 'text\n"a"b,c\n', '"text"x,b\na,b\n'])
def test_malformed_csv_is_refused_with_its_place(tmp_path, content):
    path = tmp_path / "m.csv"
    path.write_text(content)
    (found,) = problems(members=str(path))
    assert found.startswith(str(path))
    assert "not valid CSV" in found


def test_a_quote_that_is_wrong_is_refused_with_the_line_it_stands_on(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('text\n"one"\n"two\nlines" of text\n')
    (found,) = problems(members=str(path))
    assert found.startswith(f"{path} near line 4: not valid CSV")


def test_a_row_of_more_fields_than_columns_is_refused_and_not_cut_at_its_comma(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("text,label\nwhole,1\ncut, here, and there,1\n")
    (found,) = problems(members=str(path))
    assert found.startswith(
        f"{path} row 2: 4 fields under a header of 2; put texts that hold commas"
    )


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"PAR1" + b"\x00" * 50 + b"PAR1"])
def test_damaged_parquet_is_refused(tmp_path, content):
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    (found,) = problems(members=str(path))
    assert found.startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["m.doc", "m.parquet.gz", "m.xlsx", "m", "m.jsonl.bz2"])
def test_other_formats_are_refused_with_those_that_are_read(tmp_path, name):
    path = tmp_path / name
    path.write_text("a")
    (found,) = problems(members=str(path))
    assert found.startswith(str(path))
    assert "names end in .jsonl, .ndjson, .json, .csv, .tsv, .txt, .parquet" in found


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "m.jsonl").mkdir()
    (found,) = problems(members=str(tmp_path / "m.jsonl"))
    assert found.startswith(f"{tmp_path / 'm.jsonl'}: ")


def test_unknown_filesystem_is_refused():
    (found,) = problems(members="nosuchfs://x/m.jsonl")
    assert found.startswith("nosuchfs://x/m.jsonl: ")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_file_without_rows_is_refused(tmp_path, suffix):
    (found,) = problems(members=write(tmp_path / f"m.{suffix}", []))
    assert found.startswith("records.members: not one usable record")
    assert "(no rows)" in found


def test_class_without_one_usable_record_is_refused_with_reasons(tmp_path):
    good = write(tmp_path / "m.jsonl", ["a"])
    (found,) = problems(members=good, non_members=write(tmp_path / "n.jsonl", ["", " ", ""]))
    assert found.startswith("records.non_members: not one usable record")
    assert f"3 x {EMPTY}" in found


def test_members_that_are_all_non_members_are_refused(tmp_path):
    one, two = write(tmp_path / "m.jsonl", ["a"]), write(tmp_path / "n.jsonl", ["a"])
    found = problems(members=one, non_members=two)
    reason = f"(set aside: 1 x {CONTRADICTION})"
    assert [text.endswith(reason) for text in found] == [True, True]


def test_each_class_without_a_usable_record_is_named_with_its_own_reasons(tmp_path):
    one, two = write(tmp_path / "m.jsonl", ["", " "]), write(tmp_path / "n.jsonl", [""])
    found = problems(members=one, non_members=two)
    assert found[0].endswith(f"m.jsonl (set aside: 2 x {EMPTY})")
    assert found[1].endswith(f"n.jsonl (set aside: 1 x {EMPTY})")


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"caf\xe9.md"])
def test_a_file_whose_name_is_no_unicode_is_read_or_named_with_a_question_mark(tmp_path, name):
    """Linux has such names; a report, and the column of places, hold none."""
    write(tmp_path / "a.jsonl", ["one", ""])
    content = b'{"text": "two"}\n{"text": ""}\n{"text": "one"}\n'
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(content)
    except OSError:
        pytest.skip("this filesystem has no such names")
    records = read(members=[str(tmp_path)])
    places = [one.where.removeprefix(f"{tmp_path}/") for one in records.set_aside]
    if name.endswith(b".md"):
        assert places == ["a.jsonl line 2", "caf?.md"]
    else:
        assert payloads(records, True) == ["one", "two"]
        assert places == ["a.jsonl line 2", "caf?.jsonl line 2", "caf?.jsonl line 3"]
    json.dumps(places, ensure_ascii=False).encode()
