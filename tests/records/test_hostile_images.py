"""Whatever is in a table, a tar or a folder of images, each record is read or set aside and
counted, or the file is refused in one sentence; soon, and in little memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_images import encoded, picture, png_header, problem, read, reasons

from raymia.records.image_files import HEADER_BYTES, SEVERAL_IMAGES, find_images
from raymia.records.images import read_image_records
from raymia.records.pixels import TOO_LONG, Preparation, UnusableImageError
from raymia.spec import ImageRecordsSpec
from raymia.util.errors import InputError

SECONDS, MEMORY = 20, 2**29
GOOD = encoded(picture(77))
FUZZ = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


def turned(how):
    exif = Image.Exif()
    exif[0x0112] = how
    return encoded(picture(4), "JPEG", exif=exif)


IMAGES = [
    *(encoded(picture(n), kind) for n, kind in enumerate(["PNG", "JPEG", "BMP", "WEBP", "TIFF"])),
    encoded(picture(9, mode="CMYK"), "JPEG"), encoded(picture(3, mode="L").convert("P"), "PNG"),
    encoded(picture(1), "GIF", save_all=True, append_images=[picture(2)]), turned(6), turned(99),
    png_header(10**5, 10**5), png_header(60_000, 1_000), png_header(8, 8, depth=16),
    encoded(picture(2, size=(1, 1))), b"", bytes(100),
]  # fmt: skip


@st.composite
def damaged(draw, contents=tuple(IMAGES), places=200):
    """A file that was cut, or of which a few bytes are others."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4)) if content else 0):
        place = draw(st.integers(0, min(len(content), places) - 1))
        content[place] = draw(st.sampled_from([0, 127, 128, 255]) | st.integers(0, 255))
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return bytes(content)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def within_bounds(**where):
    """How many images were read or set aside; None where the file is refused."""
    began, before = time.monotonic(), peak()
    try:
        records = read(**where)
    except InputError as error:
        count = None
        error.message.encode()
    else:
        count = len(records.table) + len(records.set_aside)
        [f"{one.where} {one.reason}".encode() for one in records.set_aside]
    assert time.monotonic() - began < SECONDS
    assert peak() - before < MEMORY
    return count


# ------------------------------------------------------------------------ tables


@FUZZ
@given(
    cells=st.lists(damaged() | st.none(), max_size=6),
    kind=st.sampled_from(["bytes", "large", "struct"]),
)
def test_every_cell_of_a_table_is_counted(tmp_path, cells, kind):
    cells = [*cells, GOOD]
    if kind == "struct":
        form = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": cell, "path": None} for cell in cells], form)
    else:
        column = pa.array(cells, pa.binary() if kind == "bytes" else pa.large_binary())
    pq.write_table(pa.table({"image": column}), tmp_path / "t.parquet")
    assert within_bounds(members=str(tmp_path / "t.parquet")) == len(cells)


def test_image_that_would_be_scaled_beyond_all_memory_is_set_aside(tmp_path):
    cells = [encoded(Image.new("RGB", (2, 500_000))), GOOD]
    pq.write_table(pa.table({"image": cells}), tmp_path / "t.parquet")
    spec = ImageRecordsSpec(kind="image", members=str(tmp_path / "t.parquet"))
    before = peak()
    records = read_image_records(spec, (3, 256, 256), prepared=Preparation("scale_and_cut"))
    (reason,) = reasons(records)
    assert reason == f"{TOO_LONG}; came: 2 x 500000"
    assert peak() - before < MEMORY


# -------------------------------------------------------------------------- tars

LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
NAMES = (
    "a.png", "b.png", "a.txt", "a.json", "/abs.png", "../up.png", "a.image.png", "new\nline.png",
    "bad\udcff.png", f"{'x' * 150}.png", ".hidden.png", "",
)  # fmt: skip
SETTINGS = (
    {}, {}, {"type": b"S"}, {"type": b"?"}, {"mtime": 1e30}, {"linkname": "/etc/passwd"},
    {"pax_headers": {"size": "x"}}, {"pax_headers": {"size": "999999999999"}},
    {"pax_headers": {"GNU.sparse.map": "0,x", "GNU.sparse.size": "10"}},
    {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                     "GNU.sparse.realsize": "99999999999"}},
    {"pax_headers": {"path": "p\udcff.png", "mtime": "nan"}},
    *({"type": kind} for kind in LINKS),
)  # fmt: skip


def member(name, content=b"", **attributes):
    info = tarfile.TarInfo(name)
    is_link = attributes.get("type") in LINKS
    info.size = 0 if is_link else len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, None if is_link else io.BytesIO(content)


def tar_of(members, form=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, content)
    return file.getvalue()


def with_size(content, size, at=0):
    """A tar of which one header says another size, in the form for large ones."""
    header = bytearray(content[at : at + 512])
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    return content[:at] + summed(header) + content[at + 512 :]


def summed(header):
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@st.composite
def tars(draw):
    names = st.sampled_from(NAMES)
    contents = st.sampled_from([GOOD, b'{"who": "p"}', b"caption", b"\xff"]) | damaged()
    chosen = draw(st.lists(st.tuples(names, contents, st.sampled_from(SETTINGS)), max_size=5))
    made = [member(name, content, **more) for name, content, more in chosen]
    content = tar_of([*made, member("zz.png", GOOD)])
    for start in range(0, len(content), 512):
        if content[start + 257 : start + 262] == b"ustar" and draw(st.integers(0, 5)) == 0:
            header = bytearray(content[start : start + 512])
            place = draw(st.sampled_from([0, 99, 100, 124, 130, 156, 157, 345, 386, 482, 483]))
            header[place] = draw(st.sampled_from([0, 0x80, 0xFF, *b"SxLg7"]))
            content = content[:start] + summed(header) + content[start + 512 :]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@FUZZ
@given(
    content=tars(),
    more=st.sampled_from([{}, {"caption_column": "txt"}, {"group_column": "who"}]),
)
def test_any_tar_ends_in_counts_or_a_sentence(tmp_path, content, more):
    (tmp_path / "t.tar").write_bytes(content)
    within_bounds(members=str(tmp_path / "t.tar"), **more)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("name", ["a.png", "a.cls"])
def test_a_member_of_more_than_its_file_holds_ends_at_the_files_end(tmp_path, name, suffix):
    content = with_size(tar_of([member(name, GOOD), member("b.png", GOOD)]), 10**15)
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == "tar.gz" else content)
    began = time.monotonic()
    assert "not a readable tar file, or cut off: unexpected end of data" in problem(
        members=str(path)
    )
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_and_settings_that_would_fill_the_memory_are_not_read(tmp_path, form):
    content = tar_of([member("x" * 300 + ".png", GOOD)], form)
    (tmp_path / "t.tar").write_bytes(with_size(content, HEADER_BYTES + 1))
    said = problem(members=str(tmp_path / "t.tar"))
    assert f"a header of {HEADER_BYTES + 1:,} bytes" in said


def test_of_many_images_that_are_called_alike_no_more_than_one_is_held(tmp_path):
    (tmp_path / "t.tar").write_bytes(tar_of([member("a.image.png", GOOD) for _ in range(9)]))
    spec = ImageRecordsSpec(kind="image", members=str(tmp_path / "t.tar"), image_column="image.png")
    found, *others = find_images(str(tmp_path / "t.tar"), spec)
    assert len(others) == 8, "each is set aside"
    (sample, *_) = found.load.args
    assert [content for _, content in sample.images] == [GOOD, *[b""] * 8]
    with pytest.raises(UnusableImageError, match=SEVERAL_IMAGES):
        found.load()


def test_name_in_a_tar_that_is_no_unicode_is_said_as_far_as_it_is(tmp_path):
    (tmp_path / "t.tar").write_bytes(tar_of([member("bad\udcff.png", GOOD)]))
    said = problem(members=str(tmp_path / "t.tar"), group_column="who")
    assert "bad?.png: group_column is 'who', and there is no .json beside" in said


# ----------------------------------------------------------------------- folders

FILES = (
    "a.png", "b.png", "new\nline.png", "bad\udcff.png", "3_cat/a.png", "3_cat\udcff/a.png",
    "3_new\nline/b.png", "sub/a.png", "noend",
)  # fmt: skip
ROWS = st.fixed_dictionaries(
    {
        "file_name": st.sampled_from(
            ["a.png", "a.png", "gone.png", "../x.png", "/etc/passwd", "new\nline.png",
             "bad\udcff.png", "a\0.png", "sub/a.png", "", None, 7, ["a.png"]]
        ),
        "text": st.sampled_from(["cap", "\ud800", "", None, 7]),
        "who": st.sampled_from(["g", "\ud800", None, 7, ["x"]]),
        "label": st.sampled_from([0, 1, -1, 1.5, "2", None, 1e300, True, 10**30]),
    }
)  # fmt: skip
ASKED = (
    {}, {"caption_column": "text"}, {"caption_column": "txt"}, {"class_column": "label"},
    {"group_column": "who"}, {"folder_prompts": True},
)  # fmt: skip


@FUZZ
@given(
    files=st.dictionaries(st.sampled_from(FILES), damaged() | st.just(GOOD), min_size=1),
    captions=st.lists(st.sampled_from(FILES), max_size=3),
    rows=st.lists(ROWS, max_size=5),
    end=st.sampled_from(["", "\n", "\n{"]),
    asked=st.sampled_from(ASKED),
)
def test_any_folder_ends_in_counts_or_a_sentence(
    tmp_path_factory, files, captions, rows, end, asked
):
    folder = tmp_path_factory.mktemp("folder")
    written = {**files, **{f"{name.rpartition('.')[0]}.txt": b"\xffcap" for name in captions}}
    for name, content in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if rows:
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + end)
    count = within_bounds(members=str(folder), **asked)
    named = [name for name in files if name.endswith(".png")]
    assert count is None or count >= len(named)


def test_prompt_of_a_folder_whose_name_is_no_unicode_is_none(tmp_path):
    for name in ("3_cat\udcff", "2_dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encoded(picture(len(name))))
    records = read(members=str(tmp_path), folder_prompts=True)
    (reason,) = reasons(records)
    assert reason.startswith("without a caption: its folder's name is ")
    assert [p["caption"] for p in records.table["payload"].to_pylist()] == ["dog"]
