"""What a training will take: steps, memory, and about how long."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from raymia.models.memory import bytes_of_tokens, bytes_of_weights, transformer_width
from raymia.models.source import read_json
from raymia.prepare.train_target import TargetTraining, steps_per_epoch
from raymia.prepare.tuning import Counted
from raymia.util.once import Once

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
"""What configs of transformers call their number of layers."""
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
    """

    steps: int
    steps_per_epoch: int
    memory: int | None
    seconds: float | None


def estimate_training(plan: TargetTraining, counted: Counted, tokens: int) -> TrainingEstimate:
    """Reckon what a training takes; loads no model.

    Parameters
    ----------
    tokens : of the members, for one pass over them.
    """
    per_epoch = steps_per_epoch(plan.trainer, len(plan.members))
    if counted.trained is None or counted.all is None:
        return TrainingEstimate(plan.steps, per_epoch, None, None)
    passes = PASSES[plan.method.peft is None]
    work = passes * counted.all * tokens * plan.steps / per_epoch
    return TrainingEstimate(
        plan.steps, per_epoch, _memory(plan, counted.trained, tokens), work / _speed()
    )


def _memory(plan: TargetTraining, trained: int, tokens: int) -> int:
    """Weights, what the optimizer keeps, and the activations and logits of one batch."""
    folder = Path(plan.base.path)
    quantization = "nf4" if plan.method.quantized else "none"
    weights = bytes_of_weights([folder], "float32", quantization, Once())
    config = read_json(folder / "config.json")
    layers = int(next((config[name] for name in LAYERS if name in config), 1))
    batch = plan.trainer.per_device_train_batch_size * max(1, tokens // len(plan.members))
    live = layers * bytes_of_tokens(batch, transformer_width(folder), "float32")
    logits = 3 * 4 * batch * plan.base.facts.vocabulary
    return weights + 4 * ADAM * trained + live + logits


def _speed() -> float:
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
