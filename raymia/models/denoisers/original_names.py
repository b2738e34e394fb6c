"""What the authors of Stable Diffusion call the modules of a UNet, as kohya's scripts do of SDXL's.

There, blocks are counted in one row: ``input_blocks`` hold one residual layer each, with its
attention, or one halving; ``output_blocks`` hold a doubling beside the last layer of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_IN_BLOCK = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<block>\d+)"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)\.(?P<rest>.+)"
)
_IN_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)\.(?P<rest>.+)")
_IN_RESNET = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_BESIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


def original_name(path: str, paths: Sequence[str]) -> str | None:
    """The original name of a module of a UNet; None for one that has none.

    Parameters
    ----------
    path : as diffusers calls it.
    paths : of all modules of the network.
    """
    if middle := _IN_MIDDLE.fullmatch(path):
        place = 2 * int(middle["layer"]) + (middle["kind"] == "attentions")
        return f"middle_block.{place}.{_inside(middle['kind'], middle['rest'])}"
    found = _IN_BLOCK.fullmatch(path)
    if found is None:
        return _BESIDE_BLOCKS.get(path)
    first = re.compile(rf"{found['side']}_blocks\.0\.resnets\.(\d+)\.")
    layers = 1 + max(int(match[1]) for match in map(first.match, paths) if match)
    block, layer, kind = int(found["block"]), int(found["layer"]), found["kind"]
    inside = _inside(kind, found["rest"])
    if found["side"] == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
        return f"input_blocks.{1 + block * (layers + 1) + layer}.{kind == 'attentions':d}.{inside}"
    if kind == "upsamplers":
        attends = any(other.startswith(f"up_blocks.{block}.attentions.") for other in paths)
        return f"output_blocks.{(block + 1) * layers - 1}.{1 + attends}.conv"
    return f"output_blocks.{block * layers + layer}.{kind == 'attentions':d}.{inside}"


def _inside(kind: str, rest: str) -> str:
    return _IN_RESNET.get(rest, rest) if kind == "resnets" else rest
