"""What a training of a language model will take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raymia.models.memory import bytes_of_tokens, bytes_of_weights, own_weights, transformer_width
from raymia.models.source import read_json
from raymia.plan.training import ADAM, PASSES, TrainingEstimate, priced, speed
from raymia.prepare.train_target import TargetTraining
from raymia.prepare.tuning import Counted
from raymia.spec import CostsSpec
from raymia.util.once import Once

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
"""What configs of transformers call their number of layers."""


def estimate_training(
    plan: TargetTraining,
    counted: Counted,
    tokens: int,
    *,
    shadows: Sequence[TargetTraining] = (),
    costs: CostsSpec | None = None,
) -> TrainingEstimate:
    """Reckon what a training takes; loads no model.

    Parameters
    ----------
    tokens : of the members, for one pass over them.
    shadows : that are trained as well.
    costs : prices, of which one may be this machine's.
    """
    per_epoch = plan.steps_per_epoch
    if counted.trained is None or counted.all is None:
        return TrainingEstimate(plan.steps, per_epoch, None, None)
    # A step takes as many records in a shadow as in the target.
    step = PASSES[plan.method.peft is None] * counted.all * tokens / per_epoch / speed()
    seconds = step * plan.steps
    others = step * sum(one.steps for one in shadows) if shadows else None
    held = _memory(plan, counted.trained, tokens)
    return priced(TrainingEstimate(plan.steps, per_epoch, held, seconds, others), costs)


def _memory(plan: TargetTraining, trained: int, tokens: int) -> int:
    """Weights, what the optimizer keeps, and the activations and logits of one batch."""
    folder = Path(plan.base.path)
    quantization = "nf4" if plan.method.quantized else "none"
    weights = bytes_of_weights(own_weights([folder]), "float32", quantization, Once())
    config = read_json(folder / "config.json")
    layers = int(next((config[name] for name in LAYERS if name in config), 1))
    rows = plan.trainer.per_device_train_batch_size // plan.workers
    batch = rows * max(1, tokens // plan.rows)
    live = layers * bytes_of_tokens(batch, transformer_width(folder), "float32")
    logits = 3 * 4 * batch * plan.base.facts.vocabulary
    return weights + 4 * ADAM * trained + live + logits
