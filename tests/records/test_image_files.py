"""Where images are found: folders and tables, on any filesystem."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import captions, encoded, found, picture, problem, raw, read, reasons, save

from raymia.records.conditioning import NO_CAPTION, NO_CLASS
from raymia.records.found_image import CANNOT_OPEN, NO_FILE, RAW_PHOTO
from raymia.records.image_files import NOT_IMAGE_VALUE, OTHER_FILESYSTEM
from raymia.records.pixels import NOT_AN_IMAGE

PICTURES = [picture(seed) for seed in range(3)]
EXPECTED = [raw(image) for image in PICTURES]


def write_csv(path, *rows, header="image"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


# ---------------------------------------------------------------------------- folders


def test_folder_is_searched_in_the_order_of_names(tmp_path):
    save(tmp_path / "b" / "0.png", PICTURES[2])
    save(tmp_path / "a" / "deep" / "1.bmp", PICTURES[1])
    save(tmp_path / "a" / "0.PNG", PICTURES[0])
    assert found(read(members=str(tmp_path))) == EXPECTED


def test_slash_at_the_end_of_a_folder_is_no_part_of_places(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "1.png").write_bytes(b"no")
    for path in (tmp_path, f"{tmp_path}/"):
        assert read(members=str(path)).set_aside[0].where == f"{tmp_path}/1.png"


def test_images_without_a_suffix_are_found_by_how_they_begin(tmp_path):
    """As stores that are keyed by content keep them; beside others or alone."""
    blobs = {"PNG": "0", "BMP": "1", "TIFF": "2"}
    for kind, name in blobs.items():
        (tmp_path / name).write_bytes(encoded(picture(int(name)), kind))
    (tmp_path / "notes").write_text("no image")
    (tmp_path / "empty").touch()
    assert found(read(members=str(tmp_path))) == EXPECTED
    (tmp_path / "0").write_bytes(encoded(PICTURES[0], "PNG")[:40])
    save(tmp_path / "3.png", PICTURES[0])
    records = read(members=str(tmp_path))
    assert (records.table.num_rows, len(records.set_aside)) == (3, 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("e.jpg_large", "BMP"), ("f.jpg?w=640", "PNG"), ("IMG_2021.01.02", "PNG"),
        ("face.0001", "TIFF"), ("a.jpe", "PNG"), ("a.apng", "PNG"), ("a.DIB", "BMP"),
        ("a.txt.bak", "WEBP"),
    ],
)  # fmt: skip
def test_images_by_another_suffix_are_found_by_how_they_begin(tmp_path, name, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / name).write_bytes(encoded(PICTURES[0], kind, **options))
    (tmp_path / "notes.md").write_text("BMW and other things that are no image")
    (tmp_path / "cache.npz").write_bytes(b"PK")
    records = read(members=str(tmp_path))
    assert (found(records), records.set_aside) == (EXPECTED[:1], [])


BOX = b"\0\0\0\x18ftyp"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.0001", BOX + b"heic", NOT_AN_IMAGE), ("a.0001", b"\xff\x0a", NOT_AN_IMAGE),
        ("a.svg", b"<svg>", NOT_AN_IMAGE), ("a.0001", b"\x89PNG", NOT_AN_IMAGE),
        ("a.NEF", encoded(PICTURES[1], "TIFF"), RAW_PHOTO),
    ],
)  # fmt: skip
def test_those_that_cannot_be_read_are_set_aside_by_name(tmp_path, name, content, reason):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / name).write_bytes(content)
    (tmp_path / "film.mp4").write_bytes(BOX + b"isom")
    (aside,) = read(members=str(tmp_path)).set_aside
    assert (aside.where, aside.reason.partition(";")[0]) == (
        f"{tmp_path}/{name}",
        reason.partition(";")[0],
    )


def test_a_caption_is_no_image_however_it_begins(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "0.words").write_text("GIF89 is what I drew")
    records = read(members=str(tmp_path), caption_column="words")
    assert (captions(records), records.set_aside) == (["GIF89 is what I drew"], [])


def test_a_pattern_means_the_folders_tables_and_tars_that_match_it(tmp_path):
    for number, folder in enumerate(("a/train", "b/train", "b/test")):
        save(tmp_path / folder / "0.png", PICTURES[number])
    assert found(read(members=str(tmp_path / "*" / "train"))) == EXPECTED[:2]
    write_csv(tmp_path / "1.csv", "b/test/0.png")
    write_csv(tmp_path / "0.csv", "a/train/0.png")
    assert found(read(members=str(tmp_path / "?.csv"))) == [EXPECTED[0], EXPECTED[2]]
    assert problem(members=str(tmp_path / "*.tar")).endswith("*.tar: nothing matches this")


SIGNS = ("[1]", "what?", "a*", "d [2024]", "[!x]*")
"""Names of what is there, that are patterns as well."""


@pytest.mark.parametrize("name", SIGNS)
def test_signs_of_patterns_may_stand_in_names(tmp_path, name):
    save(tmp_path / name / "x?[1]*.png", PICTURES[0])
    for path in (tmp_path / name, tmp_path / name / "x?[1]*.png", tmp_path / "*", tmp_path / "?*"):
        assert found(read(members=str(path))) == EXPECTED[:1]
    (tmp_path / name).rename(tmp_path / "elsewhere")
    write_csv(tmp_path / f"{name}.csv", "elsewhere/x?[1]*.png")
    assert found(read(members=str(tmp_path / f"{name}.csv"))) == EXPECTED[:1]
    assert found(read(members=str(tmp_path / "*.csv"))) == EXPECTED[:1]


@pytest.mark.parametrize("name", [name for name in SIGNS if "?" not in name])
def test_signs_of_patterns_may_stand_in_names_on_other_machines(name):
    fs, url = fsspec.filesystem("memory"), f"memory://signs-{SIGNS.index(name)}"
    fs.pipe_file(f"{url}/{name}/0.png", encoded(PICTURES[0]))
    for path in (f"{url}/{name}", f"{url}/*"):
        assert found(read(members=path)) == EXPECTED[:1]


def test_celeba_as_it_is_unpacked(tmp_path):
    for number in range(3):
        save(tmp_path / "img_align_celeba" / f"{number:06d}.jpg", picture(number, (178, 218)))
    (tmp_path / "list_attr_celeba.txt").write_text("3\n")
    records = read(members=str(tmp_path), fit="crop", shape=(3, 64, 64))
    assert (records.table.num_rows, records.set_aside) == (3, [])


def test_tiny_imagenet_as_it_is_unpacked(tmp_path):
    for number in range(4):
        name = f"n0{number % 2}"
        save(tmp_path / "train" / name / "images" / f"{name}_{number}.JPEG", picture(number))
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("x")
        save(tmp_path / "val" / "images" / f"val_{number}.JPEG", picture(10 + number, mode="L"))
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn00\n")
    records = read(members=str(tmp_path / "train"), non_members=str(tmp_path / "val"))
    assert [records.count(True), records.count(False), records.set_aside] == [4, 4, []]


def test_captions_of_a_folder_are_files_beside_its_images(tmp_path):
    for number, image in enumerate(PICTURES):
        save(tmp_path / f"{number}.png", image)
    (tmp_path / "0.txt").write_text("a café\n", encoding="utf-8-sig")
    (tmp_path / "1.txt").write_text(" \n")
    records = read(members=str(tmp_path), caption_column="txt")
    assert captions(records) == ["a café"]
    assert all(reason.startswith(NO_CAPTION) for reason in reasons(records))
    assert len(records.set_aside) == 2


def test_captions_that_no_key_asks_for_are_not_read(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "0.txt").write_text("a cat")
    assert captions(read(members=str(tmp_path))) == [None]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    save(tmp_path / ".thumbnails" / "1.png", PICTURES[1])
    (tmp_path / "._0.png").write_bytes(b"what macOS leaves behind")
    records = read(members=str(tmp_path))
    assert (records.table.num_rows, records.set_aside) == (1, [])


def test_hidden_folder_that_is_named_is_read(tmp_path):
    save(tmp_path / ".cache" / "0.png", PICTURES[0])
    assert read(members=str(tmp_path / ".cache")).table.num_rows == 1


def test_links_are_followed_and_circles_end(tmp_path):
    save(tmp_path / "elsewhere" / "deep" / "0.png", PICTURES[0])
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    save(tmp_path / "one.png", PICTURES[1])
    (folder / "one.png").symlink_to(tmp_path / "one.png")
    records = read(members=str(folder))
    assert (sorted(found(records)), records.set_aside) == (sorted(EXPECTED[:2]), [])


def test_folder_that_two_links_lead_to_is_read_under_the_first_name(tmp_path):
    save(tmp_path / "elsewhere" / "0.png", PICTURES[0])
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("c", "a", "b"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "1.png").write_bytes(b"no image")
    assert [aside.where for aside in read(members=str(folder)).set_aside] == [f"{folder}/a/1.png"]


def test_dangling_link_is_set_aside(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    assert reasons(read(members=str(tmp_path)))[0].startswith(NO_FILE)


def test_pipe_is_not_waited_for(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    os.mkfifo(tmp_path / "1.png")
    assert reasons(read(members=str(tmp_path)))[0].startswith(NO_FILE)


def test_name_that_is_no_unicode_has_a_place_that_is(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"no image")
    (aside,) = read(members=str(tmp_path)).set_aside
    assert aside.where.encode() == os.fsencode(tmp_path) + b"/?.png"


def test_image_of_a_format_that_is_not_read_is_set_aside_not_passed_over(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "1.heic").write_bytes(b"\x00\x00\x00\x18ftypheic")
    assert reasons(read(members=str(tmp_path))) == [NOT_AN_IMAGE]


def test_one_image_can_be_named(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    assert found(read(members=str(tmp_path / "0.png"))) == EXPECTED[:1]


def test_folder_on_another_filesystem(tmp_path):
    fs = fsspec.filesystem("memory")
    for number, image in enumerate(PICTURES):
        fs.pipe_file(f"/{tmp_path.name}/sub/{number}.png", encoded(image))
    fs.pipe_file(f"/{tmp_path.name}/3.png", b"")
    records = read(members=f"memory://{tmp_path.name}")
    assert found(records) == EXPECTED
    assert records.set_aside[0].where == f"memory://{tmp_path.name}/3.png"


def test_missing_folder_is_refused(tmp_path):
    assert problem(members=str(tmp_path / "no")) == f"{tmp_path / 'no'}: no such file or folder"


def test_folder_without_images_is_refused_with_what_it_has(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    said = problem(members=str(tmp_path))
    assert said.startswith(f"{tmp_path}: no images found here, but files of: .npy")
    assert ".parquet" in said


def test_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    said = problem(members=str(tmp_path / "images.zip"))
    assert ".zip" in said
    assert ".tar" in said


def test_folder_has_no_groups(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    said = problem(members=str(tmp_path), group_column="person")
    assert said.startswith(f"{tmp_path}: group_column is 'person'")


def test_unknown_filesystem_is_refused():
    assert problem(members="nosuchfs://x").startswith("nosuchfs://x: ")


# ----------------------------------------------------------------------------- tables


def test_parquet_of_bytes(tmp_path):
    table = {"image": [encoded(image) for image in PICTURES], "text": ["a", "b", "c"]}
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    records = read(members=str(tmp_path / "m.parquet"), caption_column="text")
    assert found(records) == EXPECTED
    assert captions(records) == ["a", "b", "c"]


def test_parquet_of_structs_of_bytes_and_path(tmp_path):
    """The layout of Hugging Face's image feature: bytes, or a path beside the file."""
    save(tmp_path / "1.png", PICTURES[1])
    rows = [
        {"bytes": encoded(PICTURES[0]), "path": "no/such.png"},
        {"bytes": None, "path": "1.png"},
        {"bytes": None, "path": None},
        None,
    ]
    pq.write_table(pa.table({"image": rows}), tmp_path / "m.parquet")
    records = read(members=str(tmp_path / "m.parquet"))
    assert found(records) == EXPECTED[:2]
    assert reasons(records) == [f"{NOT_IMAGE_VALUE}; came: null"] * 2


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_tables_name_files_relative_to_themselves(tmp_path, suffix):
    paths = []
    for number, image in enumerate(PICTURES):
        save(tmp_path / "img" / f"{number}.png", image)
        paths.append(f"img/{number}.png")
    paths[1] = str(tmp_path / paths[1])
    paths[2] = f"file://{tmp_path / paths[2]}"
    path = tmp_path / f"m.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"image": paths}), path)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps({"image": p}) + "\n" for p in paths))
    else:
        write_csv(path, *paths)
    assert found(read(members=str(path))) == EXPECTED


def test_columns_can_be_named_and_groups_are_read(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    save(tmp_path / "1.png", PICTURES[1])
    path = write_csv(tmp_path / "m.csv", "0.png,a cat,p1", "1.png,a dog,", header="file,words,who")
    records = read(members=path, image_column="file", caption_column="words", group_column="who")
    assert captions(records) == ["a cat", "a dog"]
    assert records.table["group"].to_pylist() == ["p1", None]


def test_rows_that_name_no_image_are_set_aside(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "folder.png").mkdir()
    rows = ["0.png", "gone.png", "", None, 7, "folder.png", "s3://bucket/0.png", "a\x00b.png"]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"image": row}) + "\n" for row in rows))
    records = read(members=str(path))
    assert found(records) == EXPECTED[:1]
    assert [(a.where, a.reason) for a in records.set_aside[:5]] == [
        (f"{path} line 2", f"{NO_FILE}; came: {tmp_path}/gone.png"),
        (f"{path} line 3", f"{NOT_IMAGE_VALUE}; came: an empty text"),
        (f"{path} line 4", f"{NOT_IMAGE_VALUE}; came: null"),
        (f"{path} line 5", f"{NOT_IMAGE_VALUE}; came: int"),
        (f"{path} line 6", f"{NO_FILE}; came: {tmp_path}/folder.png"),
    ]
    assert reasons(records)[5] == f"{OTHER_FILESYSTEM}; came: s3://bucket/0.png"
    assert reasons(records)[6].startswith((NO_FILE, CANNOT_OPEN))


def test_table_on_another_filesystem_cannot_name_local_files(tmp_path):
    save(tmp_path / "0.png", PICTURES[0])
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/{tmp_path.name}/beside.png", encoded(PICTURES[1]))
    rows = f"image\nbeside.png\nfile://{tmp_path}/0.png\n{tmp_path}/0.png\n"
    fs.pipe_file(f"/{tmp_path.name}/m.csv", rows.encode())
    records = read(members=f"memory://{tmp_path.name}/m.csv")
    assert found(records) == EXPECTED[1:2]
    assert reasons(records)[0].startswith(OTHER_FILESYSTEM)
    assert reasons(records)[1].startswith(NO_FILE)


def test_rows_without_a_caption_are_set_aside(tmp_path):
    rows = [
        {"image": "0.png", "text": text} for text in (None, "", 7, ["a", "b"], "\ud83d", "a cat")
    ]
    save(tmp_path / "0.png", PICTURES[0])
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = read(members=str(tmp_path / "m.jsonl"), caption_column="text")
    assert captions(records) == ["a cat"]
    assert reasons(records)[0] == NO_CAPTION
    assert len(reasons(records)) == 5
    assert all(reason.startswith(f"{NO_CAPTION}: it is ") for reason in reasons(records)[1:])
    assert "a list of 2; name a column with one caption of each image" in reasons(records)[3]


def test_a_class_is_a_whole_number_from_0_on(tmp_path):
    given = [3, "4", 5.0, True, -1, "six", None, 7.5]
    rows = [{"image": f"{n}.png", "label": label} for n, label in enumerate(given)]
    for number, row in enumerate(rows):
        save(tmp_path / row["image"], picture(number))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = read(members=str(tmp_path / "m.jsonl"), class_column="label")
    assert captions(records) == ["3", "4", "5"]
    assert len(reasons(records)) == 5
    assert {reason.split(":")[0] for reason in reasons(records)} == {NO_CLASS}


@pytest.mark.parametrize("key", ["image_column", "caption_column", "class_column", "group_column"])
def test_missing_column_is_refused_with_the_key_that_names_it(tmp_path, key):
    path = write_csv(tmp_path / "m.csv", "0.png")
    said = problem(members=path, **{key: "none"})
    assert "no column 'none'; found: image" in said
    assert key in said


@pytest.mark.parametrize("name", ["m.parquet", "m.jsonl", "m.csv", "m.tar"])
def test_missing_file_is_refused(tmp_path, name):
    assert problem(members=str(tmp_path / name)) == (
        f"{tmp_path / name}: no such file; relative paths start at the audit file's folder"
    )
