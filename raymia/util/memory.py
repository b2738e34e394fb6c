"""Memory that a process no longer needs and still holds."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import pyarrow as pa


def hand_back_memory() -> None:
    """Give the system what was freed.

    Allocators keep it for what comes next: some 80 MiB after two million records were read. Where
    the C library cannot do so, Arrow's part alone is given back.
    """
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
