"""Training a language model whose members are known, and its checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raymia.models.causal.model import CausalLM
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Training
from raymia.prepare.fine_tune import MAX_MEASURED, mean_loss
from raymia.prepare.packing import Packed, check_packing
from raymia.prepare.preferences import Preferences
from raymia.prepare.private import Privacy
from raymia.prepare.private_trainer import check_private, private_trainer
from raymia.prepare.text_split import Record
from raymia.prepare.trainer import (
    KeptTraining,
    Progress,
    Rows,
    quiet,
    run_trainer,
    trained_parameters,
    training_row,
)
from raymia.prepare.tuning import check_passes, load_to_train, measured
from raymia.spec.methods import Method
from raymia.spec.target_training import TrainerSpec
from raymia.storage.files import Folder
from raymia.storage.scratch import scratch
from raymia.util.errors import InputError
from raymia.util.hashing import digest_file

CHECKPOINT = "checkpoint-"
FACTS_FILE = "facts.json"
STATE_FOLDER = "raymia-training-state"
"""Removed when the training is finished; so named that nobody has a folder of their own there."""
BATCH_TOKENS = 8_192

Facts = dict[str, Any]
Measure = Callable[[], tuple[float, float]]


@dataclass(frozen=True)
class TargetTraining:
    """Everything that a training is a function of.

    Attributes
    ----------
    base : read as the training reads records.
    out : the folder of the checkpoints.
    run : hash of all the rest, by content.
    privacy : of a private training.
    beta : of a training on preferences by DPO.
    packing : which members stand in each row, by number; None where each has a row of its own.
    workers : processes that train it together, each on its part of every batch.
    max_tokens : of each record, beside what the training cuts; None cuts no more.
    """

    base: CausalCheckpoint
    method: Method
    trainer: TrainerSpec
    training: Training
    members: tuple[Record, ...]
    held_out: tuple[Record, ...]
    seed: int
    out: Path
    run: str
    privacy: Privacy | None = None
    beta: float | None = None
    packing: tuple[tuple[int, ...], ...] | None = None
    workers: int = 1
    max_tokens: int | None = None

    @property
    def rows(self) -> int:
        """That are trained on in one pass over the members."""
        return len(self.members if self.packing is None else self.packing)

    @property
    def steps(self) -> int:
        """Steps of the optimizer, unless it is stopped early."""
        return total_steps(self.trainer, self.rows)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.trainer, self.rows)

    @property
    def options(self) -> dict[str, Any]:
        """What transformers' TrainingArguments are told."""
        own = self.trainer.model_dump(
            exclude={
                "warmup_ratio", "warmup_steps", "max_steps", "save_strategy", "save_steps",
                "early_stopping_patience", "early_stopping_threshold", "packing",
            }
        )  # fmt: skip
        # A number below one is a share of the steps to transformers.
        own["warmup_steps"] = self.trainer.warmup_steps or self.trainer.warmup_ratio
        own["max_steps"] = self.trainer.max_steps or -1
        own["per_device_train_batch_size"] //= self.workers
        if self.privacy is not None:  # a batch is a whole step, and gradients are cut one by one
            own |= {
                "max_steps": self.steps, "gradient_accumulation_steps": 1, "max_grad_norm": 0.0
            }  # fmt: skip
        return own


def total_steps(trainer: TrainerSpec, rows: int) -> int:
    """Steps of the optimizer for a number of rows."""
    if trainer.max_steps is not None:
        return trainer.max_steps
    return math.ceil(trainer.num_train_epochs * steps_per_epoch(trainer, rows))


def step_size(trainer: TrainerSpec) -> int:
    """Rows of one step of the optimizer: records, where each has a row of its own."""
    return trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps


def steps_per_epoch(trainer: TrainerSpec, rows: int) -> int:
    """Steps of the optimizer for one pass over the rows; the last may have fewer."""
    batches = math.ceil(rows / trainer.per_device_train_batch_size)
    return math.ceil(batches / trainer.gradient_accumulation_steps)


def train_target(plan: TargetTraining, progress: Progress) -> tuple[list[Facts], Facts]:
    """Train, from where it was stopped, and keep checkpoints.

    Where several workers train together, each of them calls it; the first alone writes.

    Returns
    -------
    The facts of each checkpoint, in order, and those of the training; the first worker has them.

    Raises
    ------
    InputError
        If the folder has checkpoints of another training.
    RaymiaError
        If the files of the base are others than those that were planned with, or the loss is no
        number at some step.
    """
    quiet()
    unchanged = plan.base.watch()
    plan.base.check()
    kept = KeptTraining(plan.out / STATE_FOLDER, plan.run)
    tokenizer = plan.base.tokenizer_source.load()
    model = load_to_train(plan.base, plan.method, plan.seed, plan.trainer.bf16)
    unchanged()
    rows: Rows = encode(plan.members, tokenizer, plan.training, plan.max_tokens)
    check_passes(model, plan.method, rows[0])
    if plan.packing is not None:
        check_packing(model, rows)
        rows = Packed(rows, plan.packing)
    other: dict[str, Any] = {}
    measure = _likelihood(plan, model, tokenizer)
    if plan.privacy is not None:
        check_private(model, plan.method, rows)
        other["trainer_class"] = private_trainer(plan.privacy, plan.seed)
    if plan.beta is not None:
        preferences = Preferences(plan.beta, tokenizer, plan.training)
        rows = preferences.rows(plan.members, model)
        held_out = preferences.rows(plan.held_out[:MAX_MEASURED], model)
        other["trainer_class"] = preferences.trainer()

        def measure() -> tuple[float, float]:
            own = rows[:MAX_MEASURED]
            return preferences.loss_on(own, model), preferences.loss_on(held_out, model)

    checkpoints = Checkpoints(plan, model, tokenizer, measure)
    steps = run_trainer(
        model,
        rows,
        plan.options,
        kept,
        seed=plan.seed,
        progress=progress,
        after_step=checkpoints.after_step,
        **other,
    )
    facts = {
        "steps": steps,
        "stopped_early": steps < plan.steps,
        "trainable_parameters": sum(p.numel() for p in trained_parameters(model).values()),
        "seconds": round(kept.seconds, 3),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    return checkpoints.facts, facts


def _likelihood(plan: TargetTraining, model: Any, tokenizer: Any) -> Measure:
    """Nats per token that carried a loss."""

    def measure() -> tuple[float, float]:
        with measured(model):
            answers = CausalLM(model, tokenizer, batch_tokens=BATCH_TOKENS, training=plan.training)
            own, held_out = (
                mean_loss(answers, [record.payload for record in records[:MAX_MEASURED]])
                for records in (plan.members, plan.held_out)
            )
        return own, held_out

    return measure


def finish(plan: TargetTraining) -> None:
    """Remove where the training stood; what it made is complete."""
    shutil.rmtree(plan.out / STATE_FOLDER, ignore_errors=True)


def encode(
    records: Sequence[Record], tokenizer: Any, training: Training, max_tokens: int | None = None
) -> list[dict[str, list[int]]]:
    """Tokens of records as the training reads them, and labels, -100 where there is no loss."""
    rows = []
    payloads = [record.payload for record in records]
    for record, read in zip(
        records, TrainedReader(tokenizer, training).read(payloads), strict=True
    ):
        row = training_row(read, max_tokens)
        if row is None:
            raise InputError(f"record {record.id}: {read.error or 'no token carries a loss'}")
        rows.append(row)
    return rows


class Checkpoints:
    """Checkpoints of a training: when they are kept, what is said of each, when they end it.

    What was kept before a kill is found again, so that the training goes on as if undisturbed.

    Parameters
    ----------
    measure : says the losses of members and of held-out records.
    """

    def __init__(self, plan: TargetTraining, model: Any, tokenizer: Any, measure: Measure) -> None:
        self._plan, self._model, self._tokenizer = plan, model, tokenizer
        self._measure = measure
        self._known = {int(facts["step"]): facts for facts in kept_checkpoints(plan.out, plan.run)}
        self._last = 0

    @property
    def facts(self) -> list[Facts]:
        """The checkpoints that the training has come to, in order."""
        return [self._known[step] for step in sorted(self._known) if step <= self._last]

    def after_step(self, step: int) -> bool | None:
        """See :data:`raymia.prepare.trainer.AfterStep`."""
        self._last = step
        if not self._is_due(step):
            return None
        if step not in self._known:
            # What is trained next must not depend on whether this was kept before a kill.
            with torch.random.fork_rng():
                self._known[step] = self._keep(step)
        return not self._should_stop()

    def _is_due(self, step: int) -> bool:
        trainer = self._plan.trainer
        epoch = self._plan.steps_per_epoch
        every = {"epoch": epoch, "steps": trainer.save_steps, "no": None}[trainer.save_strategy]
        return step >= self._plan.steps or (every is not None and step % every == 0)

    def _spent(self, step: int) -> Facts:
        privacy = self._plan.privacy
        if privacy is None or not privacy.is_claimed:
            return {}
        return {"privacy": {"epsilon": privacy.spent(step), "delta": privacy.spec.delta}}

    def _should_stop(self) -> bool:
        patience = self._plan.trainer.early_stopping_patience
        losses = [facts["held_out_loss"] for facts in self.facts]
        if patience is None or any(loss is None for loss in losses):
            return False
        best, since = math.inf, 0
        for loss in losses:
            is_better = loss < best - self._plan.trainer.early_stopping_threshold
            best, since = (loss, 0) if is_better else (best, since + 1)
        return since >= patience

    def _keep(self, step: int) -> Facts:
        plan, model = self._plan, self._model
        own, held_out = self._measure()
        with measured(model):
            facts = {
                "folder": f"{CHECKPOINT}{step}",
                "step": step,
                "epoch": round(step / plan.steps_per_epoch, 6),
                "train_loss": _number(own),
                "held_out_loss": _number(held_out),
                **self._spent(step),
                "run": plan.run,
            }
            with scratch() as folder:
                model.save_pretrained(folder)
                self._tokenizer.save_pretrained(folder)
                (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
                Folder(str(plan.out)).commit_folder(folder, f"{CHECKPOINT}{step}", FACTS_FILE)
        return facts


def kept_checkpoints(out: Path, run: str) -> list[Facts]:
    """The facts of the checkpoints in a folder.

    Raises
    ------
    InputError
        If one is of another training.
    """
    found = []
    for file in sorted(out.glob(f"{CHECKPOINT}*/{FACTS_FILE}")):
        facts: Facts = json.loads(file.read_text("utf-8"))
        if facts.get("run") != run:
            raise InputError(
                f"{file.parent} is of a training with other records, settings, seed or base; "
                "remove the folder, or name another as `output`"
            )
        found.append(facts)
    return found


def hashes(out: Path, checkpoints: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Hashes of the weights and configs of checkpoints, by name."""
    return {
        f"{facts['folder']}/{file.name}": digest_file(file)
        for facts in checkpoints
        for file in sorted((out / facts["folder"]).iterdir())
        if file.suffix in (".safetensors", ".json", ".jinja")
    }


def _number(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
