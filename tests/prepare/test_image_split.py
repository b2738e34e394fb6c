"""Splitting images into members and held-out ones, and what is written of it."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raymia.prepare.image_split import split_and_write
from raymia.records.images import read_image_records
from raymia.spec import ImageRecordsSpec
from raymia.util.errors import InputError
from raymia.util.hashing import digest


def pictures(count=20, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 8, 6), dtype=np.uint8)


def written(path, column="image"):
    return pq.read_table(path)[column].to_pylist()


def keys(images):
    return {image.tobytes() for image in images}


def test_members_and_held_out_share_no_image(tmp_path):
    split = split_and_write(pictures(), None, 8, 5, 0, tmp_path)
    assert (len(split.members), len(split.held_out)) == (8, 5)
    assert len(keys(split.members) | keys(split.held_out)) == 13


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_the_very_pixels(tmp_path, channels):
    split = split_and_write(pictures(channels=channels), None, 8, 5, 0, tmp_path)
    for name, images in (("members", split.members), ("non_members", split.held_out)):
        for content, image in zip(written(tmp_path / f"{name}.parquet"), images, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(content)))
            expected = image[0] if channels == 1 else image.transpose(1, 2, 0)
            np.testing.assert_array_equal(pixels, expected)


def test_copies_of_an_image_are_not_drawn_and_are_counted(tmp_path):
    images = np.concatenate([pictures(6), pictures(6)])
    split = split_and_write(images, None, 3, 3, 0, tmp_path)
    assert not keys(split.members) & keys(split.held_out)
    assert split.facts["repeated_images_left_out"] == 6


def test_captions_stay_with_their_images(tmp_path):
    images = pictures()
    captions = [f"picture {i}" for i in range(len(images))]
    split = split_and_write(images, captions, 8, 5, 0, tmp_path)
    of = {image.tobytes(): caption for image, caption in zip(images, captions, strict=True)}
    for name, drawn in (("members", split.members), ("non_members", split.held_out)):
        expected = [of[image.tobytes()] for image in drawn]
        assert written(tmp_path / f"{name}.parquet", "caption") == expected


def test_seed_alone_decides_the_split(tmp_path):
    one, again, other = (
        split_and_write(pictures(), None, 8, 5, seed, tmp_path / str(n))
        for n, seed in enumerate((0, 0, 1))
    )
    np.testing.assert_array_equal(one.members, again.members)
    assert one.facts == again.facts
    assert one.facts["members_hash"] != other.facts["members_hash"]
    assert keys(one.members) != keys(other.members)


def test_more_members_with_the_same_seed_keep_those_there_were(tmp_path):
    few = split_and_write(pictures(), None, 4, 5, 0, tmp_path / "few")
    more = split_and_write(pictures(), None, 8, 5, 0, tmp_path / "more")
    assert keys(few.members) < keys(more.members)


@pytest.mark.parametrize(("members", "held_out"), [(18, 5), (0, 5), (5, 0)])
def test_more_images_than_there_are_or_none_at_all_are_refused(tmp_path, members, held_out):
    with pytest.raises(InputError, match=r"there are 20 distinct images \(20 in all\)"):
        split_and_write(pictures(), None, members, held_out, 0, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "images", [pictures().astype(np.float32), pictures(channels=2), pictures()[0]]
)
def test_other_arrays_are_refused(tmp_path, images):
    with pytest.raises(InputError, match="images should be uint8"):
        split_and_write(images, None, 8, 5, 0, tmp_path)


def test_missing_captions_are_refused(tmp_path):
    with pytest.raises(InputError, match="20 images have 2 captions"):
        split_and_write(pictures(), ["one", "two"], 8, 5, 0, tmp_path)


def test_same_split_is_written_again_and_another_is_refused(tmp_path):
    split_and_write(pictures(), None, 8, 5, 0, tmp_path)
    split_and_write(pictures(), None, 8, 5, 0, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"members\.parquet holds other images"):
        split_and_write(pictures(), None, 8, 5, 1, tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_hash_of_members_is_that_of_their_record_ids(tmp_path):
    split = split_and_write(pictures(), None, 8, 5, 0, tmp_path)
    files = [str(tmp_path / "members.parquet")]
    spec = ImageRecordsSpec(kind="image", members=files)
    assert split.facts["members_hash"] == digest(sorted(read_image_records(spec, (3, 8, 6)).ids))


def test_over_many_seeds_a_group_is_as_often_on_a_side_as_an_image_alone():
    images = pictures(16)
    groups = ["a"] * 4 + ["b"] * 2 + [None] * 10
    times = {side: dict.fromkeys(keys(images), 0) for side in ("members", "held_out")}
    for seed in range(400):
        split = split_and_write(images, None, 8, 4, seed, None, groups)
        for side, count in times.items():
            for key in keys(getattr(split, side)):
                count[key] += 1
    for side, chance in (("members", 1 / 2), ("held_out", 1 / 4)):
        spread = 4.2 * (400 * chance * (1 - chance)) ** 0.5
        found = times[side].values()
        assert all(abs(count - 400 * chance) < spread for count in found), (side, found)


def test_a_group_that_is_larger_than_a_side_is_refused():
    with pytest.raises(InputError, match=r"16 distinct images in 12 groups, .* 5 are of one group"):
        split_and_write(pictures(16), None, 8, 4, 0, None, ["a"] * 5 + [None] * 11)
