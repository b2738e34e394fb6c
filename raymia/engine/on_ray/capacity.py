"""Whether a cluster has, or can get, the machines that pools ask for.

A pool that no machine can take would wait in silence. What a cluster can hold is compared with what
a plan asks for before anything is streamed: the machines that are there, and those that its
autoscaler may start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

TYPE_PREFIX = "accelerator_type:"
"""Ray counts a machine's GPU type as a resource of this name."""
_ANY_PART_OF = 0.001
_MAX_COMPARED = 8
_SLACK = 1e-6


@dataclass(frozen=True)
class Demand:
    """What a pool asks of a cluster.

    Attributes
    ----------
    name : of the pool or task, for messages.
    actors : how many must have their place.
    most : how many there may be; machines for that many are asked for.
    resources : of one actor, by Ray's names.
    labels : Ray's label selector.
    """

    name: str
    actors: int
    most: int
    resources: Mapping[str, float]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, name: str, actors: int, most: int, options: Mapping[str, Any]) -> Demand:
        """From Ray's options for one actor, as
        :func:`raymia.engine.on_ray.cluster.pool_options` makes them."""
        needs = {
            "CPU": options.get("num_cpus", 0.0),
            "GPU": options.get("num_gpus", 0.0),
            **options.get("resources", {}),
        }
        if "accelerator_type" in options:
            needs[TYPE_PREFIX + options["accelerator_type"]] = _ANY_PART_OF
        needs = {name: amount for name, amount in needs.items() if amount}
        return cls(name, actors, max(actors, most), needs, options.get("label_selector", {}))

    @property
    def each(self) -> str:
        """What one actor needs, for a person to read."""
        return in_words(self.resources, self.labels)


@dataclass(frozen=True)
class Machine:
    """A machine that is there, or a kind of machine that the autoscaler may start.

    Attributes
    ----------
    count : how many of the kind there can be.
    """

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    count: int = 1

    def fits(self, demand: Demand) -> int:
        """How many actors of a demand one such machine can hold."""
        if not all(matches(self.labels.get(k), wanted) for k, wanted in demand.labels.items()):
            return 0
        held: float = 10**9
        for resource, amount in demand.resources.items():
            there = self.resources.get(resource, 0.0)
            if resource == "GPU" and amount < 1:  # a share is of one GPU
                held = min(held, math.floor(there) * math.floor(1 / amount + _SLACK))
            else:
                held = min(held, math.floor(there / amount + _SLACK))
        return int(held)


def matches(value: str | None, wanted: str) -> bool:
    """Whether a label is what a selector wants: ``a``, ``!a``, ``in(a, b)`` or ``!in(a, b)``."""
    negated, plain = wanted.startswith("!"), wanted.removeprefix("!").strip()
    several = re.fullmatch(r"in\((.*)\)", plain)
    values = [part.strip() for part in several[1].split(",")] if several else [plain]
    return (value in values) != negated


def in_words(resources: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """Resources and labels, for a person to read."""
    types = [n.removeprefix(TYPE_PREFIX) for n in resources if n.startswith(TYPE_PREFIX)]
    parts = [f"{n:g} {name}" for name, n in resources.items() if not name.startswith(TYPE_PREFIX)]
    parts += [f"a GPU of type {kind}" for kind in types]
    parts += [f"the label {name}: {value}" for name, value in labels.items()]
    return ", ".join(parts) or "nothing"


def shortages(demands: Sequence[Demand], machines: Sequence[Machine]) -> list[str]:
    """Say what of demands that are made at the same time can never be met by these machines.

    Only what certainly fails is said: each actor alone, all actors of each demand, and every
    combination of demands, resource by resource, against the machines that any of them could be on.

    Returns
    -------
    One line per shortage, with the name of the demand; none where everything may fit.
    """
    found = []
    for demand in demands:
        room = sum(machine.count * machine.fits(demand) for machine in machines)
        if not room:
            found.append(f"{demand.name} needs {demand.each}, and {_lacking(demand, machines)}")
        elif room < demand.actors:
            found.append(
                f"{demand.name} needs {demand.actors} actors with {demand.each} each, and there is "
                f"room for {room}"
            )
    return found or list(_together(demands, machines))


def _lacking(demand: Demand, machines: Sequence[Machine]) -> str:
    """What it is that no machine has."""
    labelled = machines
    for name, wanted in demand.labels.items():
        labelled = [m for m in labelled if matches(m.labels.get(name), wanted)]
        if not labelled:
            values = sorted({m.labels[name] for m in machines if name in m.labels})
            return f"no machine has it (labels {name} here: {', '.join(values) or 'none'})"
    for resource, amount in demand.resources.items():
        most = max((m.resources.get(resource, 0.0) for m in labelled if m.count), default=0.0)
        if most >= amount - _SLACK:
            continue
        if resource.startswith(TYPE_PREFIX):
            kinds = {n for m in labelled for n in m.resources if n.startswith(TYPE_PREFIX)}
            names = ", ".join(sorted(n.removeprefix(TYPE_PREFIX) for n in kinds))
            return f"no machine has that type (types here: {names or 'none'})"
        return f"no machine has more than {most:g} {resource}"
    return "no machine has all of it"


def _together(demands: Sequence[Demand], machines: Sequence[Machine]) -> Iterable[str]:
    sizes = range(2, len(demands) + 1) if len(demands) <= _MAX_COMPARED else [len(demands)]
    for some in (group for size in sizes for group in combinations(demands, size)):
        usable = [m for m in machines if any(m.fits(demand) for demand in some)]
        for resource in sorted({name for demand in some for name in demand.resources}):
            wanted = sum(demand.actors * demand.resources.get(resource, 0.0) for demand in some)
            there = sum(m.count * m.resources.get(resource, 0.0) for m in usable)
            if wanted > there + _SLACK:
                yield (
                    f"{' and '.join(demand.name for demand in some)} run at the same time and need "
                    f"{wanted:g} {resource} together, and there are {there:g}"
                )
                return


def one_each(demands: Iterable[Demand]) -> list[Demand]:
    """The least with which all of them can work."""
    return [replace(demand, actors=1) for demand in demands]
