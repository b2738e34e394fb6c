"""From the bytes of an image file to pixels of one shape.

Pixels are what training pipelines see: decoded by Pillow, turned upright by EXIF, 8 bits per
channel, color profiles ignored.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from raymia.spec.images import Deep, Fit, Interpolation, Shape
from raymia.util.optional import require
from raymia.util.reasons import CAME

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
MAX_BYTES = 4 * MAX_PIXELS + 2**20
"""More than the largest image takes without compression."""

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "AVIF")
"""What Pillow may take a file for; some of its other readers start programs."""

EMPTY_FILE = "an empty file"
NOT_AN_IMAGE = "not an image that can be read: PNG, JPEG, BMP, WebP, TIFF, GIF or AVIF"
DAMAGED = "a damaged or truncated image; copy it again"
GIGANTIC = f"of more than {MAX_PIXELS // 10**6} million pixels; scale it down first"
TOO_SMALL = "less than 2 pixels wide or high"
TOO_LONG = (
    f"so long and narrow that it has more than {MAX_PIXELS // 10**6} million pixels when its "
    "shorter side is scaled; crop it first"
)
ANIMATED = "animated, or of more than one page; save one frame as an image of its own"
TOO_DEEP = "of more than 8 bits per channel; convert it first"
OF_16_BITS = "of 16 bits per channel; set sixteen_bit, or convert it first"
OTHER_COLORS = "in other colors than grey or RGB; convert it first"
TRANSPARENT = "not fully opaque; flatten it onto a background first"
COLORED = "in color, and the models take grey images; convert it first"

_TURNED = range(2, 9)
"""Orientations of EXIF by which a picture does not lie as it is stored."""
_GREY, _COLOR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA")


@dataclass(frozen=True)
class Preparation:
    """How images of another size are brought to that which models take.

    Attributes
    ----------
    fit : what is done. ``crop`` cuts the longer side about the center to the aspect, then scales;
        ``pad`` scales down what is larger, then puts it in the center of a black image; ``stretch``
        scales; ``scale_and_cut`` scales the shorter side, then cuts the rest about the center, as
        torchvision's Resize and CenterCrop in the trainers of diffusers.
    interpolation : of the scaling, Pillow's, antialiased.
    """

    fit: Fit | Literal["scale_and_cut"] = "exact"
    interpolation: Interpolation = "bilinear"


class UnusableImageError(Exception):
    """An image that is set aside; its text is the reason."""


@dataclass(frozen=True)
class Prepared:
    """An image as models take it.

    Attributes
    ----------
    pixels : uint8 [channels, height, width] as raw bytes. Grey becomes RGB for models of color
        images.
    is_enlarged : whether it was scaled up.
    is_turned : whether it was turned or mirrored, as the orientation of its EXIF says.
    """

    pixels: bytes
    is_enlarged: bool
    is_turned: bool = False


def to_pixels(content: bytes, shape: Shape, how: Preparation, deep: Deep = "set_aside") -> Prepared:
    """Decode an image file and bring it to the size and channels that models take.

    Parameters
    ----------
    content : of the file.
    shape : channels (1 or 3), height and width.
    how : what is done to another size.
    deep : what is done to 16 bits per channel.

    Raises
    ------
    UnusableImageError
        With what was expected and what came.
    """
    with _opened(content, deep) as (upright, is_turned):
        pixels = _raw(_fitted(_channels(upright, shape[0]), shape, how))
        smaller = upright.height < shape[1] or upright.width < shape[2]
        return Prepared(pixels, smaller and how.fit != "pad", is_turned)


def shape_of(content: bytes) -> Shape:
    """Channels (1 for grey, else 3), height and width of an image file.

    Raises
    ------
    UnusableImageError
        As :func:`to_pixels`.
    """
    with _opened(content) as (upright, _):
        return (1 if upright.mode in _GREY else 3, upright.height, upright.width)


@contextmanager
def _opened(content: bytes, deep: Deep = "high_byte") -> Iterator[tuple[Image.Image, bool]]:
    """An image file's picture, turned upright, and whether it had to be; what goes wrong with it is
    told as a reason."""
    require("PIL", "images")
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    if not content:
        raise UnusableImageError(EMPTY_FILE)
    if len(content) > MAX_BYTES:
        raise UnusableImageError(GIGANTIC + came(f"a file of more than {MAX_BYTES:,} bytes"))
    try:
        Image.init()
        known = [name for name in FORMATS if name in Image.OPEN]  # AVIF is not in every Pillow
        with Image.open(io.BytesIO(content), formats=known) as image:
            _check_header(image, deep)
            is_turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            yield _of_8_bits(ImageOps.exif_transpose(image)), is_turned
    except (UnusableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnusableImageError(NOT_AN_IMAGE) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableImageError(GIGANTIC) from None
    except Exception as error:  # Pillow's readers raise all kinds of errors on damaged files
        raise UnusableImageError(DAMAGED + came(error or type(error).__name__)) from None


def came(what: object) -> str:
    """The end of a reason: what came, cut to a length that can be read."""
    text = str(what)
    return CAME + (text if len(text) <= 200 else f"{text[:200]}...")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings to itself: what they are about is set aside or harmless."""
    require("PIL", "images")
    from PIL import Image

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _check_header(image: Image.Image, deep: Deep) -> None:
    """Refuse what can be refused before pixels are decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImageError(GIGANTIC + came(f"{width} x {height}"))
    if min(width, height) < 2:
        raise UnusableImageError(TOO_SMALL + came(f"{width} x {height}"))
    # A camera's JPEG with previews (MPO) has frames too, and its first one is the picture.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnusableImageError(ANIMATED)
    if _is_16_bit(image):
        if deep == "set_aside":
            raise UnusableImageError(OF_16_BITS + came(f"mode {image.mode}"))
    elif image.mode == "F" or image.mode.startswith("I"):
        raise UnusableImageError(TOO_DEEP + came(f"mode {image.mode}"))
    elif image.mode not in _GREY + _COLOR:
        raise UnusableImageError(OTHER_COLORS + came(f"mode {image.mode}"))


def _is_16_bit(image: Image.Image) -> bool:
    """Whether Pillow would drop the lower 8 of 16 bits, as it does with 16-bit RGB, unasked; or
    has them all, as of grey."""
    tiles: list[Any] = getattr(image, "tile", [])
    return image.format in ("PNG", "TIFF") and (
        image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in tiles)
    )


def _of_8_bits(image: Image.Image) -> Image.Image:
    """The higher byte of a grey image of 16 bits; others are of 8 already."""
    if not image.mode.startswith("I;16"):
        return image
    from PIL import Image

    return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))


def _channels(image: Image.Image, channels: int) -> Image.Image:
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise UnusableImageError(TRANSPARENT)
        if image.mode in _COLOR:
            image = image.convert("RGBA")
    if image.mode in _GREY:
        image = image.convert("L")
        return image if channels == 1 else image.convert("RGB")
    image = image.convert("RGB")
    if channels == 3:
        return image
    colors = np.asarray(image)
    if (colors != colors[..., :1]).any():
        raise UnusableImageError(COLORED)
    return image.getchannel(0)


def _fitted(image: Image.Image, shape: Shape, how: Preparation) -> Image.Image:
    (_, height, width), fit = shape, how.fit
    if image.size == (width, height):
        return image
    if fit == "exact":
        raise UnusableImageError(
            f"not of the models' {width} x {height} pixels (width x height), and `fit` is exact; "
            "crop, pad or stretch would change it" + came(f"{image.width} x {image.height}")
        )
    if fit == "scale_and_cut":
        return _scaled_and_cut(image, width, height, how.interpolation)
    if fit == "pad":
        return _padded(image, width, height)
    if fit == "crop":
        image = _cropped(image, width, height)
    return _resized(image, width, height, how.interpolation)


def _resized(
    image: Image.Image, width: int, height: int, interpolation: Interpolation = "bilinear"
) -> Image.Image:
    from PIL import Image

    return image.resize((width, height), Image.Resampling[interpolation.upper()])


def _scaled_and_cut(
    image: Image.Image, width: int, height: int, interpolation: Interpolation
) -> Image.Image:
    """Scale until one side fits and the other is not shorter, and cut that about the center; what
    is rounded is rounded as torchvision does."""
    if width * image.height >= height * image.width:
        wide, high = width, int(width * image.height / image.width)
    else:
        wide, high = int(height * image.width / image.height), height
    if wide * high > MAX_PIXELS:
        raise UnusableImageError(TOO_LONG + came(f"{image.width} x {image.height}"))
    image = _resized(image, wide, high, interpolation)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _cropped(image: Image.Image, width: int, height: int) -> Image.Image:
    """Cut the longer side about the center, to the aspect width : height."""
    if image.width * height > image.height * width:
        side = max(1, round(image.height * width / height))
        left = (image.width - side) // 2
        return image.crop((left, 0, left + side, image.height))
    side = max(1, round(image.width * height / width))
    top = (image.height - side) // 2
    return image.crop((0, top, image.width, top + side))


def _padded(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale down what is larger, and put it in the center of a black image."""
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    if scale < 1:
        image = _resized(
            image, max(1, round(image.width * scale)), max(1, round(image.height * scale))
        )
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


def as_picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Pixels uint8 [1 or 3, height, width] as Pillow's image."""
    require("PIL", "images")
    from PIL import Image

    plane = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(plane))


def _raw(image: Image.Image) -> bytes:
    pixels = np.asarray(image)
    if pixels.ndim == 3:
        pixels = pixels.transpose(2, 0, 1)
    return pixels.tobytes()
