"""Which files a path means, where a pattern matches folders and names have signs in them."""

from __future__ import annotations

import fsspec
import pytest

from raymia.storage.shards import files_of, matches

WRITTEN = (
    "2022.parquet",
    "2023.parquet/part-0.parquet",
    "2023.parquet/deep/part-1.parquet",
    "2023.parquet/_SUCCESS",
    "2023.parquet/.part-0.parquet.crc",
    "2023.parquet/notes.md",
    "_delta_log/0.json",
    "other/0.csv",
)


@pytest.fixture(params=["local", "remote"])
def place(request, tmp_path):
    """A folder with these files, here or on another filesystem."""
    if request.param == "remote":
        fs = fsspec.filesystem("memory")
        for name in WRITTEN:
            fs.pipe_file(f"/{tmp_path.name}/{name}", b"")
        return f"memory:///{tmp_path.name}"
    for name in WRITTEN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return str(tmp_path)


def found(place, pattern):
    return {
        name.removeprefix(f"{place}/"): of_folder
        for name, of_folder in files_of(f"{place}/{pattern}").items()
    }


IN_FOLDER = {
    "2023.parquet/deep/part-1.parquet": True,
    "2023.parquet/notes.md": True,
    "2023.parquet/part-0.parquet": True,
}


def test_folders_that_a_pattern_matches_are_read_beside_the_files(place):
    assert found(place, "*.parquet") == {"2022.parquet": False, **IN_FOLDER}
    assert found(place, "2023*") == IN_FOLDER


def test_what_is_matched_and_in_a_folder_that_is_matched_is_read_once(place):
    names = found(place, "**/*.parquet")
    assert [*names] == ["2022.parquet", *IN_FOLDER]
    assert not names["2023.parquet/part-0.parquet"], "it is matched itself"


def test_a_folder_of_what_other_programs_keep_is_read_if_the_pattern_writes_its_low_line(place):
    assert [*found(place, "*")] == ["2022.parquet", *IN_FOLDER, "other/0.csv"]
    assert found(place, "_*") == {"_delta_log/0.json": True}


@pytest.mark.parametrize("folder", ["runs[1]", "what?", "a*", "a**b", "[!x]*", "[[]"])
def test_signs_in_the_name_of_a_folder_that_is_there_are_letters(tmp_path, folder):
    for name in (folder, "runs1", "whatx", "ab", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "0.jsonl").touch()
    assert matches(f"{tmp_path}/{folder}/*/*.jsonl") == [f"{tmp_path}/{folder}/deep/0.jsonl"]
    assert [*files_of(f"{tmp_path}/{folder}/d*")] == [f"{tmp_path}/{folder}/deep/0.jsonl"]


def test_signs_that_no_folder_is_called_by_stand_for_others(tmp_path):
    (tmp_path / "runs1").mkdir()
    (tmp_path / "runs1" / "0.jsonl").touch()
    assert matches(f"{tmp_path}/runs[1]/*.jsonl") == [f"{tmp_path}/runs1/0.jsonl"]
