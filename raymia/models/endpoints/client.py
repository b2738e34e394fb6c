"""Talking to an HTTP endpoint: a rate limit, timeouts, retries, and a key that nothing prints."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import requests

from raymia.models.endpoints.answers import TooLongError, body_of, within
from raymia.models.endpoints.connections import EndedAtWill
from raymia.util.errors import RaymiaError
from raymia.util.strict_json import parse_json

KEY_VARIABLE = "RAYMIA_ENDPOINT_KEY"
RETRIED = {408, 429, 500, 502, 503, 504}
"""Statuses that another try may mend."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before the second try, and at most before any; each wait is twice the one before."""

AT_A_TARGET = (
    "What was answered is stored: see that the endpoint is up and run it again to go on; "
    "`retries`, `timeout_seconds` and `requests_per_minute` are keys of the target"
)
"""What to do where an endpoint gives no answers."""

SHOWN = 200
"""Characters of a server's own words that a message quotes."""


class RefusedError(RaymiaError):
    """The endpoint will not answer this request, and would not at another try."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.args = (message, status)  # what a copy is made from when it leaves a worker
        self.status = status


class _Bearer(requests.auth.AuthBase):
    """Sends the key, and keeps requests from looking for another one in ~/.netrc."""

    def __init__(self, key: str | None) -> None:
        self.key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


class _Pace:
    """Lets requests start no faster than so many a minute."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap = 0.0 if per_minute is None else 60 / per_minute
        self.next = 0.0
        self.lock = threading.Lock()

    def wait(self, ended: threading.Event) -> None:
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next)
            self.next = start + self.gap
        ended.wait(start - now)


class EndpointClient:
    """JSON over HTTP, from many threads. The key is read from the environment, and from nowhere
    else.

    Parameters
    ----------
    url : the base, to which paths are added.
    requests_per_minute : of this client, tries included; None sets no limit.
    timeout_seconds : for one answer, from the first byte that is sent to the last that comes.
    retries : further tries after a lost connection, a timeout, or a status of `RETRIED`.
    advice : what to do where no try is answered, and what is kept.
    """

    def __init__(
        self,
        url: str,
        *,
        requests_per_minute: float | None,
        timeout_seconds: float,
        retries: int,
        advice: str = AT_A_TARGET,
    ) -> None:
        self.url = url
        self.advice = advice
        self.timeout = timeout_seconds
        self.retries = retries
        self.key = os.environ.get(KEY_VARIABLE)
        self._pace = _Pace(requests_per_minute)
        self._local = threading.local()
        self._ended = threading.Event()
        self._open: list[EndedAtWill] = []
        self._threads: dict[int, ThreadPoolExecutor] = {}

    def threads(self, count: int) -> ThreadPoolExecutor:
        """So many threads that ask. They stay as long as the client does, since each has
        connections of its own, which are then used again and not opened anew."""
        if count not in self._threads:
            self._threads[count] = ThreadPoolExecutor(count, "asks")
        return self._threads[count]

    def end(self) -> None:
        """Let all that threads are asking fail at once, and all that they ask from now on."""
        self._ended.set()
        for connections in [*self._open]:  # a thread that fails takes its own out
            connections.end()

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """Return the answer's JSON.

        Raises
        ------
        RefusedError
            For a status that another try would not mend.
        RaymiaError
            When all tries failed, or the answer is not JSON.
        """
        failure, delay = "", FIRST_DELAY
        for number in range(self.retries + 1):
            self._pace.wait(self._ended)
            if self._ended.is_set():
                raise RaymiaError(f"{self.url}{path}: it is no longer asked")
            wait: float | None = None
            try:
                session, connections = self._session()
                ask = partial(self._ask, session, method, path, body)
                response, content = within(self.timeout, ask, connections.end)
            except TooLongError as error:
                raise RaymiaError(f"{self.url}{path}: {error}, which is no answer") from None
            except requests.RequestException as error:
                failure = type(error).__name__
                del self._local.session  # its thread may not have come to its end
                self._open.remove(connections)
            else:
                if response.status_code not in RETRIED:
                    return self._json(response, content, path)
                failure = f"status {response.status_code}"
                wait = _retry_after(response)
            if number < self.retries:
                jittered = delay * random.uniform(0.5, 1)
                self._ended.wait(min(jittered if wait is None else wait, LONGEST_DELAY))
                delay *= 2
        raise RaymiaError(
            f"{self.url}{path}: no answer in {self.retries + 1} tries (last: {failure}). "
            f"{self.advice}"
        )

    def _ask(
        self, session: requests.Session, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[requests.Response, bytes]:
        response = session.request(
            method, self.url + path, json=body, timeout=self.timeout, allow_redirects=False,
            stream=True, headers={"Accept-Encoding": "gzip, deflate"},
        )  # fmt: skip
        return response, body_of(response)

    def _session(self) -> tuple[requests.Session, EndedAtWill]:
        """A session, and what ends its connections."""
        if not hasattr(self._local, "session"):  # a Session is not made for many threads
            session, connections = requests.Session(), EndedAtWill()
            session.auth = _Bearer(self.key)
            for scheme in ("http://", "https://"):
                session.mount(scheme, connections)
            self._local.session = session, connections
            self._open.append(connections)
        found: tuple[requests.Session, EndedAtWill] = self._local.session
        return found

    def _json(self, response: requests.Response, content: bytes, path: str) -> Any:
        where, status = f"{self.url}{path}", response.status_code
        if status in (401, 403):  # its words may quote the key
            state = "is not accepted" if self.key else "is not set in the environment here"
            raise RefusedError(f"{where}: status {status}; {KEY_VARIABLE} {state}", status)
        if status != 200:
            raise RefusedError(f"{where}: status {status}: {self._words(content)}", status)
        try:
            return parse_json(content)
        except ValueError:
            kind = response.headers.get("Content-Type", "no content type")
            raise RaymiaError(
                f"{where}: expected JSON, got {kind}: {self._words(content)!r}; `endpoint` should "
                "be the address of an OpenAI-compatible API, which mostly ends in /v1"
            ) from None

    def _words(self, content: bytes) -> str:
        text = " ".join(content[: 20 * SHOWN].decode(errors="replace").split())
        return (text.replace(self.key, "***") if self.key else text)[:SHOWN]


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait; a date, which few send, counts as not said."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
