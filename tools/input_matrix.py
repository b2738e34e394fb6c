"""What is made of each kind of input: tried, and written down as a table for docs/input.md."""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raymia.records.images import read_image_records
from raymia.records.structured import format_of_records, read_records
from raymia.records.texts import MAX_TEXT
from raymia.spec import ImageRecordsSpec, TextRecordsSpec
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

Write = Callable[[Path], object]
SHAPE = (3, 8, 8)


@dataclass(frozen=True)
class Case:
    """Something that is given, and how it is written to a folder, in which a path is read.

    Attributes
    ----------
    good : records in it that nothing is wrong with.
    """

    what: str
    path: str
    write: Write
    good: int = 1


def _bytes(name: str, content: bytes | str) -> Write:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def _file(what: str, name: str, content: bytes | str, good: int = 1) -> Case:
    return Case(what, name, _bytes(name, content), good)


def _rows(what: str, *rows: dict[str, Any]) -> Case:
    return _file(what, "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _parquet(what: str, values: list[str | None], names: list[str], good: int = 1) -> Case:
    table = pa.Table.from_arrays([pa.array(values, pa.string()) for _ in names], names=names)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return _file(what, "m.parquet", buffer.getvalue(), good)


def _arrow(what: str, name: str) -> Case:
    return _file(what, "m.arrow", _arrow_stream(name))


def _arrow_stream(name: str) -> bytes:
    table, out = pa.table({name: ["good"]}), pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    content: bytes = out.getvalue().to_pybytes()
    return content


def _saved_by_datasets(folder: Path, *names: str) -> None:
    """What `datasets` leaves, with one row of each."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "data-00000-of-00001.arrow").write_bytes(_arrow_stream("text"))
        (folder / name / "state.json").write_text('{\n"_split": null}')
        (folder / name / "dataset_info.json").write_text("{\n}")
    if names[1:]:
        (folder / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')


GOOD = '{"text": "good"}\n'
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHARE_GPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
TOKENS = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
TEXTS = {
    "JSONL (`.jsonl`, `.ndjson`; `.gz`, `.zst`)": [
        _file("an object on each line", "m.jsonl", GOOD),
        _file("the same compressed", "m.ndjson.gz", gzip.compress(GOOD.encode())),
        _file("compressed and cut off", "m.jsonl.gz", gzip.compress(GOOD.encode())[:-9]),
        _file("blank lines, a byte order mark", "m.jsonl", "\ufeff\n" + GOOD + "\n"),
        _file("a row without the key", "m.jsonl", GOOD + '{"id": 1}\n'),
        _file("no row with the key", "m.jsonl", '{"id": 1}\n'),
        _file("null, a number, a list", "m.jsonl", GOOD + '{"text": null}\n'),
        _file("an empty text", "m.jsonl", GOOD + '{"text": " "}\n'),
        _file("half of a surrogate pair", "m.jsonl", GOOD + '{"text": "\\ud83d"}\n'),
        _file("a key written twice", "m.jsonl", GOOD + '{"text": "a", "text": "b"}\n'),
        _file("nested deeply", "m.jsonl", GOOD + '{"text": ' + "[" * 200 + "]" * 200 + "}\n"),
        _file("a last line that is cut off", "m.jsonl", GOOD + '{"text": "a'),
        _file("a broken line before the last", "m.jsonl", '{"text": "a\n' + GOOD),
        _file("a line that is no object", "m.jsonl", GOOD + '"a"\n'),
        _file("not UTF-8", "m.jsonl", '{"text": "caf\xe9"}\n'.encode("latin-1")),
        _file("a very long text", "m.jsonl", GOOD + json.dumps({"text": "x" * (MAX_TEXT + 1)})),
        _file("the same text again", "m.jsonl", GOOD + GOOD),
    ],
    "JSON (`.json`; compressed)": [
        _file("one array of objects", "m.json", '[{"text": "good"}]'),
        _file("lines of objects", "m.json", GOOD),
        _file("an array that is cut off", "m.json", '[{"text": "good"}'),
        _file("a key written twice", "m.json", '[{"text": "a", "text": "b"}, {"text": "good"}]'),
        _file("one object over many lines", "m.json", '{\n"text": "good"}'),
    ],
    "CSV and TSV (`.csv`, `.tsv`; compressed)": [
        _file("a header, then rows", "m.csv", 'text\n"good, with a comma"\n'),
        _file("tabs between fields", "m.tsv", "id\ttext\n1\tgood\n"),
        _file("a row with too few fields", "m.csv", "id,text\n1,good\n2\n"),
        _file("a row with too many fields", "m.csv", "text,id\ngood,1\ncut, here,1\n"),
        _file("a quote that is never closed", "m.csv", 'text\n"good\n'),
        _file("no such column", "m.csv", "body\ngood\n"),
        _file("two columns of the name", "m.csv", "text,text\na,b\n"),
    ],
    "Text (`.txt`; compressed)": [
        _file("a record on each line", "m.txt", "good\n"),
        _file("an empty line", "m.txt", "good\n\n"),
    ],
    "Parquet (`.parquet`)": [
        _parquet("a column of texts", ["good"], ["text"]),
        _parquet("a null", ["good", None], ["text"]),
        _parquet("no such column", ["good"], ["body"]),
        _parquet("two columns of the name", ["good"], ["text", "text"]),
        _file("a damaged file", "m.parquet", b"PAR1 no more"),
    ],
    "Arrow (`.arrow`, `.feather`), as `datasets` saves it": [
        _arrow("a column of texts", "text"),
        _arrow("no such column", "body"),
        _file("a file that is cut off", "m.arrow", b"\xff\xff\xff\xff\x10"),
        Case("a folder of `save_to_disk`", "d", lambda f: _saved_by_datasets(f, "d")),
        Case("a folder of splits", "d", lambda f: _saved_by_datasets(f, "d/train", "d/test")),
    ],
    "More than a text (JSONL and Parquet; completions also as CSV)": [
        _rows("a conversation", {"messages": TURNS}),
        _rows("one as ShareGPT has it: it becomes one of messages", {"conversations": SHARE_GPT}),
        _rows("a prompt and its completion", {"prompt": "a", "completion": "b"}),
        _rows("two answers, one preferred", PAIR),
        _rows("an answer that is liked or not", {"prompt": "a", "completion": "b", "label": True}),
        _rows("tokens and labels", TOKENS),
        _rows("no messages", {"messages": TURNS}, {"messages": []}),
        _rows("messages that are no list", {"messages": TURNS}, {"messages": "hello"}),
        _rows("labels for other tokens", TOKENS, {"input_ids": [5, 6], "labels": [5]}),
        _rows("tokens of which only some have labels", TOKENS, {"input_ids": [5, 6]}),
        _rows("two answers that are one", PAIR, {**PAIR, "chosen": "c"}),
        _rows("columns that leave open what it is", {"text": "a", "messages": TURNS}),
    ],
    "Which files": [
        Case("a folder of tables", "d", lambda f: _in_folder(f, "b.jsonl", "_SUCCESS")),
        Case("another file in the folder", "d", lambda f: _in_folder(f, "b.jsonl", "a.md")),
        Case("a folder without one", "d", lambda f: _in_folder(f, "a.md")),
        Case("a pattern", "*.jsonl", _bytes("m.jsonl", GOOD)),
        Case("a folder that a pattern matches", "*", lambda f: _in_folder(f, "b.jsonl")),
        Case("a pattern that matches nothing", "*.csv", _bytes("m.jsonl", GOOD)),
        Case("a name with `?` or `::`", "a?::b.jsonl", _bytes("a?::b.jsonl", GOOD)),
        Case("a link to a file of another name", "m.jsonl", lambda f: _linked(f)),
        Case("a link to nothing", "m.jsonl", lambda f: (f / "m.jsonl").symlink_to("nowhere")),
        Case("a named pipe, a device", "m.jsonl", lambda f: os.mkfifo(f / "m.jsonl")),
        Case("another suffix", "m.xlsx", _bytes("m.xlsx", "x")),
        Case("an unknown scheme", "nosuch://x/m.jsonl", lambda _: None),
    ],
}


def _in_folder(folder: Path, *names: str) -> None:
    (folder / "d").mkdir()
    for name in names:
        (folder / "d" / name).write_text(GOOD)


def _linked(folder: Path) -> None:
    (folder / "0a1b").write_text(GOOD)
    (folder / "m.jsonl").symlink_to("0a1b")


PIXELS = np.random.default_rng(0).integers(0, 256, (*SHAPE[1:], 3), np.uint8)


def _picture(what: str, kind: str, image: Image.Image | None = None, **more: Any) -> Case:
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, kind, **more)
    return _image(what, f"1.{kind.lower()}", buffer.getvalue())


def _image(what: str, name: str, content: bytes) -> Case:
    def write(folder: Path) -> None:
        Image.fromarray(PIXELS[::-1]).save(folder / "0.png")
        (folder / name).write_bytes(content)

    return Case(what, "", write, good=2)


DEEP = Image.fromarray(np.full(SHAPE[1:], 40_000, np.uint16))
CLEAR = Image.fromarray(np.full((*SHAPE[1:], 4), 9, np.uint8))
PNG = io.BytesIO()
Image.fromarray(PIXELS).save(PNG, "PNG")
IMAGES = [
    *(_picture(f"{kind}", kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "AVIF")),
    _picture("grey, for color models: it becomes RGB", "PNG", Image.fromarray(PIXELS[..., 0])),
    _picture("16 bits per channel", "PNG", DEEP),
    _picture("CMYK", "TIFF", Image.fromarray(PIXELS).convert("CMYK")),
    _picture("transparent", "PNG", CLEAR),
    _picture("of another size, with `fit: exact`", "PNG", Image.fromarray(PIXELS[:4])),
    _picture("animated", "GIF", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]),
    _image("cut off", "1.png", PNG.getvalue()[:60]),
    _image("empty", "1.png", b""),
    _image("a format that is not read", "1.heic", b"x"),
    _image("an image without a suffix", "blob", PNG.getvalue()),
    _image("an image by another suffix", "photo.jpg_large", PNG.getvalue()),
    _image("a raw photo", "1.dng", b"II*\0"),
    _image("a file that is no image, without a suffix", "notes", b"x"),
]
YAML = [
    ("a key that nobody knows", "recods: {}"),
    ("a key written twice", "name: a\nname: b"),
    ("a date where a name stands", "name: 2026-01-31"),
    ("a number of 400 digits", f"seed: {10**400}"),
    ("a number that is none", "metrics: {confidence: .nan}"),
    ("nested 5,000 levels deep", "a: " + "[" * 5_000),
    ("aliases that stand for billions", "a: &a [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join(['*a' + str(n - 1 or '')] * 10)}]\n" for n in range(1, 9)
    )),
    ("a tag that would run code", "a: !!python/object/apply:os.system [x]"),
]  # fmt: skip


def tables() -> str:
    """The tables in Markdown."""
    lines: list[str] = []
    for title, cases in TEXTS.items():
        lines += _table(title, ((case.what, _tried(case, _read_texts)) for case in cases))
    lines += _table("Images", ((case.what, _tried(case, _read_images)) for case in IMAGES))
    lines += _table("The audit file", ((what, _tried_yaml(text)) for what, text in YAML))
    return "\n".join(lines).strip()


def _table(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    body = [f"| {what} | {outcome} |".replace("\n", " ") for what, outcome in rows]
    return [f"### {title}", "", "| given | what comes of it |", "|---|---|", *body, ""]


def _tried(case: Case, read: Callable[[str], tuple[int, list[str]]]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.write(folder)
        path = case.path if "://" in case.path else str(folder / case.path)
        try:
            count, aside = read(path)
        except InputError as error:
            return f"refused: {_sentence(error.problems[0], path)}"
    if aside:
        return f"set aside: {_sentence(aside[0], path)}"
    return "read" if count == case.good else "passed over"


def _read_texts(path: str) -> tuple[int, list[str]]:
    spec = TextRecordsSpec(members=[path])
    found = read_records(spec, format_of_records(spec))
    return found.table.num_rows, [one.reason for one in found.set_aside]


def _read_images(path: str) -> tuple[int, list[str]]:
    found = read_image_records(ImageRecordsSpec(kind="image", members=[path]), SHAPE)
    return found.table.num_rows, [one.reason for one in found.set_aside]


def _tried_yaml(text: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "audit.yaml")
        start = "records: {members: m.jsonl}\ntargets: [{name: t, model: ./m}]\n"
        file.write_text(start + text + "\n")
        try:
            load_spec(file)
        except InputError as error:
            return f"refused: {_sentence(error.problems[0], str(file))}"
    return "read, as a text"


def _sentence(text: str, path: str) -> str:
    """A message without the folder, cut to what fits into a table."""
    folder = path if path.endswith("/") else path.rpartition("/")[0] + "/"
    text = text.removeprefix(path).lstrip(": ").replace(folder, "").replace("|", "\\|")
    text = " ".join(text.split())
    return text if len(text) <= 130 else f"{text[:130].rsplit(' ', 1)[0]} ..."
