"""What a training will take: steps, memory, and about how long."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from raymia.prepare.private import Privacy
from raymia.spec import CostsSpec

PASSES = {True: 6, False: 4}
"""Operations for each weight and token: two forward, two back through the activations, and two for
the gradients of weights, where all are trained."""
ADAM = 3
"""Numbers kept for each that is trained: its gradient and two moments."""
MEASURED = 1024
"""Rows and columns of the matrices that are multiplied to see how fast this machine is."""


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take on this machine.

    Attributes
    ----------
    steps, steps_per_epoch : of the optimizer.
    memory : bytes, about; None where the weights cannot be counted.
    seconds : at least, as matrices are multiplied here; None where the weights cannot be counted.
    shadow_seconds : of all shadows together; None without.
    cost : at least, of this machine for as long; None without its price.
    """

    steps: int
    steps_per_epoch: int
    memory: int | None
    seconds: float | None
    shadow_seconds: float | None = None
    cost: float | None = None

    @property
    def hours(self) -> float | None:
        """Of the machine, for the target and its shadows one after another."""
        return None if self.seconds is None else (self.seconds + (self.shadow_seconds or 0)) / 3600


@dataclass(frozen=True)
class TrainingPlan:
    """What would be trained on what, and what it will take, for whoever shows it.

    Attributes
    ----------
    name : of the training.
    rows : what is trained on what, each by what it is called.
    privacy : of a private training.
    more : what is said after what it takes, as rows are.
    costs : prices, where the training file has some.
    notes : sentences on what was set aside, and on what was assumed.
    """

    name: str
    output: str
    rows: Mapping[str, str]
    privacy: Privacy | None
    expected: TrainingEstimate
    costs: CostsSpec | None
    more: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def priced(found: TrainingEstimate, costs: CostsSpec | None) -> TrainingEstimate:
    """With the cost, where this machine has a price."""
    price = None if costs is None else costs.per_hour.get(_machine(costs))
    hours = found.hours
    return found if price is None or hours is None else replace(found, cost=price * hours)


def _machine(costs: CostsSpec) -> str:
    """What the prices call this machine: the GPU type that its GPU's name has, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "CPU"
    return priced_as(torch.cuda.get_device_name(), costs.per_hour)


def priced_as(name: str, kinds: Iterable[str]) -> str:
    """The GPU type, of those with a price, that a GPU's name has word for word; of several the one
    that says most, and of none the name.

    >>> priced_as("NVIDIA A100-SXM4-80GB", ["A10", "A100", "A100-80G"])
    'A100-80G'
    >>> priced_as("NVIDIA L40S", ["L4", "L40"])
    'NVIDIA L40S'
    """
    words = _words(name)
    found = [kind for kind in kinds if kind != "CPU" and _words(kind) <= words]
    return max(found, key=lambda kind: len(_words(kind)), default=name)


def _words(name: str) -> set[str]:
    """Those of a GPU's name; Ray says 80G where CUDA says 80GB."""
    return {re.sub(r"(?<=\d)gb$", "g", word) for word in re.findall(r"[a-z0-9]+", name.lower())}


def speed() -> float:
    """Operations in a second, of a product of matrices on this machine."""
    import torch

    matrix = torch.ones((MEASURED, MEASURED))
    if torch.cuda.is_available():
        matrix = matrix.to("cuda", torch.bfloat16)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - started)
    return float(2 * MEASURED**3 / best)
