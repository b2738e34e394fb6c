"""A real cluster of one machine, with token authentication, for tests that submit to it."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray_fixtures import child_environment, ended, free_port, start, wait_until

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A head with four CPUs that asks for a token.

    Attributes
    ----------
    address : of its dashboard.
    joining : where drivers join.
    environment : of a process that may use it, its token among it.
    """

    address: str
    joining: str
    environment: dict[str, str]

    @property
    def token(self) -> str:
        return self.environment["RAY_AUTH_TOKEN"]

    def without_token(self, **more: str) -> dict[str, str]:
        """The environment of a process that has no token, in a home that has none."""
        home = {"HOME": self.environment["RAY_TMPDIR"]}
        kept = {k: v for k, v in self.environment.items() if not k.startswith("RAY_AUTH")}
        return {**kept, **home, **more}


@contextmanager
def running_head(output: Path) -> Iterator[Head]:
    """Start a head with a dashboard, and end it and all that it started."""
    dashboard, port = free_port(), free_port()
    environment, mark = child_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=uuid.uuid4().hex)
    command = [
        RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=4",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={free_port()}",  # its default may be another Ray's
        f"--temp-dir={environment['RAY_TMPDIR']}", "--min-worker-port=0", "--max-worker-port=0",
        f"--object-store-memory={200 * 2**20}", "--disable-usage-stats",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    with ended(mark):
        process = start(command, environment, output)

        def is_up() -> bool:
            assert process.poll() is None, output.read_text()
            with socket.socket() as trial:
                return trial.connect_ex(("127.0.0.1", dashboard)) == 0

        def ready() -> bool:
            """The dashboard answers before there is an agent that could start a job."""
            assert process.poll() is None, output.read_text()
            trial = subprocess.run(
                [RAY, "job", "submit", "--address", address, "--", "true"],
                env=environment, capture_output=True, check=False,
            )  # fmt: skip
            return trial.returncode == 0

        wait_until(is_up, 120, "the dashboard answers")  # a trial takes seconds to start
        wait_until(ready, 120, "the cluster takes jobs")
        yield Head(address, f"127.0.0.1:{port}", environment)
