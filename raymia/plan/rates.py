"""How long questions take: measured by runs, kept in the store, read by plans.

A rate is filed under what it depends on: the architecture (config files, precision), the questions
and their settings, and the kind of machine; not under the weights, so that what one checkpoint took
says what two hundred will. Texts of another length are answered in proportion to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.compute as pc

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.source import PROVENANCE
from raymia.plan.planning import Preparation, Stage, TargetPlan
from raymia.prepare.self_generated import SelfGeneratedRecipe
from raymia.spec import PoolSpec, SelfGeneratedReference
from raymia.util.hashing import digest

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
        name = f"rates/{key}.json"
        if not self.folder.exists(name):
            return None
        return Rate(**json.loads(self.folder.read(name)))

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
        """Keep what a run took.

        Parameters
        ----------
        plans : before the run.
        work : what its stages did, by name.
        made_in : the store that it wrote to.
        """
        size = mean_size(inputs)
        for stage in (stage for plan in plans for stage in plan.stages):
            line = work.get(stage.name)
            if line is not None and line.done:
                self.keep(stage_key(stage), Rate(line.seconds / line.done, line.done, size))
        for preparation in (p for plan in plans for p in plan.preparations if not p.ready):
            facts = made_in.prepared_facts(preparation.recipe.key)
            if facts is None:
                continue
            write, train = preparation_keys(preparation, inputs.spec.resources.reference)
            # A denoiser's training says at which step it ended; others, how many they took.
            steps = int(facts["steps" if "steps" in facts else "step"])
            items, _ = items_and_steps(preparation)
            if "writing_seconds" in facts:
                self.keep(write, Rate(facts["writing_seconds"] / items, items))
            self.keep(train, Rate(facts["seconds"] / max(1, steps), steps))


def stage_key(stage: Stage) -> str:
    """What the rate of a stage is filed under."""
    probes = [(p.question, p.probe.kind, p.probe.version) for p in stage.probes]
    passes = [p.probe.passes for p in stage.probes]
    checkpoint = stage.loader.checkpoint
    return digest(["stage", probes, passes, architecture(checkpoint), machine(stage.pool)])


def items_and_steps(preparation: Preparation) -> tuple[int, int]:
    """Texts or images that are written for a reference, and steps that it is trained for."""
    spec = preparation.recipe.spec
    if isinstance(spec, SelfGeneratedReference):
        return spec.images, spec.training.steps
    per_epoch = math.ceil(spec.texts / spec.fine_tune.batch_size)
    return spec.texts, math.ceil(per_epoch * spec.fine_tune.epochs)


def mean_size(inputs: Inputs) -> float:
    """Mean characters of the records' texts; 1 for images, which are of one size."""
    if inputs.shape is not None:
        return 1.0
    texts = inputs.records.table["payload"]
    return max(1.0, float(pc.mean(pc.utf8_length(texts)).as_py() or 1.0))


def preparation_keys(preparation: Preparation, pool: PoolSpec) -> tuple[str, str]:
    """What the rates of writing, per text or image, and of training, per step, are filed under."""
    recipe = preparation.recipe
    of = [architecture(recipe.target), machine(pool)]
    if isinstance(recipe, SelfGeneratedRecipe):
        made = recipe.spec
        training = made.training.model_dump(include={"batch_size", "flip", "crop"})
        return (
            digest(["generate", made.sampling_steps, made.generation_batch, *of]),
            digest(["train", training, *of]),
        )
    spec = recipe.spec
    write = [spec.max_tokens - spec.prompt_tokens, spec.generation_batch, spec.top_k is None]
    tune = spec.fine_tune.model_dump(include={"batch_size", "max_tokens", "lora"})
    return digest(["write", write, *of]), digest(["tune", tune, architecture(recipe.base), *of])


def machine(pool: PoolSpec) -> list[Any]:
    """The kind of machine an actor is on, and what it holds at once."""
    device = pool.accelerator_type or ("GPU" if pool.gpus else "CPU")
    return [device, pool.gpus, pool.batch_tokens, pool.batch_images]


def architecture(checkpoint: Any) -> Any:
    """What says how much a model computes: its config files, quantization and precision."""
    if checkpoint is None or not hasattr(checkpoint, "quantization"):
        return type(checkpoint).__name__
    folders = [Path(checkpoint.path)]
    if getattr(checkpoint, "adapter", None):
        folders.append(Path(checkpoint.adapter))
    wanted = ("config.json", "model_index.json", "adapter_config.json")
    files = sorted(f for folder in folders for f in folder.rglob("*.json") if f.name in wanted)
    configs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    hashes = [digest({k: v for k, v in c.items() if k not in PROVENANCE}) for c in configs]
    return [hashes, checkpoint.quantization, checkpoint.dtype]
