"""UTF-16 and UTF-32 are told from UTF-8, with a mark and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.records.formats import columns_in, read_file
from raymia.spec.file import load_spec
from raymia.util.encodings import other_encoding
from raymia.util.errors import InputError
from raymia.util.strict_json import parse_json

ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
SAYS = {name: f"it is {name[:6].upper()} text; save it as UTF-8" for name in ENCODINGS}
ROWS = {
    "m.jsonl": '{"text": "one row"}\n{"text": "and another"}\n',
    "m.json": '[{"text": "one row"}]',
    "m.csv": "text,id\none row,1\n",
    "m.tsv": "text\tid\none row\t1\n",
    "m.txt": "one row\nand another\n",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ROWS)
def test_records_are_refused_by_the_name_of_their_encoding(
    tmp_path: Path, name: str, encoding: str
) -> None:
    """Without a mark UTF-16 of ASCII is UTF-8: lines of a .txt would be texts with NULs."""
    path = tmp_path / name
    path.write_bytes(ROWS[name].encode(encoding))
    for read in (lambda file: list(read_file(str(path), file, {"text_column": "text"})),
                 lambda file: columns_in(str(path), file)):  # fmt: skip
        with path.open("rb") as file, pytest.raises(InputError, match=f"{name}: {SAYS[encoding]}"):
            read(file)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_audit_file_and_json_are_refused_by_the_name_of_their_encoding(
    tmp_path: Path, encoding: str
) -> None:
    audit = tmp_path / "audit.yaml"
    audit.write_bytes("name: an audit\nseed: 1\n".encode(encoding))
    with pytest.raises(InputError, match=rf"audit\.yaml: {SAYS[encoding]}"):
        load_spec(audit)
    with pytest.raises(ValueError, match=SAYS[encoding]):
        parse_json(json.dumps({"model_type": "gpt2"}).encode(encoding))


@pytest.mark.parametrize("text", ["Преступление и наказание\nроман", "ทดสอบ ทดสอบ ทดสอบ\nสอง "])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_other_scripts_without_a_mark_are_told_by_their_spaces(text: str, encoding: str) -> None:
    assert other_encoding(text.encode(encoding)) == "UTF-16"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_utf8_is_taken_for_nothing_else(text: str) -> None:
    assert other_encoding(text.encode()) is None
    assert other_encoding(text.encode("utf-8-sig")) is None
