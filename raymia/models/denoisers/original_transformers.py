"""What the authors of FLUX.1 and Stable Diffusion 3 call the modules of their transformers, as
kohya's scripts, ComfyUI and others do in LoRAs.

There, queries, keys and values are one linear layer, as diffusers' lie one below the other; and
the last modulations give the shift before the scale, where diffusers has the scale first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

Modules = Mapping[str, str | tuple[str, ...]]
_QKV = tuple(f"transformer_blocks.#.attn.to_{one}" for one in "qkv")
_SECOND_QKV = tuple(f"transformer_blocks.#.attn2.to_{one}" for one in "qkv")
_QKV_OF_CAPTION = tuple(f"transformer_blocks.#.attn.add_{one}_proj" for one in "qkv")
_QKV_AND_MLP = (
    *(f"single_transformer_blocks.#.attn.to_{one}" for one in "qkv"),
    "single_transformer_blocks.#.proj_mlp",
)
FLUX: Modules = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "double_blocks.#.img_attn.qkv": _QKV,
    "double_blocks.#.img_attn.proj": "transformer_blocks.#.attn.to_out.0",
    "double_blocks.#.img_mlp.0": "transformer_blocks.#.ff.net.0.proj",
    "double_blocks.#.img_mlp.2": "transformer_blocks.#.ff.net.2",
    "double_blocks.#.img_mod.lin": "transformer_blocks.#.norm1.linear",
    "double_blocks.#.txt_attn.qkv": _QKV_OF_CAPTION,
    "double_blocks.#.txt_attn.proj": "transformer_blocks.#.attn.to_add_out",
    "double_blocks.#.txt_mlp.0": "transformer_blocks.#.ff_context.net.0.proj",
    "double_blocks.#.txt_mlp.2": "transformer_blocks.#.ff_context.net.2",
    "double_blocks.#.txt_mod.lin": "transformer_blocks.#.norm1_context.linear",
    "single_blocks.#.linear1": _QKV_AND_MLP,
    "single_blocks.#.linear2": "single_transformer_blocks.#.proj_out",
    "single_blocks.#.modulation.lin": "single_transformer_blocks.#.norm.linear",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
SD3: Modules = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "joint_blocks.#.x_block.attn.qkv": _QKV,
    "joint_blocks.#.x_block.attn.proj": "transformer_blocks.#.attn.to_out.0",
    "joint_blocks.#.x_block.attn2.qkv": _SECOND_QKV,
    "joint_blocks.#.x_block.attn2.proj": "transformer_blocks.#.attn2.to_out.0",
    "joint_blocks.#.x_block.mlp.fc1": "transformer_blocks.#.ff.net.0.proj",
    "joint_blocks.#.x_block.mlp.fc2": "transformer_blocks.#.ff.net.2",
    "joint_blocks.#.x_block.adaLN_modulation.1": "transformer_blocks.#.norm1.linear",
    "joint_blocks.#.context_block.attn.qkv": _QKV_OF_CAPTION,
    "joint_blocks.#.context_block.attn.proj": "transformer_blocks.#.attn.to_add_out",
    "joint_blocks.#.context_block.mlp.fc1": "transformer_blocks.#.ff_context.net.0.proj",
    "joint_blocks.#.context_block.mlp.fc2": "transformer_blocks.#.ff_context.net.2",
    "joint_blocks.#.context_block.adaLN_modulation.1": "transformer_blocks.#.norm1_context.linear",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}  # fmt: skip
_SD3 = "SD3Transformer2DModel"
TABLES: Mapping[str, Modules] = {
    "FluxTransformer2DModel": FLUX,
    _SD3: SD3,
}
"""By the class of the network: original names, and the modules of diffusers that they are; "#" is
the number of a block."""
_BLOCK = re.compile(r"(?:single_)?transformer_blocks\.(\d+)\.")


@dataclass(frozen=True)
class Place:
    """Where the weight of an original module is.

    Attributes
    ----------
    paths : modules whose weights it is, one below the other.
    is_turned : whether its lower half is the upper half there.
    """

    paths: tuple[str, ...]
    is_turned: bool = False


def original_places(kind: str, paths: Collection[str]) -> Iterator[tuple[str, Place]]:
    """The original names of a network's modules, with their places.

    Parameters
    ----------
    kind : its class in diffusers.
    paths : of all its modules.
    """
    blocks = sorted({int(match[1]) for match in map(_BLOCK.match, paths) if match})
    for original, modules in TABLES.get(kind, {}).items():
        for number in blocks if "#" in original else [0]:
            named = (modules,) if isinstance(modules, str) else modules
            places = tuple(name.replace("#", str(number)) for name in named)
            if all(place in paths for place in places):
                # The last block of Stable Diffusion 3 ends the caption as the network the image.
                ends = "norm_out.linear", f"transformer_blocks.{blocks[-1]}.norm1_context.linear"
                is_turned = places[0] in (ends if kind == _SD3 else ends[:1])
                yield original.replace("#", str(number)), Place(places, is_turned)
