"""Images in tars of the WebDataset layout: read in passing, never unpacked, whole or refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from small_images import captions, encoded, found, picture, problem, raw, read, reasons, save

from raymia.records.conditioning import NO_CAPTION
from raymia.records.image_files import LINK, NO_IMAGE_IN_SAMPLE, SEVERAL_IMAGES

PICTURES = [picture(seed) for seed in range(3)]
EXPECTED = [raw(image) for image in PICTURES]


def write_tar(path, members, mode="w"):
    """A tar of (name, content); content may be a TarInfo of a link."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def samples(count=3):
    for number, image in enumerate(PICTURES[:count]):
        yield f"{number:04d}.png", encoded(image)
        yield f"{number:04d}.txt", f"picture {number}\n".encode()
        yield f"{number:04d}.json", json.dumps({"who": f"p{number}"}).encode()


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz")])
def test_tar_of_webdataset_layout(tmp_path, suffix, mode):
    path = write_tar(tmp_path / f"m.{suffix}", samples(), mode)
    records = read(members=path, caption_column="txt", group_column="who")
    assert found(records) == EXPECTED
    assert captions(records) == ["picture 0", "picture 1", "picture 2"]
    assert records.table["group"].to_pylist() == ["p0", "p1", "p2"]


def test_tar_of_a_plain_folder(tmp_path):
    """`tar cf x.tar -C folder .` writes folders and names that begin with a dot and a slash."""
    for number, image in enumerate(PICTURES):
        save(tmp_path / "folder" / "sub" / f"{number}.png", image)
    (tmp_path / "folder" / "._0.png").write_bytes(b"macOS")
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        tar.add(tmp_path / "folder", ".")
    records = read(members=str(tmp_path / "m.tar"))
    assert (sorted(found(records)), records.set_aside) == (sorted(EXPECTED), [])


def test_tar_on_another_filesystem(tmp_path):
    local = write_tar(tmp_path / "m.tar", samples())
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/{tmp_path.name}/m.tar", Path(local).read_bytes())
    assert found(read(members=f"memory://{tmp_path.name}/m.tar")) == EXPECTED


def test_names_in_a_tar_reach_no_filesystem(tmp_path):
    content = [("../../evil.png", encoded(PICTURES[0])), ("/abs.png", encoded(PICTURES[1]))]
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    records = read(members=write_tar(inside / "m.tar", content))
    assert found(records) == EXPECTED[:2]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "m.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_not_followed(tmp_path, kind):
    save(tmp_path / "secret.png", PICTURES[1])
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = kind, str(tmp_path / "secret.png")
    path = write_tar(tmp_path / "m.tar", [("0.png", encoded(PICTURES[0])), ("", link)])
    records = read(members=path)
    assert found(records) == EXPECTED[:1]
    assert [(a.where, a.reason) for a in records.set_aside] == [(f"{path} link.png", LINK)]


def test_sample_of_several_images_needs_the_name_of_one(tmp_path):
    content = [
        ("0.mask.png", encoded(picture(9))),
        ("0.photo.png", encoded(PICTURES[0])),
        ("1.png", encoded(PICTURES[1])),
    ]
    path = write_tar(tmp_path / "m.tar", content)
    records = read(members=path)
    assert reasons(records) == [f"{SEVERAL_IMAGES}; came: mask.png, photo.png"] * 2
    assert found(read(members=path, image_column="photo.png")) == EXPECTED[:2]
    assert found(read(members=path, image_column="photo")) == EXPECTED[:2]


def test_same_name_twice_is_several_images(tmp_path):
    content = [("0.png", encoded(image)) for image in PICTURES[:2]]
    content += [("1.png", encoded(PICTURES[2]))]
    records = read(members=write_tar(tmp_path / "m.tar", content))
    assert found(records) == EXPECTED[2:]
    assert reasons(records) == [f"{SEVERAL_IMAGES}; came: png, png"] * 2


def test_images_that_a_dot_in_their_names_makes_one_sample_are_set_aside_each(tmp_path):
    """As a tar of a plain folder has them."""
    names = (
        "2021.01.03-a.png",
        "2021.02.10-b.png",
        "frame.0001.png",
        "frame.0002.png",
        "whole.png",
    )
    images = [encoded(picture(number)) for number in range(len(names))]
    path = write_tar(tmp_path / "m.tar", zip(names, images, strict=True))
    records = read(members=path)
    assert found(records) == [raw(picture(4))]
    assert [aside.where for aside in records.set_aside] == [f"{path} {n}" for n in names[:4]]
    assert reasons(records)[1:3] == [
        f"{SEVERAL_IMAGES}; came: 01.03-a.png, 02.10-b.png",
        f"{SEVERAL_IMAGES}; came: 0001.png, 0002.png",
    ]
    assert "give them as a folder if each is a record" in SEVERAL_IMAGES


def test_a_name_with_dots_is_an_image_of_its_own_where_no_other_begins_alike(tmp_path):
    content = [("2021.01.03.png", encoded(PICTURES[0])), ("2022.01.03.png", encoded(PICTURES[1]))]
    assert found(read(members=write_tar(tmp_path / "m.tar", content))) == EXPECTED[:2]


def test_incomplete_samples_are_set_aside(tmp_path):
    content = [
        ("0.txt", b"a cat"),
        ("1.png", encoded(PICTURES[1])),
        ("2.png", encoded(PICTURES[2])),
        ("2.txt", b"a dog"),
    ]
    path = write_tar(tmp_path / "m.tar", content)
    records = read(members=path, caption_column="txt")
    assert captions(records) == ["a dog"]
    assert records.set_aside[0].where == f"{path} 0.txt"
    assert reasons(records)[0] == NO_IMAGE_IN_SAMPLE
    assert reasons(records)[1].startswith(NO_CAPTION)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (None, "no .json beside"),
        (b"{", "not valid JSON"),
        (b'{"a": 1}', "found: a"),
        (b"[]", "list"),
    ],
)
def test_tar_without_the_group_is_refused_with_its_member(tmp_path, facts, says):
    content = [("0.png", encoded(PICTURES[0])), *([] if facts is None else [("0.json", facts)])]
    path = write_tar(tmp_path / "m.tar", content)
    said = problem(members=path, group_column="who")
    assert said.startswith(f"{path} 0.png: ")
    assert says in said


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_tar_that_is_cut_off_is_refused(tmp_path, mode, share):
    """Whatever follows the cut would vanish."""
    rng = np.random.default_rng(0)
    many = [(f"{n}.png", encoded(picture(n)) + rng.bytes(3000)) for n in range(20)]
    path = write_tar(tmp_path / "m.tar", many, mode)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * share)])
    assert problem(members=path).startswith(f"{path}: not a readable tar file, or cut off")


@pytest.mark.parametrize("blocks", [2, 3])
def test_tar_that_is_cut_off_between_members_is_refused(tmp_path, blocks):
    """Each member here is a header of 512 bytes and one block of data."""
    path = write_tar(tmp_path / "m.tar", [(f"{n}.png", encoded(picture(n))) for n in range(3)])
    content = Path(path).read_bytes()[: 1024 * blocks]
    Path(path).write_bytes(content)
    assert problem(members=path).startswith(f"{path}: not a readable tar file, or cut off")


def test_tar_with_a_damaged_header_is_refused(tmp_path):
    """Python takes a damaged header after the first for the end of the tar."""
    path = write_tar(tmp_path / "m.tar", [(f"{n}.png", encoded(picture(n))) for n in range(3)])
    content = bytearray(Path(path).read_bytes())
    content[1024:1030] = b"\xff" * 6
    Path(path).write_bytes(content)
    assert problem(members=path).startswith(f"{path}: not a readable tar file, or cut off")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_file_that_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "m.tar").write_bytes(content)
    assert problem(members=str(tmp_path / "m.tar")).startswith(f"{tmp_path / 'm.tar'}: not a")
