"""A cluster of three raylets on this machine, of which some are lost, and a flaky S3 server."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MARK = "RAYMIA_CHAOS_MARK"
S3_FAILURES = 0.1
"""Share of requests that the S3 server answers with an error."""
WORKERS = 2
FAILED_REQUESTS: list[str] = []


class Machines:
    """A head that drives, and two machines with a CPU each."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.mend()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def raylets(self) -> list[int]:
        """Processes of the machines that are not the head."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_id))
        return [node.all_processes["raylet"][0].process.pid for node in nodes]

    def lose_one(self, draws: random.Random) -> None:
        """Kill a machine that is not the head; another comes."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_id))
        self._cluster.remove_node(draws.choice(nodes), allow_graceful=False)
        self.mend()

    def lose_head(self) -> None:
        """Kill the head's control store; what is left is ended by :meth:`mend`."""
        for process in self._cluster.head_node.all_processes["gcs_server"]:
            process.process.kill()

    def mend(self) -> None:
        """As many machines as there were, of a new cluster where the head is lost."""
        ran = self._cluster.head_node.all_processes
        if any(ran[kind][0].process.poll() is not None for kind in ("gcs_server", "raylet")):
            self.end()
            self._start()
            return
        for node in list(self._cluster.worker_nodes):
            if node.all_processes["raylet"][0].process.poll() is not None:
                self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < WORKERS:
            self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()

    def end(self) -> None:
        import ray

        ray.shutdown()
        with suppress(Exception):  # the head may be lost
            self._cluster.shutdown()


@contextmanager
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        yield made
    finally:
        made.end()


def actors() -> list[int]:
    """Processes of the campaign's cluster that are an actor of a pool."""
    return processes("ray::MapWorker")


def processes(name: str, besides: tuple[str, ...] = ()) -> list[int]:
    """Processes of the campaign's cluster whose command line begins with a name.

    Parameters
    ----------
    besides : beginnings of the command lines of those that are left out.
    """
    found, mark = [], f"{MARK}={os.environ[MARK]}".encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            is_one = line.startswith(name) and not line.startswith(besides)
            if is_one and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return sorted(found)


@contextmanager
def s3_server(draws: random.Random) -> Iterator[str]:
    """An S3 server on loopback that answers a share of its requests with an error."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    served = DomainDispatcherApplication(create_backend_app)

    def flaky(environ: Any, respond: Any) -> Any:
        if draws.random() < S3_FAILURES:
            FAILED_REQUESTS.append(environ["PATH_INFO"])
            respond("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"Slow down"]
        return served(environ, respond)

    server = make_server("127.0.0.1", 0, flaky, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
