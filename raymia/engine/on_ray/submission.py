"""Running an audit as a job of a cluster, and following it."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raymia.engine.on_ray.package import AUDIT_FILE, Package
from raymia.engine.on_ray.ray_private import PACKAGING_LOGGERS
from raymia.engine.on_ray.reachable import SECONDS, TOKEN_HELP
from raymia.util.credentials import say
from raymia.util.errors import InputError, RaymiaError

ID_CHARACTERS = 12
ADDRESS_VARIABLES = "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"
"""Ray's client would go where these say, whatever address it is given."""
RECONNECTS = 30
"""Losses of the connection, one after another without a new line, before a job is left alone."""
RECONNECT_SECONDS = 2.0


class Jobs:
    """The jobs of one cluster.

    Parameters
    ----------
    address : of the cluster's dashboard, as ``http://127.0.0.1:8265``.

    Raises
    ------
    InputError
        Where nobody answers there, or the token is not taken; never with the token.
    """

    def __init__(self, address: str) -> None:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        self.address = address
        for name in PACKAGING_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        _check_port(address)
        try:
            with _hidden(ADDRESS_VARIABLES):
                self._client: Any = JobSubmissionClient(address)
        except AuthenticationError:
            raise InputError(
                f"--address: the cluster at {address} asks for a token, and was shown none or "
                f"another than its own; {TOKEN_HELP}"
            ) from None
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"--address: no Ray dashboard at {address}: {error}") from None
        taken = self._client.get_address()
        if _place(taken) != _place(address):
            raise RaymiaError(f"--address: Ray went to {taken} in place of {address}")

    def submit(self, package: Package) -> tuple[str, bool]:
        """Start the job of an audit, unless it runs.

        The id is a function of the audit: a job that runs is found again, and after one that ended
        comes the next attempt, which goes on from the store.

        Returns
        -------
        id : ``raymia-<hash of the audit>-<attempt>``.
        is_new : whether it was started now.
        """
        stem = f"raymia-{package.digest[:ID_CHARACTERS]}-"
        attempts = {
            int(job.submission_id.removeprefix(stem)): job.status
            for job in self._client.list_jobs()
            if (job.submission_id or "").startswith(stem)
        }
        last = max(attempts, default=0)
        if last and not attempts[last].is_terminal():
            return f"{stem}{last}", False
        name = f"{stem}{last + 1}"
        with tempfile.TemporaryDirectory(prefix="raymia-job-") as folder:
            file = Path(folder) / "files.zip"
            package.write(file)
            try:
                self._client.submit_job(
                    entrypoint=command_of(package),
                    submission_id=name,
                    runtime_env={"working_dir": str(file)},
                    metadata={"raymia_audit": package.digest},
                )
            except RuntimeError as error:
                if "already exists" not in str(error):  # by another who submitted the same
                    raise RaymiaError(f"the job could not be submitted: {error}") from None
                return name, False
        return name, True

    def follow(self, name: str) -> int:
        """Print a job's log until it ends, over lost connections too, and return its exit code."""
        from aiohttp import ClientError

        printed = losses = 0
        while True:
            progress = [printed]
            try:
                asyncio.run(self._tail(name, skip=printed, count=progress))
                info = self._client.get_job_info(name)
                if info.status.is_terminal():
                    break
            except (OSError, RuntimeError, ClientError) as error:
                losses = 1 if progress[0] > printed else losses + 1
                if losses == RECONNECTS:
                    raise RaymiaError(
                        f"lost the connection to {self.address} ({type(error).__name__}); the job "
                        f"{name} may go on: submit the same audit again to follow it"
                    ) from None
            printed = progress[0]
            time.sleep(RECONNECT_SECONDS)
        if info.status == "SUCCEEDED":
            return 0
        code = info.driver_exit_code
        if not code:
            say(f"the job {name} ended as {info.status}: {info.message}", sys.stderr)
        return code or 1

    def stopping(self, name: str) -> str:
        """The command that stops a job. Ray's command too goes where variables say that are set."""
        unset = [part for one in ADDRESS_VARIABLES if one in os.environ for part in ("-u", one)]
        command = ["ray", "job", "stop", name, "--address", self.address]
        return shlex.join(["env", *unset, *command] if unset else command)

    async def _tail(self, name: str, skip: int, count: list[int]) -> None:
        seen = 0
        async for chunk in self._client.tail_job_logs(name):
            new = chunk[max(0, skip - seen) :]
            seen += len(chunk)
            if new:
                sys.stdout.write(new)
                sys.stdout.flush()
                count[0] = seen


def command_of(package: Package) -> str:
    """What a job runs in its working directory."""
    named = [part for plugin in package.plugins for part in ("--plugin", plugin)]
    return shlex.join(["python", "-m", "raymia", "audit", AUDIT_FILE, *named])


@contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Leave variables out of the environment for the length of the block."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _place(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc


def _check_port(address: str) -> None:
    """Ray's client waits for ever where a firewall swallows what is sent."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise InputError(
            f"--address: {address} is not the address of a dashboard; give one such as "
            "http://127.0.0.1:8265"
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--address: nobody answers at {address} ({error}); is the cluster up, and does "
            "`ray dashboard cluster.yaml` forward its port?"
        ) from None
