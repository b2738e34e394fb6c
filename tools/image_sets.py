"""The images of tools/image_study.py: color, one size, and no two nearly the same."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Images = npt.NDArray[np.uint8]

LARGEST = 20_000
"""Images that are read of a set, at most."""
MOST_PIXELS = 4_000_000
"""Of a file; larger ones are left out."""
THUMBNAIL = (128, 128)
COARSE = 8
LEVELS = 16


def read_images(source: str, side: int) -> Images:
    """Distinct images of a set, in a fixed order; uint8 [count, 3, side, side].

    Parameters
    ----------
    source : ``digits`` (scikit-learn's), a file in MNIST's own layout (``-ubyte.gz``), rows of
        pixels and a label (``.csv.gz``), or a folder of PNG files, which are put on white. Each of
        them is padded to a square, and scaled.

    Notes
    -----
    Of images that are the same at 8 x 8 pixels of 16 levels the first is taken: a non-member that
    is nearly a member is no non-member.
    """
    found: dict[bytes, Images] = {}
    for image in _opened(source):
        square = ImageOps.pad(image, (side, side), Image.Resampling.BILINEAR, "white")
        coarse = np.asarray(square.resize((COARSE, COARSE), Image.Resampling.BOX))
        found.setdefault((coarse // (256 // LEVELS)).tobytes(), np.asarray(square))
    return np.stack([*found.values()]).transpose(0, 3, 1, 2)


def _opened(source: str) -> Iterator[Image.Image]:
    if Path(source).is_dir():
        files = sorted(file for file in Path(source).rglob("*.png") if not file.is_symlink())
        for file in files[:LARGEST]:
            try:
                with Image.open(file) as opened:
                    if opened.width * opened.height > MOST_PIXELS:
                        continue
                    image = opened.convert("RGBA")
            except Image.DecompressionBombError:
                continue
            image.thumbnail(THUMBNAIL)
            white = Image.new("RGBA", image.size, "white")
            yield Image.alpha_composite(white, image).convert("RGB")
        return
    for pixels in _grey(source)[:LARGEST]:
        yield Image.fromarray(pixels).convert("RGB")


def _grey(source: str) -> Images:
    if source == "digits":
        from sklearn.datasets import load_digits

        ink: Images = (load_digits().images * (255 / 16)).round().astype(np.uint8)
        return ink
    if source.endswith("ubyte.gz"):
        content = np.frombuffer(gzip.decompress(Path(source).read_bytes()), np.uint8, offset=16)
        return content.reshape(-1, 28, 28)
    if source.endswith(".csv.gz"):
        rows = np.loadtxt(source, delimiter=",", dtype=np.float32)[:, :784]
        return rows.reshape(-1, 28, 28).astype(np.uint8)
    raise SystemExit(
        f"--set: {source} should be digits, a folder of PNG files, or a file that ends in "
        "ubyte.gz or .csv.gz"
    )
