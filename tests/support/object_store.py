"""An S3-compatible server on loopback, and a proxy before it that fails as networks do."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BUCKET = "audits"
KEY, SECRET = "AKIAEXAMPLEEXAMPLE00", "sEcReTsEcReTsEcReTsEcReTsEcReTsEcReT0000"
FAULTS = ("500", "503", "dropped", "truncated")


def credentials(endpoint: str) -> dict[str, str]:
    """Environment in which ``s3://`` is the server at an endpoint."""
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1",
    }  # fmt: skip


def client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )  # fmt: skip


@contextmanager
def object_store() -> Iterator[str]:
    """A server with an empty bucket; its endpoint."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


def put_folder(endpoint: str, folder: Path, prefix: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            name = f"{prefix}/{file.relative_to(folder)}"
            client(endpoint).upload_file(str(file), BUCKET, name)


@dataclass
class Weather:
    """What becomes of requests: a seeded share of them fails.

    Attributes
    ----------
    share : of requests that fail.
    seen, failed : how many there were, by method; and how many failed, by fault.
    asked : how often each path was asked for with GET.
    """

    share: float
    draws: random.Random
    seen: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> str | None:
        with self.lock:
            self.seen[method] += 1
            if method == "GET":
                self.asked[path] += 1
            if self.draws.random() >= self.share:
                return None
            fault = self.draws.choice(FAULTS)
            self.failed[fault] += 1
            return fault


@contextmanager
def bad_weather(endpoint: str, share: float, seed: int = 0) -> Iterator[tuple[str, Weather]]:
    """A proxy before a server that answers a share of requests with 500 or 503, drops them, or
    sends a part of what it should; a dropped PUT may have arrived, as in life."""
    weather, behind = Weather(share, random.Random(seed)), urlsplit(endpoint).netloc

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = weather.fault(self.command, urlsplit(self.path).path)
            if fault in ("500", "503"):
                self.send_response(int(fault))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(behind, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            if fault == "dropped":
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection",
                                        "server", "date"):  # fmt: skip
                    self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if fault == "truncated" and content:
                content, self.close_connection = content[: len(content) // 2], True
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", weather
    finally:
        server.shutdown()
        server.server_close()
