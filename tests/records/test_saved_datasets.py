"""Folders that `datasets` saved a table to are read as `datasets` reads them."""

from __future__ import annotations

import io
import json
import shutil

import PIL.Image
import pytest
from datasets import Dataset, Image, load_from_disk

from raymia.records.image_files import find_images
from raymia.records.saved_datasets import NOT_NAMED
from raymia.records.tables import column_names, read_rows
from raymia.spec import ImageRecordsSpec
from raymia.util.errors import InputError


def read(path):
    """The texts of a path, and the names of files that were not read."""
    rows = [*read_rows(str(path), {"text_column": "text"})]
    texts = [row.values["text_column"] for row in rows if row.reason is None]
    aside = [row.where.rpartition("/")[2] for row in rows if row.reason == NOT_NAMED]
    assert len(texts) + len(aside) == len(rows)
    return texts, aside


def save(folder, texts, shards=1, **columns):
    Dataset.from_dict({"text": texts, **columns}).save_to_disk(folder, num_shards=shards)


def test_files_of_an_earlier_save_with_more_shards_are_no_records(tmp_path):
    save(tmp_path, [f"old {n}" for n in range(6)], shards=3)
    save(tmp_path, ["new 0", "new 1"])
    texts, aside = read(tmp_path)
    assert texts == load_from_disk(tmp_path)["text"][:] == ["new 0", "new 1"]
    assert aside == [f"data-{n:05d}-of-00003.arrow" for n in range(3)]


def test_what_map_filter_and_shuffle_leave_in_the_folder_is_no_record(tmp_path):
    save(tmp_path, ["a", "b", "c", "d"], shards=2)
    saved = load_from_disk(tmp_path)
    saved.map(lambda row: {"text": row["text"].upper(), "more": 1}).filter(
        lambda row: row["text"] != "A"
    )
    saved.shuffle(seed=1)
    left = sorted(file.name for file in tmp_path.glob("cache-*.arrow"))
    assert len(left) >= 2
    assert read(tmp_path) == (["a", "b", "c", "d"], left)


def test_the_format_is_found_by_the_columns_of_the_files_that_are_named(tmp_path):
    save(tmp_path, ["a", "b"])
    load_from_disk(tmp_path).map(
        lambda row: {"prompt": row["text"], "completion": row["text"]}, remove_columns="text"
    )
    assert sorted(file.name for file in tmp_path.glob("*.arrow"))[0].startswith("cache-")
    assert column_names(str(tmp_path)) == ["text"]


def test_files_are_read_in_the_order_in_which_they_are_named(tmp_path):
    save(tmp_path, ["a", "b", "c", "d"], shards=2)
    state = json.loads((tmp_path / "state.json").read_text())
    state["_data_files"].reverse()
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert read(tmp_path)[0] == load_from_disk(tmp_path)["text"][:] == ["c", "d", "a", "b"]


def test_a_table_within_the_folder_of_another_is_none_of_its_records(tmp_path):
    save(tmp_path / "now", ["a"])
    save(tmp_path / "now" / "before", ["b"])
    save(tmp_path / "other", ["c"])
    assert read(tmp_path / "now")[0] == ["a"]
    assert read(tmp_path)[0] == ["a", "c"], "two saved tables of one folder"


@pytest.mark.parametrize("missing", ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"])
def test_a_file_that_is_named_and_not_there_is_refused(tmp_path, missing):
    save(tmp_path, ["a", "b"], shards=2)
    (tmp_path / missing).unlink()
    for ask in (read, lambda path: column_names(str(path))):
        with pytest.raises(InputError, match=rf"state.json names {missing}, and the folder has no"):
            ask(tmp_path)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ('{"_data_files": [1]}', "_data_files should be a list of objects with a filename each"),
        ('{"_data_files": null}', "_data_files should be a list of objects with a filename each"),
        ('{"_data_files": [', "not valid JSON"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "names ../a.arrow, and the folder has"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(tmp_path, state, problem):
    save(tmp_path / "saved", ["a"])
    shutil.copy(tmp_path / "saved" / "data-00000-of-00001.arrow", tmp_path / "a.arrow")
    (tmp_path / "saved" / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"state\.json") as refused:
        read(tmp_path / "saved")
    assert problem in str(refused.value)


def test_a_file_of_records_may_be_called_as_a_state(tmp_path):
    (tmp_path / "state.json").write_text('[{"text": "a", "_data_files": []}]')
    (tmp_path / "more.jsonl").write_text('{"text": "b"}\n')
    assert read(tmp_path) == (["b", "a"], [])


def test_images_are_read_of_the_files_that_are_named(tmp_path):
    def save_pictures(reds, shards):
        pictures = [PIL.Image.new("RGB", (8, 8), (red, 0, 0)) for red in reds]
        table = Dataset.from_dict({"image": pictures}).cast_column("image", Image())
        table.save_to_disk(tmp_path, num_shards=shards)

    save_pictures([7, 8, 9], 3)
    save_pictures([1, 2], 1)
    spec = ImageRecordsSpec(kind="image", members=[str(tmp_path)])
    reds = []
    for one in find_images(spec.members[0], spec):
        if "-of-00003" not in one.where:
            reds.append(PIL.Image.open(io.BytesIO(one.load().content)).getpixel((0, 0))[0])
    assert reds == [1, 2]
