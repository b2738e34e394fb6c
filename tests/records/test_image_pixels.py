"""What is made of an image file: which are refused and why, and how sizes are fitted."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features
from small_images import encoded, picture, png_header, raw

from raymia.records.pixels import (
    ANIMATED,
    COLORED,
    DAMAGED,
    EMPTY_FILE,
    GIGANTIC,
    MAX_BYTES,
    NOT_AN_IMAGE,
    OF_16_BITS,
    OTHER_COLORS,
    TOO_DEEP,
    TOO_SMALL,
    TRANSPARENT,
    Preparation,
    UnusableImageError,
    quiet,
    shape_of,
    to_pixels,
)

FITS = ["exact", "crop", "pad", "stretch", "scale_and_cut"]


def made(image, shape=None, fit="exact", kind="PNG", **options):
    """Pixels [channels, height, width] of an image that was saved and read."""
    content = image if isinstance(image, bytes) else encoded(image, kind, **options)
    shape = shape or (3, image.height, image.width)
    return np.frombuffer(pixels(content, shape, fit), np.uint8).reshape(shape)


def pixels(content, shape, fit="exact", deep="set_aside"):
    return to_pixels(content, shape, Preparation(fit), deep).pixels


def why(content, shape=(3, 8, 8), fit="exact"):
    with pytest.raises(UnusableImageError) as caught:
        pixels(content, shape, fit)
    return str(caught.value)


def png_of_16_bit_rgb():
    width, height, row = 8, 8, b"\x00" + b"\x12\x34" * 24
    whole = png_header(width, height, depth=16)
    data = zlib.compress(row * height)
    start = whole.index(b"IDAT") - 4
    chunk = b"IDAT" + data
    end = whole.index(b"IEND") - 4
    return (
        whole[:start]
        + struct.pack(">I", len(data))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + whole[end:]
    )


# ---------------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossless_formats_give_the_pixels_that_were_saved(kind, options, mode):
    image = picture(1, (8, 6), mode)
    found = made(image, kind=kind, **options)
    np.testing.assert_array_equal(found, np.moveaxis(np.asarray(image.convert("RGB")), 2, 0))


def test_jpeg_gives_what_it_decodes_to():
    content = encoded(picture(2), "JPEG")
    assert pixels(content, (3, 8, 8), "exact") == raw(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_without_transparency_is_color(kind):
    image = picture(3).quantize(16)
    np.testing.assert_array_equal(
        made(image, kind=kind), np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    )


def test_bilevel_is_black_and_white():
    image = picture(4, mode="L").convert("1")
    assert set(made(image, (1, 8, 8)).ravel()) == {0, 255}


def test_grey_given_to_a_color_model_has_three_equal_channels():
    image = picture(5, mode="L")
    for channel in made(image):
        np.testing.assert_array_equal(channel, np.asarray(image))


def test_color_with_equal_channels_is_grey():
    grey = picture(6, mode="L")
    np.testing.assert_array_equal(made(grey.convert("RGB"), (1, 8, 8))[0], np.asarray(grey))


def test_color_is_not_given_to_a_grey_model():
    assert why(encoded(picture(6)), (1, 8, 8)) == COLORED


def test_one_colored_pixel_is_color():
    image = picture(6, mode="L").convert("RGB")
    image.putpixel((7, 7), (1, 1, 2))
    assert why(encoded(image), (1, 8, 8)) == COLORED


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_alpha_is_dropped(mode):
    image = picture(7, mode=mode)
    image.putalpha(255)
    solid = image.convert("RGB" if mode == "RGBA" else "L")
    np.testing.assert_array_equal(made(image), made(solid))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_one_pixel_that_is_not_opaque_is_transparency(mode):
    image = picture(7, mode=mode)
    image.putalpha(255)
    band = len(mode) - 1
    image.putpixel((3, 4), tuple(254 if i == band else 9 for i in range(len(mode))))
    assert why(encoded(image)) == TRANSPARENT


def test_transparent_palette_entry_counts_only_where_it_is_used():
    image = picture(8).quantize(16)
    unused = Image.new("P", image.size)
    unused.putpalette(image.getpalette())
    used = encoded(image, transparency=int(np.asarray(image)[0, 0]))
    assert why(used) == TRANSPARENT
    assert pixels(encoded(unused, transparency=5), (3, 8, 8), "exact")


def test_transparent_grey_counts_only_where_it_is_used():
    image = Image.fromarray(np.full((8, 8), 7, np.uint8))
    assert why(encoded(image, transparency=7)) == TRANSPARENT
    np.testing.assert_array_equal(made(encoded(image, transparency=8), (1, 8, 8)), 7)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_images_are_turned_upright(kind, orientation, turn):
    """EXIF 6 is shown turned clockwise by 90 degrees, which is three turns to the left."""
    image = picture(9, (8, 6))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(image, kind, exif=exif, **options)
    plain = np.asarray(Image.open(io.BytesIO(encoded(image, kind, **options))).convert("RGB"))
    upright = np.moveaxis(np.rot90(plain, turn), 2, 0)
    np.testing.assert_array_equal(made(content, upright.shape), upright)


def test_first_picture_of_a_camera_s_jpeg_with_a_preview_is_taken():
    main, preview = picture(10), picture(11, (4, 4))
    content = encoded(main, "MPO", save_all=True, append_images=[preview])
    assert made(content, (3, 8, 8)).tobytes() == made(encoded(main, "JPEG"), (3, 8, 8)).tobytes()


# -------------------------------------------------------------------- what is refused


def test_empty_file():
    assert why(b"") == EMPTY_FILE


@pytest.mark.parametrize(
    "content",
    [
        b"not an image at all",
        b"\x00" * 200,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG",
    ],
)
def test_other_content_is_no_image(content):
    assert why(content) == NOT_AN_IMAGE


def test_postscript_is_not_run():
    """Pillow hands PostScript to Ghostscript."""
    assert why(encoded(picture(), "EPS")) == NOT_AN_IMAGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_image(kind, share):
    content = encoded(picture(12, (40, 40)), kind)
    found = why(content[: int(len(content) * share)], (3, 40, 40))
    assert found.startswith((DAMAGED, NOT_AN_IMAGE))


def test_damaged_png_is_refused_with_what_is_wrong():
    content = bytearray(encoded(picture(12, (40, 40))))
    content[len(content) // 2] ^= 0xFF
    assert why(bytes(content), (3, 40, 40)).startswith(f"{DAMAGED}; came: ")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("fit", FITS)
def test_more_than_one_frame(kind, fit):
    frames = [picture(seed) for seed in (13, 14, 15)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert why(content, fit=fit) == ANIMATED


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks(kind):
    assert why(encoded(picture(16, mode="CMYK"), kind)) == f"{OTHER_COLORS}; came: mode CMYK"


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_other_color_spaces(mode):
    image = Image.new(mode, (8, 8))
    found = why(encoded(image, "TIFF"))
    assert found == f"{OTHER_COLORS}; came: mode {mode}"


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.float32)]
)
def test_grey_of_more_than_8_bits(kind, dtype):
    found = why(encoded(Image.fromarray(np.ones((8, 8), dtype)), kind))
    reason = TOO_DEEP if dtype is np.float32 else OF_16_BITS
    assert found.startswith(f"{reason}; came: mode ")


def test_16_bit_color_is_not_cut_to_8_bits_unasked():
    assert why(png_of_16_bit_rgb()).startswith(OF_16_BITS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_higher_byte_of_16_bits_is_taken_on_request(kind):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1021
    content = encoded(Image.fromarray(deep), kind)
    expected = (deep >> 8).astype(np.uint8)
    assert pixels(content, (1, 8, 8), "exact", "high_byte") == expected.tobytes()
    assert pixels(png_of_16_bit_rgb(), (3, 8, 8), "exact", "high_byte") == b"\x12" * 192
    assert shape_of(content) == (1, 8, 8)


def test_deeper_than_16_bits_is_set_aside_on_request_too():
    content = encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(UnusableImageError, match="of more than 8 bits"):
        pixels(content, (1, 8, 8), "exact", "high_byte")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read():
    image = picture(3)
    content = encoded(image, "AVIF")
    with Image.open(io.BytesIO(content)) as decoded:
        assert pixels(content, (3, 8, 8), "exact") == raw(decoded.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
@pytest.mark.parametrize("fit", FITS)
def test_one_pixel(size, fit):
    found = why(encoded(picture(17, size)), fit=fit)
    assert found == f"{TOO_SMALL}; came: {size[0]} x {size[1]}"


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(8_001, 8_000), (10_000, 10_000), (60_000, 60_000)])
def test_gigantic_image_is_refused_by_its_header(size, fit):
    """The largest of them Pillow itself takes for a decompression bomb."""
    with quiet():
        assert why(png_header(*size), fit=fit).startswith(GIGANTIC)


def test_gigantic_image_is_refused_where_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert why(png_header(10_000, 10_000)).startswith(GIGANTIC)


def test_64_million_pixels_are_not_too_many():
    assert why(png_header(8_000, 8_000)).startswith(DAMAGED)


def test_file_larger_than_any_image_is_not_decoded(monkeypatch):
    monkeypatch.setattr("raymia.records.pixels.MAX_BYTES", 100)
    assert MAX_BYTES > 4 * 64_000_000
    assert why(encoded(picture(18))).startswith(GIGANTIC)


def test_other_size_is_refused_with_both_sizes_and_what_to_do():
    found = why(encoded(picture(19, (12, 8))), (3, 8, 8))
    assert "8 x 8 pixels" in found
    assert "`fit`" in found
    assert found.endswith("; came: 12 x 8")


# ------------------------------------------------------------------------------- fits


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_image_of_the_right_size_is_left_alone(fit, mode):
    image = picture(20, (9, 7), mode)
    shape = (3 if mode == "RGB" else 1, 7, 9)
    assert made(image, shape, fit).tobytes() == raw(image)


def test_digit_of_28_pixels_is_padded_to_32_without_resampling():
    digit = picture(21, (28, 28), "L")
    np.testing.assert_array_equal(made(digit, (1, 32, 32), "pad")[0], np.pad(np.asarray(digit), 2))


def test_pad_puts_what_is_smaller_in_the_center_as_it_is():
    image = picture(22, (5, 2))
    found = made(image, (3, 8, 8), "pad")
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[3:5, 1:6] = np.asarray(image)
    np.testing.assert_array_equal(found, np.moveaxis(expected, 2, 0))


def test_pad_scales_down_what_is_larger_and_keeps_its_aspect():
    image = picture(23, (16, 8))
    found = made(image, (3, 8, 8), "pad")
    small = np.asarray(image.resize((8, 4), Image.Resampling.BILINEAR))
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[2:6] = small
    np.testing.assert_array_equal(found, np.moveaxis(expected, 2, 0))


def test_pad_of_a_very_long_image_takes_no_more_memory_than_the_image():
    found = made(Image.new("L", (4_000_000, 2), 255), (1, 8, 8), "pad")
    assert (found[0].max(axis=1) > 0).sum() == 1


def test_stretch_scales_both_sides():
    image = picture(24, (16, 4))
    expected = image.resize((8, 8), Image.Resampling.BILINEAR)
    assert made(image, (3, 8, 8), "stretch").tobytes() == raw(expected)


@pytest.mark.parametrize(
    ("size", "shape", "box"),
    [
        ((12, 8), (3, 8, 8), (2, 0, 10, 8)),
        ((13, 8), (3, 8, 8), (2, 0, 10, 8)),
        ((8, 13), (3, 8, 8), (0, 2, 8, 10)),
        ((178, 218), (3, 64, 64), (0, 20, 178, 198)),
        ((20, 10), (3, 8, 16), (0, 0, 20, 10)),
        ((10, 10), (3, 4, 8), (0, 2, 10, 7)),
    ],
)
def test_crop_cuts_the_longer_side_about_the_center(size, shape, box):
    image = picture(25, size)
    expected = image.crop(box).resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
    assert made(image, shape, "crop").tobytes() == raw(expected)


def test_crop_to_the_models_size_is_not_resampled():
    image = picture(26, (12, 8))
    found = made(image, (3, 8, 8), "crop")
    np.testing.assert_array_equal(found, np.moveaxis(np.asarray(image)[:, 2:10], 2, 0))


def test_scaling_down_averages_what_it_leaves_out():
    """Without antialiasing, stripes of one pixel would come out black or white."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    found = made(Image.fromarray(stripes), (1, 8, 8), "stretch")
    assert 96 < found.min() <= found.max() < 160


def test_palette_is_scaled_in_colors_not_in_indices():
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.putdata([0, 2, 0, 2])
    found = made(image, (3, 4, 4), "stretch")
    assert found[0].max() == 0  # index 1, red, lies between black and green
