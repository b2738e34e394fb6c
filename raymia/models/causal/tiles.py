"""How much is held at once: of [tokens x vocabulary], and of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

CACHED_BYTES = 16 * 2**20
"""Of a tile on a CPU, whose caches it should not leave."""
WIDENED_BYTES = 32 * 2**20
"""Of the part of an output matrix that is kept in float32 beside one of 16 bits."""
DEVICE_BYTES = 192 * 2**20
"""Of the tiles that a GPU holds at once."""
KEPT_BYTES = 512 * 2**20
"""Of keys and values of texts whose beginning others share, and as much of those others."""
DEVICE_ROWS = 4_096
"""Tokens for which a GPU reads the output matrix once: enough that arithmetic takes longer."""


@dataclass(frozen=True)
class Tile:
    """The shape of a tile.

    Attributes
    ----------
    rows : tokens; for each so many the whole output matrix is read once.
    columns : of the vocabulary.
    """

    rows: int
    columns: int


def whole_rows(device: str, vocabulary: int, lanes: int = 1) -> Tile:
    """A tile over the whole vocabulary: of layers that are no matrix, and of float32 on a CPU."""
    held = CACHED_BYTES // lanes if device == "cpu" else DEVICE_BYTES // 2
    return Tile(max(1, held // (4 * vocabulary)), vocabulary)


def tile_of(
    device: str, vocabulary: int, width: int, itemsize: int, *, copies: int, lanes: int = 1
) -> Tile:
    """The tile for a matrix [vocabulary, width].

    Parameters
    ----------
    device : torch's name of its kind.
    itemsize : bytes of a number of the matrix.
    copies : of a tile that are held at once.
    lanes : batches that a CPU runs side by side, each with tiles of its own.
    """
    if device != "cpu":
        columns = DEVICE_BYTES // (4 * DEVICE_ROWS * copies)
        return Tile(DEVICE_ROWS, min(vocabulary, columns))
    if itemsize == 4:
        # A float32 matrix needs no copy, and answers stay what they were to the last bit.
        return whole_rows(device, vocabulary, lanes)
    columns = min(vocabulary, max(1, WIDENED_BYTES // lanes // (4 * width)))
    return Tile(max(1, CACHED_BYTES // lanes // (4 * columns)), columns)
