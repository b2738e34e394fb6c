"""An endpoint cannot hold a run up, fill its memory, or speak to the terminal."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from raymia.models.endpoints import answers
from raymia.models.endpoints import client as endpoint_client
from raymia.models.endpoints.client import EndpointClient
from raymia.util.errors import RaymiaError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def server(pieces):
    """Serve what a function yields, to whoever asks, until nobody listens; yields the URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, suppress(OSError):
            connection.recv(2**16)
            for piece in pieces():
                connection.sendall(piece)

    def accept():
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        listening.close()


def asked(pieces, timeout=5.0, retries=0):
    with server(pieces) as url:
        client = EndpointClient(
            url, requests_per_minute=None, timeout_seconds=timeout, retries=retries
        )
        return client.get("/models")


def test_who_no_longer_asks_waits_for_no_answer():
    failed = []
    with server(lambda: drip(b"")) as url:
        client = EndpointClient(url, requests_per_minute=None, timeout_seconds=600, retries=9)

        def ask():
            try:
                client.post("/completions", {})
            except RaymiaError as error:
                failed.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert all(thread.is_alive() for thread in threads)
        client.end()
        for thread in threads:
            thread.join(10)
    assert failed == [f"{url}/completions: it is no longer asked"] * 3


def whole(body, more=b""):
    return [HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body]


def drip(before):
    yield before
    while True:
        time.sleep(0.02)
        yield b" "


DRIPS = {
    "status": b"HTTP/1.1",
    "headers": HEAD + b"X-Long: ",
    "body": HEAD + b"Content-Length: 100000\r\n\r\n",
    "body without an end": HEAD + b"\r\n",
}


@pytest.mark.parametrize("place", DRIPS)
def test_a_byte_now_and_then_is_no_answer(place, monkeypatch):
    monkeypatch.setattr(endpoint_client, "FIRST_DELAY", 0.01)
    started = time.monotonic()
    with pytest.raises(RaymiaError, match=r"no answer in 2 tries \(last: Timeout\)"):
        asked(lambda: drip(DRIPS[place]), timeout=0.2, retries=1)
    assert time.monotonic() - started < 3
    left = [thread for thread in threading.enumerate() if thread.name == answers.THREADS]
    for thread in left:
        thread.join(2)
    assert not [thread for thread in left if thread.is_alive()]


def endless(before, piece):
    yield before
    while True:
        yield piece


BIG = {
    "announced": lambda: endless(HEAD + b"Content-Length: 629145600\r\n\r\n", b"x" * 2**16),
    "without an end": lambda: endless(HEAD + b"\r\n", b"x" * 2**16),
    "in chunks": lambda: endless(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 2**16 + b"\r\n"
    ),
    "packed": lambda: whole(gzip.compress(bytes(2**24)), b"Content-Encoding: gzip\r\n"),
}


@pytest.mark.parametrize("how", BIG)
def test_an_answer_without_an_end_is_refused(how, monkeypatch):
    monkeypatch.setattr(answers, "MAX_BYTES", 2**20)
    with pytest.raises(RaymiaError, match="more than 1,048,576 bytes were"):
        asked(BIG[how])


@pytest.mark.parametrize("packing", [b"br", b"gzip, gzip"])
def test_an_answer_that_is_packed_otherwise_is_none(packing):
    body = gzip.compress(gzip.compress(b"{}"))
    with pytest.raises(RaymiaError, match="ContentDecodingError"):
        asked(lambda: whole(body, b"Content-Encoding: " + packing + b"\r\n"))


def test_a_packed_answer_is_unpacked():
    body = gzip.compress(b'{"data": []}')
    assert asked(lambda: whole(body, b"Content-Encoding: gzip\r\n")) == {"data": []}


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a": ' + b"9" * 5_000 + b"}", b"\xff\xfe\x00", b"", b"\x1b[2J\x07"]
)
def test_an_answer_that_is_no_json_is_said_to_be_none(body):
    with pytest.raises(RaymiaError, match="expected JSON") as caught:
        asked(lambda: whole(body))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
