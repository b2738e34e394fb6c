"""A cluster of three raylets on this machine, of which some are lost, and a flaky S3 server."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forks.workers import place_of, start_forking, workers_forked

from raymia.engine.on_ray.cluster import LOCAL_ENVIRONMENT
from raymia.engine.on_ray.watchdog import MARK, followed, marked

WORKER = (
    "raymia.models.causal.family", "raymia.models.paraphrasers.mask_filler",
    "raymia.prepare.train_target", "raymia.scoring.reduction", "raymia.evidence.upkeep",
    "transformers.models.gpt2.modeling_gpt2", "transformers.models.t5.modeling_t5",
    "diffusers.models.unets.unet_2d", "pandas", "pyarrow.dataset",
)  # fmt: skip
"""What workers import, but for Ray, since there are several jobs."""
STARTS = 5
"""Tries to start a machine."""
MEMORY = 100 * 2**20
"""For objects, on each machine."""
S3_FAILURES = 0.1
"""Share of requests that the S3 server answers with an error."""
WORKERS = 2
FAILED_REQUESTS: list[str] = []


class Machines:
    """A head that drives, and two machines with a CPU each; workers are forks of one process.

    Parameters
    ----------
    folder : for Ray's files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        start_forking(place_of(folder), os.getpid(), WORKER)
        self._start()

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()
        plain = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        self._add_node(num_cpus=1, temp_dir=str(self._folder), **plain)
        self._say_that_no_autoscaler_is_here()
        self.mend()

    def _say_that_no_autoscaler_is_here(self) -> None:
        """Audits wait 15 seconds for what an autoscaler has to say; only its monitor ends that."""
        from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS

        kept = self._cluster.head_node.get_gcs_client()
        kept.internal_kv_put(DEBUG_AUTOSCALING_STATUS.encode(), b"{}", True, None)

    def _add_node(self, **options: Any) -> None:
        """Ray gives up a start after 30 seconds, which a busy machine may take."""
        for left in reversed(range(STARTS)):
            try:
                with workers_forked():
                    self._cluster.add_node(object_store_memory=MEMORY, **options)
                return
            except Exception:  # a bare Exception where it is too slow
                if not left:
                    raise

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
            process.process.wait()  # an audit that ends now is mended at once

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
            self._add_node(num_cpus=1)
        self._cluster.wait_for_nodes()

    def end(self) -> None:
        import ray

        ray.shutdown()
        with suppress(Exception):  # the head may be lost
            self._cluster.shutdown()


@contextmanager
def machines() -> Iterator[Machines]:
    """A cluster of its own, of which nothing is left when this process ends, however it does."""
    folder = Path(tempfile.mkdtemp(prefix="rf", dir="/tmp"))  # short: paths of sockets are
    with followed() as mark:
        os.environ.update({**LOCAL_ENVIRONMENT, **mark})
        made = Machines(folder)
        try:
            yield made
        finally:
            made.end()
            for left in marked(f"{MARK}={mark[MARK]}"):  # of a start that was given up
                with suppress(OSError):
                    os.kill(left, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def actors() -> list[int]:
    """Processes of the campaign's cluster that are an actor of a pool."""
    return processes("ray::MapWorker")


def processes(name: str, besides: tuple[str, ...] = ()) -> list[int]:
    """Processes of the campaign's cluster whose command line begins with a name.

    Parameters
    ----------
    besides : beginnings of the command lines of those that are left out.
    """
    found = []
    for process in marked(f"{MARK}={os.environ[MARK]}"):
        with suppress(OSError):
            line = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
            if line.startswith(name) and not line.startswith(besides):
                found.append(process)
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
