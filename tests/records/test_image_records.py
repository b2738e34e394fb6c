"""Image records: what makes two the same, and nothing vanishes."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import encoded, picture, pixels, png_header, raw, read, reasons

from raymia.records.base import CONTRADICTION, Others, SetAside
from raymia.records.image_files import find_images
from raymia.records.images import (
    SCHEMA,
    image_id,
    pixels_array,
    read_image_records,
    read_other_images,
)
from raymia.records.pixels import GIGANTIC, NOT_AN_IMAGE, TOO_SMALL
from raymia.spec import ImageRecordsSpec
from raymia.util.errors import InputError
from raymia.util.reasons import REPEATED

SHAPE = (3, 8, 8)


def folder(path, **images):
    """A folder of files by name: pictures are saved as PNG, bytes as they are."""
    path.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        content = image if isinstance(image, bytes) else encoded(image)
        (path / f"{name}.png").write_bytes(content)
    return str(path)


def problems(action, *args, **given):
    with pytest.raises(InputError) as caught:
        action(*args, **given)
    return caught.value.problems


def test_pixels_are_written_before_they_fill_the_memory(tmp_path, monkeypatch):
    size = len(raw(picture(0)))
    monkeypatch.setattr("raymia.records.base._BYTES_PER_BATCH", size + 1)
    given = {f"{number}": picture(number) for number in range(5)}
    payloads = read(members=folder(tmp_path, **given)).table["payload"]
    assert [row["pixels"] for row in payloads.to_pylist()] == list(map(raw, given.values()))
    assert [len(batch) for batch in payloads.chunks] == [2, 2, 1]


# -------------------------------------------------------------------------------- ids


def test_id_is_a_hash_of_shape_pixels_and_caption(tmp_path):
    image = picture(1)
    records = read(members=folder(tmp_path, a=image))
    expected = hashlib.sha256(b"3x8x8\n" + raw(image)).hexdigest()[:32]
    assert records.ids == [expected] == [image_id(raw(image), SHAPE, None)]
    assert records.table.schema == SCHEMA


def test_ids_differ_by_shape_and_caption():
    content = raw(picture(1))
    ids = {
        image_id(content, shape, caption)
        for shape in ((3, 8, 8), (3, 4, 16), (1, 8, 24))
        for caption in (None, "", "a cat", "a dog")
    }
    assert len(ids) == 12


@pytest.mark.parametrize(
    ("kind", "options"), [("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_same_picture_in_another_format_is_a_repetition(tmp_path, kind, options):
    image = picture(2)
    path = folder(tmp_path, a=image, b=encoded(image, kind, **options))
    records = read(members=path)
    assert records.set_aside == [
        SetAside(f"{path}/b.png", records.ids[0], f"{REPEATED} {path}/a.png")
    ]


def test_grey_and_its_rgb_are_one_record(tmp_path):
    image = picture(3, mode="L")
    records = read(members=folder(tmp_path, a=image, b=image.convert("RGB")))
    assert records.table.num_rows == 1


def test_same_picture_with_another_caption_is_another_record(tmp_path):
    table = pa.table({"image": [encoded(picture(4))] * 3, "text": ["a cat", "a dog", "a cat"]})
    pq.write_table(table, tmp_path / "m.parquet")
    given = {"members": str(tmp_path / "m.parquet")}
    assert read(**given, caption_column="text").table.num_rows == 2
    assert read(**given).table.num_rows == 1


def test_images_are_read_from_a_folder_that_datasets_saved(tmp_path):
    from datasets import Dataset, Image

    pictures = [PIL.Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(3)]
    saved = Dataset.from_dict({"image": pictures, "text": ["a", "b", "c"]})
    saved.cast_column("image", Image()).save_to_disk(tmp_path / "saved")
    spec = ImageRecordsSpec(kind="image", members=[str(tmp_path / "saved")], caption_column="text")
    found = [one.load() for one in find_images(spec.members[0], spec)]
    assert [one.caption for one in found] == ["a", "b", "c"]
    reds = [PIL.Image.open(io.BytesIO(one.content)).getpixel((0, 0))[0] for one in found]
    assert reds == [0, 1, 2]


def test_order_of_files_changes_neither_ids_nor_pixels(tmp_path):
    one = folder(tmp_path / "1", **{f"{i}": picture(i) for i in range(40)})
    two = folder(tmp_path / "2", **{f"{39 - i:02d}": picture(i) for i in range(40)})
    first, second = read(members=one), read(members=two)
    assert first.ids != second.ids
    as_rows = [
        {row["record_id"]: row["payload"]["pixels"] for row in records.table.to_pylist()}
        for records in (first, second)
    ]
    assert as_rows[0] == as_rows[1]


@pytest.mark.long
def test_many_images_stay_in_the_order_of_names(tmp_path):
    """More than are decoded at a time, some slower than others."""
    sizes = [8, 300, 8, 120]
    images = {f"{i:03d}": picture(i, (sizes[i % 4], sizes[i % 4])) for i in range(150)}
    records = read(members=folder(tmp_path, **images), fit="stretch")
    expected = [raw(image.resize((8, 8), 2)) for image in images.values()]
    assert [image.tobytes() for image in pixels(records)] == expected


# ---------------------------------------------------------------------------- classes


def test_classes_are_kept_apart(tmp_path):
    records = read(
        members=folder(tmp_path / "m", a=picture(0), b=picture(1)),
        non_members=[folder(tmp_path / "n", a=picture(2)), folder(tmp_path / "o", a=picture(3))],
        candidates=folder(tmp_path / "c", a=picture(4)),
    )
    assert [records.count(x) for x in (True, False, None)] == [2, 2, 1]
    assert pixels(records, None).tobytes() == raw(picture(4))


def test_picture_that_is_member_and_non_member_is_set_aside_twice(tmp_path):
    one = folder(tmp_path / "m", a=picture(0), x=picture(9))
    two = folder(tmp_path / "n", x=encoded(picture(9), "BMP"), b=picture(1))
    records = read(members=one, non_members=two)
    assert [(a.where, a.reason) for a in records.set_aside] == [
        (f"{one}/x.png", CONTRADICTION),
        (f"{two}/x.png", CONTRADICTION),
    ]


@pytest.mark.parametrize("known", ["members", "non_members"])
def test_candidate_that_is_known_is_set_aside_as_a_candidate(tmp_path, known):
    one = folder(tmp_path / "k", a=picture(0))
    two = folder(tmp_path / "c", a=picture(0), b=picture(1))
    records = read(**{known: one, "candidates": two})
    assert records.count(known == "members") == records.count(None) == 1
    assert [a.where for a in records.set_aside] == [f"{two}/a.png"]


def test_every_image_is_a_record_or_set_aside(tmp_path):
    images = {f"{i}": picture(i % 20) if i % 3 else b"no image" for i in range(60)}
    records = read(members=folder(tmp_path, **images))
    assert records.table.num_rows == len(set(records.ids))
    assert records.table.num_rows + len(records.set_aside) == 60


def test_all_problems_are_reported_together(tmp_path):
    (tmp_path / "empty").mkdir()
    found = problems(
        read,
        members=[str(tmp_path / "no"), str(tmp_path / "empty")],
        non_members=str(tmp_path / "no.tar"),
    )
    assert [text.split(": ")[0] for text in found] == [
        str(tmp_path / name) for name in ("no", "empty", "no.tar")
    ]


def test_class_without_one_usable_image_is_refused_with_counts_of_reasons(tmp_path):
    images = {f"{i}": picture(i, (5 + i, 5)) for i in range(3)}
    path = folder(tmp_path, **images, a=picture(9, (1, 1)), b=b"no", c=b"nor this")
    (found,) = problems(read, members=path)
    assert found.startswith(f"records.members: not one usable record in {path}")
    assert f"2 x {NOT_AN_IMAGE}" in found
    assert f"1 x {TOO_SMALL}; came: 1 x 1" in found
    assert "3 x not of the models' 8 x 8 pixels" in found
    assert "crop, pad or stretch" in found


def test_size_that_all_images_have_is_named(tmp_path):
    path = folder(tmp_path, a=picture(1, (12, 9)), b=picture(2, (12, 9)))
    (found,) = problems(read, members=path)
    assert "; came: 12 x 9)" in found


def test_models_of_other_channels_are_refused(tmp_path):
    path = folder(tmp_path, a=picture(1))
    (found,) = problems(read, members=path, shape=(4, 8, 8))
    assert "4 channels" in found


def test_progress_is_told_of_every_image(tmp_path):
    one = folder(tmp_path / "1", a=picture(1), b=b"no", c=picture(2))
    two = folder(tmp_path / "2", a=picture(1), b=picture(3))
    spec = ImageRecordsSpec(kind="image", members=one, candidates=two)
    told = []
    read_image_records(spec, SHAPE, told.append)
    assert told == [1, 2, 3, 4, 5]


# ---------------------------------------------------------------- what is no record


def others(paths, taken=(), **given):
    aside = []
    spec = ImageRecordsSpec(kind="image", members="unused", **given)
    what = "image of the population"
    taken = dict.fromkeys(taken, "a record")
    where = "records.population"
    return read_other_images(paths, spec, SHAPE, Others(what, where, taken, aside)), aside


def test_others_are_payloads_by_id(tmp_path):
    found, aside = others([folder(tmp_path, a=picture(1), b=picture(2))])
    assert aside == []
    assert list(found) == [image_id(raw(picture(i)), SHAPE, None) for i in (1, 2)]
    assert list(found.values()) == [{"pixels": raw(picture(i)), "caption": None} for i in (1, 2)]


def test_others_that_are_records_or_repeated_or_unusable_are_set_aside(tmp_path):
    path = folder(tmp_path, a=picture(1), b=picture(2), c=picture(2), d=picture(3, (9, 9)))
    found, aside = others([path], taken=[image_id(raw(picture(1)), SHAPE, None)])
    assert len(found) == 1
    assert [a.reason.split("; ")[0] for a in aside] == [
        "an image of the population that is also a record",
        "an image of the population that was given before",
        "an image of the population that is not of the models' 8 x 8 pixels (width x height), and "
        "`fit` is exact",
    ]


def test_others_need_no_groups(tmp_path):
    found, _ = others([folder(tmp_path, a=picture(1))], group_column="person")
    assert len(found) == 1


def test_others_of_which_none_can_be_used_are_refused(tmp_path):
    (found,) = problems(others, [folder(tmp_path, a=b"no")])
    assert found.startswith("records.population: not one usable image of the population")
    assert "is an image that is not among the records" in found
    assert NOT_AN_IMAGE in found


# ----------------------------------------------------------------------------- arrays


def test_pixels_array_puts_payloads_into_one_array(tmp_path):
    records = read(members=folder(tmp_path, a=picture(1), b=picture(2)))
    array = pixels_array(records.table["payload"].to_pylist(), SHAPE)
    assert (array.shape, array.dtype) == ((2, 3, 8, 8), np.uint8)
    assert array[1].tobytes() == raw(picture(2))
    assert array.flags.writeable


def test_pixels_array_of_nothing_is_empty():
    assert pixels_array([], SHAPE).shape == (0, 3, 8, 8)


def test_pixels_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match="reshape"):
        pixels_array([{"pixels": b"\x00" * 10}], SHAPE)


def test_warnings_of_the_decoder_are_kept_from_the_terminal(tmp_path, recwarn):
    """Pillow warns of an image of 100 million pixels, which is set aside."""
    path = folder(tmp_path, a=picture(1), b=png_header(10_000, 10_000))
    (reason,) = reasons(read(members=path))
    assert reason.startswith(GIGANTIC)
    assert [str(w.message) for w in recwarn] == []
