"""Connecting to Ray, and sharing its resources among pools."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raymia.engine.on_ray.autoscaler import GROUP_LABEL, present, present_and_free, startable
from raymia.engine.on_ray.capacity import Demand, Machine
from raymia.engine.on_ray.failures import own_error
from raymia.engine.on_ray.ray_private import on_loopback
from raymia.engine.on_ray.reachable import check_answers
from raymia.engine.on_ray.watchdog import followed
from raymia.engine.stage import MAX_DEATHS
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.storage.files import Folder
from raymia.util.caller import caller_state
from raymia.util.errors import InputError, RaymiaError
from raymia.util.threads import BRIEF_SPINS

STARTS = 2
"""Tries to start Ray here."""
LOCAL = "local"
EXIT_TERMINATED = 128 + signal.SIGTERM

LOCAL_ENVIRONMENT = {
    # Ray logs an error for each actor of a data set that has arguments at all.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
    **BRIEF_SPINS,
    # An actor asks its models in a thread, whose memory glibc gives back to the system and takes
    # again with every batch.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    # Ray's own is 15: anything else on the machine, the driver too, would go before the models.
    "RAY_worker_niceness": "0",
}
"""Set for a Ray that is started here, where the user has not set them."""

OOM_RETRIES = "RAY_task_oom_retries"
"""Ray runs a task again for ever that it kills for lack of memory, however few retries it is given,
unless this says otherwise. Whoever starts tasks reads it, wherever they run."""


@dataclass(frozen=True)
class Cluster:
    """What there is to share.

    Attributes
    ----------
    is_local : whether Ray was started here, on this machine alone.
    startable : kinds of machines that an autoscaler may start; None where it does not say which.
    """

    is_local: bool
    startable: tuple[Machine, ...] | None = ()

    @property
    def machines(self) -> list[Machine]:
        """The machines that are there, and those that may be started."""
        names = {kind.name for kind in self.startable or ()}
        running = [m for m in present() if m.labels.get(GROUP_LABEL) not in names]
        return [*(self.startable or ()), *running]

    @property
    def cpus(self) -> float:
        """CPUs of the machines that are there; where none has any, of the largest that may be
        started."""
        there = sum(machine.resources.get("CPU", 0.0) for machine in present())
        return there or max((m.resources.get("CPU", 0.0) for m in self.startable or ()), default=0)

    @property
    def gpus(self) -> float:
        return sum(m.count * m.resources.get("GPU", 0.0) for m in self.machines)

    def cpus_for(self, pool: PoolSpec) -> float:
        """CPUs of the machines that a pool's actors may run on."""
        return sum(m.count * m.resources.get("CPU", 0.0) for m in self._machines_for(pool))

    def is_unknown_to(self, pool: PoolSpec) -> bool:
        """Whether no machine with CPUs is there for a pool, and the autoscaler does not say what it
        may start."""
        return self.startable is None and not self.cpus_for(pool)

    def cpus_of_a_machine(self, pool: PoolSpec) -> float:
        """CPUs that a pool's task can have on one machine: the most that are free now on any, or
        that one has which may still be started; 1 where no machine is known yet.

        A task that takes them all has that machine to itself, and leaves smaller ones, such as a
        head, unused. One that asked for what something holds all along would wait for ever.
        """
        running = present_and_free()
        groups = Counter(machine.labels.get(GROUP_LABEL) for machine in running)
        more = [kind for kind in self.startable or () if groups[kind.name] < kind.count]
        each = [m.resources.get("CPU", 0.0) for m in _fitting([*more, *running], pool)]
        return float(max([1, *map(math.floor, each)]))

    def _machines_for(self, pool: PoolSpec) -> list[Machine]:
        return _fitting(self.machines, pool)


def _fitting(machines: Sequence[Machine], pool: PoolSpec) -> list[Machine]:
    """Those that a pool's actors may run on, however many CPUs they take."""
    place = Demand.of("", 1, 1, _placement(pool))
    return [machine for machine in machines if machine.fits(place)]


def check_store_is_shared(url: str, where: str = "store") -> None:
    """Refuse a store that some machine of the cluster does not see, or another folder that all of
    them write to, which stands under a key.

    Answers committed on a machine's own disk would be lost to the driver. Machines that are started
    later are not checked, such as those that a pool grows by; what they lose is found missing at
    the end.

    Raises
    ------
    InputError
        Naming the machines, and what each that could not look said.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    folder, token = Folder(url), f"seen-by-all/{uuid.uuid4().hex}"
    folder.write(token, b"")

    def sees() -> bool:
        return Folder(url).exists(token)

    answers = [
        ray.remote(num_cpus=0)(sees)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in nodes
    ]
    said = [_unless_lost(answer) for answer in answers]
    folder.remove(token)
    hosts = [str(node["NodeManagerHostname"]) for node in nodes]
    blind = [host for host, seen in zip(hosts, said, strict=True) if seen is False]
    reasons: dict[str, list[str]] = {}
    for host, seen in zip(hosts, said, strict=True):
        if isinstance(seen, RaymiaError):
            reasons.setdefault(str(seen), []).append(host)
    problems = [
        f"{where}: {url} cannot be read on {', '.join(those)}: {reason}"
        for reason, those in reasons.items()
    ]
    if blind:
        problems.append(
            f"{where}: {url} is not the same folder on {', '.join(blind)}; on a cluster give a "
            "shared folder or object storage (s3://...)"
        )
    if problems:
        raise InputError(problems)


def _unless_lost(answer: Any) -> bool | RaymiaError:
    """What a machine says, or why it cannot say it; true of one that is lost meanwhile, which
    answers nothing more."""
    try:
        return bool(ray.get(answer))
    except (
        ray.exceptions.NodeDiedError,
        ray.exceptions.TaskUnschedulableError,
        ray.exceptions.WorkerCrashedError,
    ):
        return True
    except ray.exceptions.RayError as error:
        return own_error(error)


def is_given() -> bool:
    """Whether a running cluster is named, as it is in a submitted job."""
    return os.environ.get("RAY_ADDRESS", LOCAL) != LOCAL


@contextmanager
def connected(resources: ResourcesSpec) -> Iterator[Cluster]:
    """Join the cluster named by RAY_ADDRESS (a submitted job has it set), or start Ray here.

    A Ray that was started here is stopped at the end; one that was there is left running. What Ray
    changes in this process is undone.
    """
    with caller_state(), _connected(resources) as cluster:
        yield cluster


@contextmanager
def _connected(resources: ResourcesSpec) -> Iterator[Cluster]:
    address = os.environ.get("RAY_ADDRESS", LOCAL)
    is_local, terminated = address == LOCAL, threading.Event()
    with ExitStack() as at_the_end:
        if not ray.is_initialized():
            mark = at_the_end.enter_context(followed()) if is_local else {}
            at_the_end.callback(ray.shutdown)
            _begin(resources, address, mark)
            _stop_on_sigterm(terminated)
        try:
            yield Cluster(is_local, () if is_local else startable())
        except SystemExit:
            if terminated.is_set():  # ray.get makes 1 of whatever the program would exit with
                raise SystemExit(EXIT_TERMINATED) from None
            raise


def _begin(resources: ResourcesSpec, address: str, mark: Mapping[str, str]) -> None:
    """Start Ray here, or join it.

    Parameters
    ----------
    mark : environment variables for Ray's processes alone.
    """
    os.environ.setdefault(OOM_RETRIES, str(MAX_DEATHS))
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        options |= {"address": LOCAL, "num_cpus": resources.cpus, "include_dashboard": False}
    else:
        check_answers(address)
    os.environ.update(mark)
    try:
        with on_loopback() if address == LOCAL else nullcontext():
            _init(options, tries=STARTS if address == LOCAL else 1)
    except Exception as error:  # a bare Exception where it is too slow to start
        place = "started here" if address == LOCAL else f"joined at {address}"
        raise RaymiaError(
            f"Ray could not be {place}: {str(error).strip() or type(error).__name__}; what was "
            "answered is stored, run it again once the machine has memory and time to spare"
        ) from error
    finally:
        for name in mark:
            del os.environ[name]


def _init(options: Mapping[str, Any], tries: int) -> None:
    """Start or join Ray. Ray gives up a start after 30 seconds, which a busy machine may take."""
    for left in reversed(range(tries)):
        try:
            ray.init(**options)
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


def _stop_on_sigterm(terminated: threading.Event) -> None:
    """Let SIGTERM, which schedulers send, end the program as an exception would: Ray's own handler
    aborts it with a stack dump."""

    def stop(*_: object) -> None:
        terminated.set()
        sys.exit(EXIT_TERMINATED)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def beside_the_driver() -> dict[str, Any]:
    """Ray's options for an actor that takes no CPU and lasts as long as the run: it lies on the
    driver's machine, which is lost with the run alone."""
    node = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }


def pool_options(pool: PoolSpec, actors_in_all: int, cluster: Cluster) -> dict[str, Any]:
    """Ray's resource options for one actor of a pool.

    Actors on GPUs take no CPU. Others share what is left beside one CPU for Ray's own tasks: an
    actor that held the last CPU would starve the tasks that feed it. Where no CPU is known yet,
    each asks for one: those that asked for none would all lie on the head.
    """
    cpus = pool.cpus
    if cpus is None and not pool.gpus and cluster.is_unknown_to(pool):
        cpus = 1.0
    elif cpus is None:
        spare = 0.0 if pool.gpus else max(0.0, cluster.cpus_for(pool) - 1)
        cpus = min(1.0, int(100 * spare / max(1, actors_in_all)) / 100)
    return {"num_cpus": cpus, **_placement(pool)}


def task_options(pool: PoolSpec, cluster: Cluster) -> dict[str, Any]:
    """Ray's resource options for a task on a pool's machines that runs alone, on a CPU at least."""
    options = pool_options(pool, 1, cluster)
    if pool.cpus is None and not pool.gpus:
        options["num_cpus"] = 1
    return options


def _placement(pool: PoolSpec) -> dict[str, Any]:
    options: dict[str, Any] = {"num_gpus": pool.gpus}
    if pool.accelerator_type is not None:
        options["accelerator_type"] = pool.accelerator_type
    if pool.resources:
        options["resources"] = dict(pool.resources)
    if pool.labels:
        options["label_selector"] = dict(pool.labels)
    return options


def hide_gpus() -> None:
    """Let this process use no GPU, before it looks for one: Ray leaves all of a machine's to who
    asked for none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def threads_per_actor(actors_in_all: int, cluster: Cluster) -> int | None:
    """Torch threads for CPU actors when all run on this machine; None leaves Ray's choice."""
    if not cluster.is_local:
        return None
    return max(1, (os.cpu_count() or 1) // max(1, actors_in_all))
