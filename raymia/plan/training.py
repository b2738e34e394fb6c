"""What a training will take: steps, memory, and about how long."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from raymia.models.denoisers.memory import memory
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.memory import BYTES, bytes_of_tokens, bytes_of_weights, transformer_width
from raymia.models.source import read_json
from raymia.prepare.denoiser_lora import modules_of
from raymia.prepare.private import Privacy
from raymia.prepare.train_lora import ResolvedLora
from raymia.prepare.train_target import TargetTraining
from raymia.prepare.tuning import Counted
from raymia.spec import CostsSpec
from raymia.util.once import Once

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
"""What configs of transformers call their number of layers."""
PASSES = {True: 6, False: 4}
"""Operations for each weight and token: two forward, two back through the activations, and two for
the gradients of weights, where all are trained."""
ADAM = 3
"""Numbers kept for each that is trained: its gradient and two moments."""
MAPS = 3
"""Maps kept for the way back for each layer of a network of images: its input, normalized, and what
an activation makes of it."""
ONCE = ("time", "class_emb", "add_emb", "norm")
"""In names of layers that are asked once for an image: what it is told beside its pixels."""
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
    step = PASSES[plan.method.peft is None] * counted.all * tokens / per_epoch / _speed()
    seconds = step * plan.steps
    others = step * sum(one.steps for one in shadows) if shadows else None
    held = _memory(plan, counted.trained, tokens)
    return _priced(TrainingEstimate(plan.steps, per_epoch, held, seconds, others), costs)


def estimate_lora(plan: ResolvedLora, costs: CostsSpec | None = None) -> TrainingEstimate:
    """Reckon what a training of a LoRA of a diffusion model takes; loads no model.

    Counted are the linear and convolutional layers, at the resolution of each, and neither
    attention's products nor what the autoencoder and the text encoders take.
    """
    base, settings = plan.base, plan.settings
    layers = [(shape, positions_of(name, base)) for name, shape in modules_of(base).items()]
    passes = sum(math.prod(shape) * places for shape, places in layers)
    seconds = PASSES[False] * passes * settings.batch_size * settings.steps / _speed()
    maps = sum(shape[0] * places for shape, places in layers)
    kept = int(MAPS * maps * BYTES[base.dtype]) * settings.batch_size
    weights = memory(base, 1, Once()).weights
    per_epoch = math.ceil(len(plan.split.members) / settings.batch_size)
    found = TrainingEstimate(
        settings.steps, per_epoch, weights + 4 * (ADAM + 1) * plan.trained_weights + kept, seconds
    )
    return _priced(found, costs)


def positions_of(layer: str, base: DenoiserCheckpoint) -> int:
    """How often a layer is applied to one image: the places of its feature map, or the tokens."""
    if any(part in layer for part in ONCE):
        return 1
    height, breadth = base.latent_shape[-2:]
    config, (block, number, *_) = base.query.config, [*layer.split("."), ""]
    if "block_out_channels" not in config:
        side = int(config.get("patch_size") or 1) * base.face.packs
        return (height // side) * (breadth // side)
    last = len(config["block_out_channels"]) - 1
    nth = int(number) if number.isdecimal() else 0
    halvings = {"down_blocks": nth, "mid_block": last, "up_blocks": last - nth}.get(block, 0)
    halvings += ("downsamplers" in layer) - ("upsamplers" in layer)
    halvings = max(0, halvings)
    return max(1, (height >> halvings) * (breadth >> halvings))


def _priced(found: TrainingEstimate, costs: CostsSpec | None) -> TrainingEstimate:
    """With the cost, where this machine has a price."""
    price = None if costs is None else costs.per_hour.get(_machine(costs))
    hours = found.hours
    return found if price is None or hours is None else replace(found, cost=price * hours)


def _machine(costs: CostsSpec) -> str:
    """What the prices call this machine: the GPU type that its GPU's name has, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "CPU"
    name = torch.cuda.get_device_name()
    return next((kind for kind in costs.per_hour if kind != "CPU" and kind in name), name)


def _memory(plan: TargetTraining, trained: int, tokens: int) -> int:
    """Weights, what the optimizer keeps, and the activations and logits of one batch."""
    folder = Path(plan.base.path)
    quantization = "nf4" if plan.method.quantized else "none"
    weights = bytes_of_weights([folder], "float32", quantization, Once())
    config = read_json(folder / "config.json")
    layers = int(next((config[name] for name in LAYERS if name in config), 1))
    rows = plan.trainer.per_device_train_batch_size // plan.workers
    batch = rows * max(1, tokens // plan.rows)
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
