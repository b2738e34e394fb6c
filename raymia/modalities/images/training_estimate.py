"""What a training of a LoRA of a diffusion model will take."""

from __future__ import annotations

import math

from raymia.models.denoisers.memory import memory
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.memory import BYTES
from raymia.plan.training import ADAM, PASSES, TrainingEstimate, priced, speed
from raymia.prepare.denoiser_lora import modules_of
from raymia.prepare.train_lora import ResolvedLora
from raymia.spec import CostsSpec
from raymia.util.once import Once

MAPS = 3
"""Maps kept for the way back for each layer of a network of images: its input, normalized, and what
an activation makes of it."""
ONCE = ("time", "class_emb", "add_emb", "norm")
"""In names of layers that are asked once for an image: what it is told beside its pixels."""


def estimate_lora(plan: ResolvedLora, costs: CostsSpec | None = None) -> TrainingEstimate:
    """Reckon what a training takes; loads no model.

    Counted are the linear and convolutional layers, at the resolution of each, and neither
    attention's products nor what the autoencoder and the text encoders take.
    """
    base, settings = plan.base, plan.settings
    layers = [(shape, positions_of(name, base)) for name, shape in modules_of(base).items()]
    passes = sum(math.prod(shape) * places for shape, places in layers)
    seconds = PASSES[False] * passes * settings.batch_size * settings.steps / speed()
    maps = sum(shape[0] * places for shape, places in layers)
    kept = int(MAPS * maps * BYTES[base.dtype]) * settings.batch_size
    weights = memory(base, 1, Once()).weights
    per_epoch = math.ceil(len(plan.split.members) / settings.batch_size)
    found = TrainingEstimate(
        settings.steps, per_epoch, weights + 4 * (ADAM + 1) * plan.trained_weights + kept, seconds
    )
    return priced(found, costs)


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
