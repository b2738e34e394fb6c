"""Reading what a server sends: no more of it, and no longer, than an answer can take."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from threading import Thread
from typing import TypeVar

import requests
import urllib3

MAX_BYTES = 2**27
"""Of an answer, unpacked: ten times what the longest contexts of today make."""
_AT_ONCE = 2**16
_GZIP_OR_ZLIB = 47
"""What tells zlib to find out by the header."""

THREADS = "waits for an endpoint"

Found = TypeVar("Found")


class TooLongError(requests.RequestException):
    """An answer that does not end."""


def within(seconds: float, call: Callable[[], Found], end: Callable[[], None]) -> Found:
    """What a call returns, if it does so in time; else ``end`` makes it fail where it waits.

    Raises
    ------
    requests.Timeout
        If it does not. A server that sends a byte now and then keeps every timeout between two.
    """
    found: Future[Found] = Future()

    def run() -> None:
        try:
            found.set_result(call())
        except BaseException as error:
            found.set_exception(error)

    Thread(target=run, name=THREADS, daemon=True).start()
    try:
        return found.result(seconds)
    except TimeoutError:
        end()
        raise requests.Timeout(f"not the whole answer in {seconds:g} s") from None


def body_of(response: requests.Response) -> bytes:
    """The content of a response that was asked for as a stream, unpacked.

    Raises
    ------
    TooLongError
        If there is more than an answer can have, packed or unpacked.
    """
    content = _read(response)
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing in ("gzip", "deflate"):
        unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            content = unpacking.decompress(content, MAX_BYTES + 1)
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(str(error)) from None
    elif packing not in ("identity", ""):
        raise requests.exceptions.ContentDecodingError(f"packed as {packing}, and none was asked")
    if len(content) > MAX_BYTES:
        raise _too_long("unpacked")
    return content


def _read(response: requests.Response) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in response.raw.stream(_AT_ONCE, decode_content=False):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BYTES:
                response.close()
                raise _too_long("sent")
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(str(error)) from None
    return b"".join(pieces)


def _too_long(how: str) -> TooLongError:
    return TooLongError(f"more than {MAX_BYTES:,} bytes were {how}")
