"""Folders of images with captions: tables of metadata, files beside, kohya's names of folders."""

from __future__ import annotations

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import captions, found, picture, problem, raw, read, reasons, save

from raymia.records import image_folders
from raymia.records.conditioning import NO_CAPTION, NO_CLASS
from raymia.records.found_image import NO_FILE, read_image
from raymia.records.image_folders import GIVEN_PROMPT, MORE_LINES, NO_PROMPT
from raymia.records.pixels import NOT_AN_IMAGE
from raymia.records.texts import EMPTY
from raymia.util.errors import InputError

ROWS = [
    {"file_name": "0.png", "text": "a cat", "who": "ann", "breed": 3},
    {"file_name": "deep/1.png", "text": "a dog", "who": "bob", "breed": 1},
]


def folder(path, names=("0.png", "deep/1.png")):
    for number, name in enumerate(names):
        save(path / name, picture(number))
    return path


def as_jsonl(path, rows):
    (path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_csv(path, rows):
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (path / "metadata.csv").write_text("\n".join(lines) + "\n")


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path / "metadata.parquet")


@pytest.mark.parametrize("write", [as_jsonl, as_csv, as_parquet])
def test_captions_classes_and_groups_stand_in_metadata_beside_the_images(write, tmp_path):
    write(folder(tmp_path), ROWS)
    records = read(members=str(tmp_path), caption_column="text", group_column="who")
    assert captions(records) == ["a cat", "a dog"]
    assert records.table["group"].to_pylist() == ["ann", "bob"]
    assert found(records) == [raw(picture(0)), raw(picture(1))]
    assert captions(read(members=str(tmp_path), class_column="breed")) == ["3", "1"]
    assert captions(read(members=str(tmp_path))) == [None, None]


def test_each_folder_may_have_metadata_of_its_own(tmp_path):
    for name in ("a", "b"):
        as_jsonl(folder(tmp_path / name, ["0.png"]), [{"file_name": "0.png", "text": f"of {name}"}])
    assert captions(read(members=str(tmp_path), caption_column="text")) == ["of a", "of b"]


def test_images_and_rows_without_the_other_are_set_aside_and_named(tmp_path):
    as_jsonl(
        folder(tmp_path, ["0.png", "1.png", "2.png"]),
        [ROWS[0], {"file_name": "1.png", "text": None}, {"file_name": "gone.png", "text": "x"}],
    )
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": null, "text": "y"}\n')
    records = read(members=str(tmp_path), caption_column="text")
    assert captions(records) == ["a cat"]
    said = [f"{aside.where}: {aside.reason}" for aside in records.set_aside]
    assert said[0].endswith(f"1.png: {NO_CAPTION}")
    assert said[1].endswith(f"2.png: {NO_CAPTION}: metadata.jsonl beside it has no row for it")
    assert "metadata.jsonl" in said[2]
    assert NO_FILE in said[2]
    assert "gone.png" in said[2]
    assert "metadata.jsonl" in said[3]
    assert len(said) == 4


def test_an_image_that_metadata_names_twice_is_a_record_with_each_caption(tmp_path):
    as_jsonl(folder(tmp_path, ["0.png"]), [ROWS[0], {**ROWS[0], "text": "a kitten"}])
    assert captions(read(members=str(tmp_path), caption_column="text")) == ["a cat", "a kitten"]


def test_files_beside_come_first_only_where_metadata_lacks_the_column(tmp_path):
    as_jsonl(folder(tmp_path, ["0.png"]), [{"file_name": "0.png", "text": "in the table"}])
    (tmp_path / "0.txt").write_text("in the file\n")
    assert captions(read(members=str(tmp_path), caption_column="txt")) == ["in the file"]
    assert captions(read(members=str(tmp_path), caption_column="text")) == ["in the table"]


def test_a_column_that_is_nowhere_is_refused_with_those_that_are_there(tmp_path):
    as_jsonl(folder(tmp_path), ROWS)
    said = problem(members=str(tmp_path), caption_column="caption")
    assert said.endswith(
        "metadata.jsonl: no column 'caption', and no files beside the images end in .caption; "
        "found: file_name, text, who, breed. Name the right one as caption_column in the audit file"
    )
    assert "no column 'breeds'" in problem(members=str(tmp_path), class_column="breeds")
    (tmp_path / "metadata.jsonl").unlink()
    assert reasons_of(tmp_path, class_column="breed") == [
        f"{NO_CLASS}: no file of its name that ends in .breed"
    ]


def reasons_of(path, **given):
    save(path / "held" / "9.png", picture(9))
    with pytest.raises(InputError) as caught:
        read(members=str(path), **given)
    (said,) = caught.value.problems
    return [said.partition("(set aside: ")[2].rstrip(")").partition(" x ")[2]]


def test_what_a_table_names_is_an_image_whatever_it_is_called(tmp_path):
    folder(tmp_path)
    (tmp_path / "cache.npz").write_bytes(b"PK")
    as_jsonl(tmp_path, [*ROWS, {"file_name": "cache.npz", "text": "a cat in a box"}])
    records = read(members=str(tmp_path), caption_column="text")
    assert captions(records) == ["a cat", "a dog"]
    (aside,) = records.set_aside
    assert aside.where == f"{tmp_path}/cache.npz"
    assert aside.reason.startswith(NOT_AN_IMAGE)


# ------------------------------------------------------------------------ kohya's folders


def test_a_kohya_folder_gives_its_prompt_to_images_without_a_file(tmp_path):
    folder(tmp_path, ["10_sks dog/0.png", "10_sks dog/1.png", "1_dog/2.png", "3.png"])
    (tmp_path / "10_sks dog" / "1.txt").write_text("sks dog on a mat\n")
    records = read(members=str(tmp_path), caption_column="txt", folder_prompts=True)
    assert captions(records) == ["sks dog", "sks dog on a mat", "dog"]
    assert reasons(records) == [f"{NO_CAPTION}: {NO_PROMPT}"]
    alone = read(members=str(tmp_path / "10_sks dog"), folder_prompts=True)
    assert captions(alone) == ["sks dog", "sks dog"]


def test_repeats_and_prompts_of_folders_are_counted_and_named(tmp_path):
    folder(tmp_path, ["10_sks dog/0.png", "10_sks dog/1.png"])
    (tmp_path / "10_sks dog" / "1.txt").write_text("sks dog on a mat\n")
    first, second = read(
        members=str(tmp_path), caption_column="txt", folder_prompts=True
    ).remark_lines()
    assert first.startswith("records: 2 seen 10 times an epoch, as its folder's name says; came: ")
    assert second == f"records: 1 {GIVEN_PROMPT}; came: {tmp_path}/10_sks dog/0.png"


def test_of_a_caption_of_several_lines_kohya_trains_the_first(tmp_path):
    files = {"0": "sks dog\n\ntags, below\n", "1": "a dog\r\nand more", "2": "one\n \n", "3": "\nx"}
    folder(tmp_path, [f"10_sks dog/{name}.png" for name in files])
    for name, text in files.items():
        (tmp_path / "10_sks dog" / f"{name}.txt").write_bytes(text.encode())
    records = read(members=str(tmp_path), caption_column="txt", folder_prompts=True)
    assert captions(records) == ["sks dog", "a dog", "one"]
    assert reasons(records) == [f"{NO_CAPTION}: it is {EMPTY}"], "as kohya has it, too"
    _, said = records.remark_lines()
    assert said == f"records: 2 {MORE_LINES}; came: " + ", ".join(
        f"{tmp_path}/10_sks dog/{name}.png" for name in "01"
    )
    whole = read(members=str(tmp_path), caption_column="txt")
    assert captions(whole) == ["sks dog\n\ntags, below", "a dog\r\nand more", "one", "x"]
    assert whole.remark_lines() == []


def test_captions_of_kohya_are_read_once_and_in_threads(tmp_path, monkeypatch):
    folder(tmp_path, ["10_sks dog/0.png", "10_sks dog/1.png"])
    for name in "01":
        (tmp_path / "10_sks dog" / f"{name}.txt").write_text("sks dog\ntags")
    read_by = []

    def noted(fs, name, *more):
        if name.endswith(".txt"):
            read_by.append((name[-5:], threading.current_thread() is threading.main_thread()))
        return read_image(fs, name, *more)

    monkeypatch.setattr(image_folders, "read_image", noted)
    records = read(members=str(tmp_path), caption_column="txt", folder_prompts=True)
    assert captions(records) == ["sks dog", "sks dog"]
    assert records.remark_lines()[1].startswith(f"records: 2 {MORE_LINES}; came: ")
    assert sorted(read_by) == [("0.txt", False), ("1.txt", False)]


def test_folder_names_mean_nothing_unless_the_audit_file_says_so(tmp_path):
    records = read(members=str(folder(tmp_path, ["10_sks dog/0.png"])))
    assert (captions(records), records.remark_lines()) == ([None], [])
