"""How long questions take: measured by runs, kept in the store, read by plans.

A rate is filed under what it depends on: the architecture (config files, precision), the questions
and their settings, and the kind of machine; not under the weights, so that what one checkpoint took
says what two hundred will. Texts of another length are answered in proportion to it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.checkpoint import architecture
from raymia.plan.stages import Preparation, Stage, TargetPlan
from raymia.spec import PoolSpec
from raymia.util.hashing import digest
from raymia.util.once import Once
from raymia.util.stated import COUNT, NUMBER
from raymia.util.strict_json import parse_json

MIN_ITEMS = 8
"""Questions or steps below which a rate takes the place of no other: the first are slower."""


@dataclass(frozen=True)
class Rate:
    """What was measured.

    Attributes
    ----------
    seconds : of one actor, per question or step.
    items : how many questions or steps that is the mean of.
    size : mean characters of the texts; 1 where their length does not matter.
    """

    seconds: float
    items: int
    size: float = 1.0

    def at(self, size: float) -> float:
        """Seconds per question about texts of another mean length."""
        return self.seconds * size / self.size


class Measured(Protocol):
    """What a stage did in a run."""

    done: int
    seconds: float


class Rates:
    """The rates in a store."""

    def __init__(self, store: EvidenceStore) -> None:
        self.folder = store.folder

    def get(self, key: str) -> Rate | None:
        """A rate that is kept; one that cannot be read is passed over, as it is only a hint."""
        name = f"rates/{key}.json"
        if not self.folder.exists(name):
            return None
        with suppress(ValueError):
            return _rate_of(parse_json(self.folder.read(name)))
        return None

    def keep(self, key: str, rate: Rate) -> None:
        """Keep a rate; one of few questions only where there is none."""
        if rate.seconds > 0 and (rate.items >= MIN_ITEMS or self.get(key) is None):
            content = {"seconds": rate.seconds, "items": rate.items, "size": rate.size}
            self.folder.write(f"rates/{key}.json", json.dumps(content).encode())

    def keep_run(
        self,
        inputs: Inputs,
        plans: Sequence[TargetPlan],
        work: Mapping[str, Measured],
        made_in: EvidenceStore,
    ) -> None:
        """Keep what a run took: under each key the mean of all that it is the key of.

        Parameters
        ----------
        plans : before the run.
        work : what its stages did, by name.
        made_in : the store that it wrote to.
        """
        size = inputs.modality.mean_size(inputs.records)
        resources = inputs.spec.resources.as_run
        # Several workers write in the pool of targets, one in that of references.
        wrote_there = (resources.target.max_actors or resources.target.actors) > 1
        is_one_kind = machine(resources.target) == machine(resources.reference)
        # By key, and by what was measured: thousands of adapters are of one architecture, and a
        # stage that targets share stands in the plan of each.
        took: dict[str, dict[str, Rate]] = {}
        once = Once()

        def note(key: str, name: str, seconds: float, items: int, size: float = 1.0) -> None:
            took.setdefault(key, {})[name] = Rate(seconds / max(1, items), items, size)

        for stage in (stage for plan in plans for stage in plan.stages):
            line = work.get(stage.name)
            if line is not None and line.done:
                note(stage_key(stage, once), stage.name, line.seconds, line.done, size)
        for preparation in (p for plan in plans for p in plan.preparations if not p.ready):
            recipe = preparation.recipe
            facts = once(made_in.prepared_facts, recipe.key)
            if facts is None:
                continue
            write, train = preparation_keys(preparation, resources.reference, once)
            # A denoiser's training says at which step it ended; others, how many they took.
            steps = int(facts["steps" if "steps" in facts else "step"])
            if "writing_seconds" in facts and (is_one_kind or not wrote_there):
                note(write, recipe.key, facts["writing_seconds"], recipe.items)
            note(train, recipe.key, facts["seconds"], steps)
        for key, rates in took.items():
            self.keep(key, _mean(rates.values()))


def _mean(rates: Collection[Rate]) -> Rate:
    """Of rates of texts of one length."""
    items = sum(rate.items for rate in rates)
    seconds = sum(rate.seconds * rate.items for rate in rates)
    return Rate(seconds / max(1, items), items, next(iter(rates)).size)


def _rate_of(content: Any) -> Rate | None:
    if not isinstance(content, dict):
        return None
    found: dict[str, Any] = {"seconds": None, "items": None, "size": 1.0, **content}
    measured = [found[key] for key in ("seconds", "size")]
    if not COUNT.holds(found["items"]) or not all(NUMBER.holds(n) and n > 0 for n in measured):
        return None
    return Rate(found["seconds"], found["items"], found["size"])


def stage_key(stage: Stage, once: Once | None = None) -> str:
    """What the rate of a stage is filed under."""
    questions = [(p.label, p.question.kind, p.question.version) for p in stage.questions]
    passes = [p.question.passes for p in stage.questions]
    model = architecture(stage.loader.checkpoint, once)
    return digest(["stage", questions, passes, model, machine(stage.pool)])


def preparation_keys(
    preparation: Preparation, pool: PoolSpec, once: Once | None = None
) -> tuple[str, str]:
    """What the rates of writing, per item, and of training, per step, are filed under."""
    of = [architecture(preparation.recipe.target, once), machine(pool)]
    write, train = preparation.recipe.rate_parts()
    return digest([*write, *of]), digest([*train, *of])


def machine(pool: PoolSpec) -> list[Any]:
    """The kind of machine an actor is on, and what it holds at once."""
    device = pool.accelerator_type or ("GPU" if pool.gpus else "CPU")
    return [device, pool.gpus, pool.batch_tokens, pool.batch_images]
