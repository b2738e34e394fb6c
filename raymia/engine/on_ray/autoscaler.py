"""What a cluster's autoscaler may start, and asking it for machines before they are missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from rich.console import Console

from raymia.engine.on_ray.capacity import Demand, Machine, one_each, shortages
from raymia.engine.on_ray.ray_private import (
    autoscaler_config,
    free_cpus,
    is_refused,
    is_second_autoscaler,
)
from raymia.engine.on_ray.stopping import pause
from raymia.util.errors import InputError, RaymiaError

GROUP_LABEL = "ray.io/node-group"
ASK_AGAIN_SECONDS = 5.0
"""Ray Data overwrites what was asked of the autoscaler with what it asks itself."""
POLL_SECONDS = 1.0
SAY_SECONDS = 15.0
REFUSALS = 3
"""How many times in a row an autoscaler has to say that it cannot."""
HARDLY_ANYTHING = {"CPU": 0.001}
"""What is asked for a place that takes nothing, where labels say on which machines it is."""


def present() -> list[Machine]:
    """The machines of the cluster that are alive."""
    return [_machine(node) for node in ray.nodes() if node["Alive"]]


def present_and_free() -> list[Machine]:
    """The same, each with the CPUs alone that nothing holds at this moment."""
    free = free_cpus()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [
        replace(machine, resources={**machine.resources, "CPU": free[node["NodeID"]]})
        if node["NodeID"] in free
        else machine
        for node, machine in zip(nodes, map(_machine, nodes), strict=True)
    ]


def _machine(node: Mapping[str, Any]) -> Machine:
    return Machine(str(node["NodeManagerHostname"]), node["Resources"], node.get("Labels") or {})


def startable() -> tuple[Machine, ...] | None:
    """The kinds of machines that the autoscaler may have at most, those that run included.

    Returns
    -------
    Empty where no autoscaler is; None where there is one that does not say.
    """
    if is_second_autoscaler() is not False:
        return None
    config = autoscaler_config()
    return None if config is None else _kinds(config)


def _kinds(config: dict[str, Any]) -> tuple[Machine, ...] | None:
    every = config.get("max_workers")
    kinds = []
    for name, kind in (config.get("available_node_types") or {}).items():
        resources, most = kind.get("resources"), kind.get("max_workers", every) or 0
        if every is not None:
            most = min(most, every)
        if not resources:  # a provider that finds out only when the machine runs
            return None
        if most:
            kinds.append(Machine(str(name), resources, kind.get("labels") or {}, most))
    return tuple(kinds)


class _Request:
    """What all threads ask for together: the autoscaler keeps one request alone.

    Ray's second autoscaler starts either all of a request or nothing. While it refuses one, half as
    many places are asked for, and in the end those alone that pools cannot do without.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[Sequence[Demand]] = []
        self._halved = 0

    def add(self, demands: Sequence[Demand]) -> None:
        with self._lock:
            self._parts.append(demands)
            self._halved = 0

    def remove(self, demands: Sequence[Demand]) -> None:
        with self._lock:
            self._parts.remove(demands)
            self._halved = 0

    def send(self) -> None:
        """Ask for all of it, or for less than was refused."""
        from ray.autoscaler.sdk import request_resources

        with self._lock:
            if not self._is_least() and is_refused(self._bundles()):
                self._halved += 1
            request_resources(
                bundles=self._bundles(),
                bundle_label_selectors=[dict(place.labels) for place in self._places()],
            )

    def is_hopeless(self) -> bool:
        """Whether the least is refused too."""
        with self._lock:
            return self._is_least() and is_refused(self._bundles())

    def _demands(self) -> list[Demand]:
        return [d for part in self._parts for d in part if d.resources or d.labels]

    def _is_least(self) -> bool:
        return all(demand.most >> self._halved <= demand.actors for demand in self._demands())

    def _places(self) -> list[Demand]:
        return [
            demand
            for demand in self._demands()
            for _ in range(max(demand.actors, demand.most >> self._halved))
        ]

    def _bundles(self) -> list[dict[str, float]]:
        return [dict(place.resources) or HARDLY_ANYTHING for place in self._places()]


_request = _Request()


@contextmanager
def requested(demands: Sequence[Demand]) -> Iterator[None]:
    """Ask the autoscaler for the places of all actors there may be, or of as many as it can start,
    by GPU types and labels, so that the right machines come up; and no longer when the block ends,
    however it ends. What other threads ask for is asked for with it.
    """
    stop = threading.Event()
    asking = threading.Thread(target=_keep_asking, args=(stop,), daemon=True)
    _request.add(demands)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join(timeout=10)
        _request.remove(demands)
        with suppress(Exception):  # the cluster may be what ended the block
            _request.send()


def wait_for(demands: Sequence[Demand], console: Console, seconds: float) -> None:
    """Wait until all actors have their place, and say now and then for what.

    When the time is up, one actor's place for each demand is enough to go on.

    Raises
    ------
    InputError
        Where the autoscaler says that it cannot start the least that will do.
    RaymiaError
        Where a demand has no place at all when the time is up.
    """
    started = time.monotonic()
    said, refusals = 0.0, 0
    while lacking := shortages(demands, present()):
        waited = time.monotonic() - started
        refusals = refusals + 1 if _request.is_hopeless() else 0
        if refusals >= REFUSALS:
            raise InputError(
                [f"resources: {line}, and the autoscaler can start none" for line in lacking]
            )
        if waited > seconds:
            break
        if waited - said >= SAY_SECONDS:
            said = waited
            say(console, f"waiting for machines ({waited:.0f} s): {lacking[0]}")
        pause(POLL_SECONDS)
    none_at_all = shortages(one_each(demands), present())
    if none_at_all:
        raise RaymiaError(
            f"no machine came up in {seconds / 60:g} minutes (resources.wait_minutes): "
            + "; ".join(none_at_all)
        )
    if lacking:
        say(console, f"going on with fewer machines: {lacking[0]}")


def say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _keep_asking(stop: threading.Event) -> None:
    while True:
        with suppress(Exception):  # the next time is soon
            _request.send()
        if stop.wait(ASK_AGAIN_SECONDS):
            return


def other_kinds(demand: Demand, kinds: Sequence[Machine]) -> list[str]:
    """Kinds that only labels keep a demand from. Ray's first autoscaler, which alone says which
    kinds there are, does not know labels, and may start them for it."""
    anywhere = replace(demand, labels={})
    return [kind.name for kind in kinds if kind.fits(anywhere) and not kind.fits(demand)]
