"""Pipelines in one file of their authors' layout, by turning round what diffusers reads there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_families import save_family
from small_image_models import save_pipeline

from raymia.models.denoisers.original_names import original_name

State = Mapping[str, torch.Tensor]
Named = Iterable[tuple[str, torch.Tensor]]

IN_VAE = (
    (r"(de|en)coder\.mid_block\.resnets\.0", r"\1coder.mid.block_1"),
    (r"(de|en)coder\.mid_block\.resnets\.1", r"\1coder.mid.block_2"),
    (r"(de|en)coder\.mid_block\.attentions\.0", r"\1coder.mid.attn_1"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.0\.", "up.1."), (r"up_blocks\.1\.", "up.0."),  # of two, counted from below
    (r"up\.(\d)\.resnets", r"up.\1.block"), (r"up\.(\d)\.upsamplers\.0", r"up.\1.upsample"),
    ("conv_shortcut", "nin_shortcut"), ("group_norm", "norm"), ("conv_norm_out", "norm_out"),
    (r"to_([qkv])\.", r"\1."), (r"to_out\.0", "proj_out"),
)  # fmt: skip
IN_SD3 = (
    (r"^pos_embed\.proj", "x_embedder.proj"), (r"^pos_embed\.pos_embed", "pos_embed"),
    (r"^time_text_embed\.timestep_embedder\.linear_(\d)", "t_embedder.mlp.{n}"),
    (r"^time_text_embed\.text_embedder\.linear_(\d)", "y_embedder.mlp.{n}"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"), (r"^proj_out", "final_layer.linear"),
    (r"^transformer_blocks", "joint_blocks"), (r"\.norm1\.linear", ".x_block.adaLN_modulation.1"),
    (r"\.norm1_context\.linear", ".context_block.adaLN_modulation.1"),
    (r"\.ff\.net\.0\.proj", ".x_block.mlp.fc1"), (r"\.ff\.net\.2", ".x_block.mlp.fc2"),
    (r"\.ff_context\.net\.0\.proj", ".context_block.mlp.fc1"),
    (r"\.ff_context\.net\.2", ".context_block.mlp.fc2"),
    (r"\.(attn2?)\.to_out\.0", r".x_block.\1.proj"),
    (r"\.attn\.to_add_out", ".context_block.attn.proj"),
)  # fmt: skip
IN_FLUX = (
    (r"^time_text_embed\.timestep_embedder", "time_in"),
    (r"^time_text_embed\.text_embedder", "vector_in"),
    (r"^time_text_embed\.guidance_embedder", "guidance_in"),
    (r"_in\.linear_1", "_in.in_layer"), (r"_in\.linear_2", "_in.out_layer"),
    (r"^context_embedder", "txt_in"), (r"^x_embedder", "img_in"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"), (r"^proj_out", "final_layer.linear"),
    (r"^single_transformer_blocks", "single_blocks"), (r"^transformer_blocks", "double_blocks"),
    (r"\.norm1\.linear", ".img_mod.lin"), (r"\.norm1_context\.linear", ".txt_mod.lin"),
    (r"\.norm\.linear", ".modulation.lin"), (r"\.proj_out", ".linear2"),
    (r"\.ff\.net\.", ".img_mlp."), (r"\.ff_context\.net\.", ".txt_mlp."),
    (r"mlp\.0\.proj", "mlp.0"), (r"\.attn\.to_add_out", ".txt_attn.proj"),
    (r"^(double.+)\.attn\.to_out\.0", r"\1.img_attn.proj"),
    (r"^(double.+)\.attn\.norm_([qk])\.", r"\1.img_attn.norm.\2."),
    (r"\.attn\.norm_added_([qk])\.", r".txt_attn.norm.\1."),
    (r"\.attn\.norm_([qk])\.", r".norm.\1."),
    (r"norm\.q\.weight", "norm.query_norm.scale"), (r"norm\.k\.weight", "norm.key_norm.scale"),
)  # fmt: skip
IN_OPEN_CLIP = (
    (r"^encoder\.layers\.", "transformer.resblocks."), (r"layer_norm(\d)", r"ln_\1"),
    (r"self_attn\.out_proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"), (r"^final_layer_norm", "ln_final"),
    (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_projection\.weight", "text_projection"),
)  # fmt: skip


SD3_ENCODERS = {
    "text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"
}  # fmt: skip
FLUX_ENCODERS = {"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}


def text_encoders(states: Mapping[str, State], names: Mapping[str, str]) -> Iterable[Named]:
    """Text encoders as ComfyUI saves them: each with a scale that nobody asks for, and each CLIP
    with a projection."""
    for part, name in names.items():
        start = f"text_encoders.{name}."
        yield [(f"{start}logit_scale", torch.ones(()))]
        if name == "t5xxl":
            yield [(f"{start}transformer.{n}", t.clone()) for n, t in states[part].items()]
            continue
        own = {n.removeprefix("text_model."): tensor for n, tensor in states[part].items()}
        width = own["final_layer_norm.weight"].shape[0]
        projection = own.pop("text_projection.weight", torch.eye(width))
        yield clip(own, start.removesuffix("."))
        yield [(f"{start}transformer.text_projection.weight", projection)]


def save_whole(kind: str, folder: Path) -> tuple[Path, Any]:
    """A pipeline in ``folder/pipeline``, and its weights once more in one file of its authors'
    layout; the file and the pipeline."""
    save = save_pipeline if kind == "stable" else save_family
    pipe = save(kind, folder / "pipeline").pipeline
    states = states_of(pipe)
    parts = [ldm_vae(states["vae"]), [("model_ema.decay", torch.ones(1))]]
    if kind == "sd3":
        parts += [sd3_transformer(states["transformer"]), *text_encoders(states, SD3_ENCODERS)]
    else:
        start = "cond_stage_model" if kind == "stable" else "conditioner.embedders.0"
        parts += [ldm_unet(states["unet"]), clip(states["text_encoder"], start)]
    if kind == "sdxl":
        parts += [open_clip(states["text_encoder_2"], "conditioner.embedders.1.model")]
    file = folder / "whole.safetensors"
    save_file({name: tensor.contiguous() for part in parts for name, tensor in part}, file)
    return file, pipe


def states_of(pipe: Any) -> dict[str, State]:
    """The tensors of a pipeline's parts."""
    parts = pipe.components.items()
    return {name: part.state_dict() for name, part in parts if isinstance(part, torch.nn.Module)}


def ldm_unet(state: State) -> Named:
    paths = [key.rpartition(".")[0] for key in state]
    for key, tensor in state.items():
        path, _, leaf = key.rpartition(".")
        name = "out.0" if path == "conv_norm_out" else original_name(path, paths)
        assert name is not None, path
        if ".resnets." in path:
            name = name.replace("norm1", "in_layers.0").replace("norm2", "out_layers.0")
        yield f"model.diffusion_model.{name}.{leaf}", tensor


def ldm_vae(state: State) -> Named:
    for key, tensor in state.items():
        is_linear = "attentions" in key and tensor.ndim == 2
        shaped = tensor[..., None, None] if is_linear else tensor
        yield f"first_stage_model.{_by(IN_VAE, key)}", shaped


def clip(state: State, start: str) -> Named:
    for key, tensor in state.items():
        yield f"{start}.transformer.text_model.{key.removeprefix('text_model.')}", tensor


def open_clip(state: State, start: str) -> Named:
    state = {key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    for key, tensor in state.items():
        if ".q_proj." in key:
            joined = [state[key.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            place = _by(IN_OPEN_CLIP, key.replace("self_attn.q_proj.", "attn.in_proj_"))
            yield f"{start}.{place}", torch.cat(joined)
        elif ".k_proj." not in key and ".v_proj." not in key:
            turned = tensor.T if key == "text_projection.weight" else tensor
            yield f"{start}.{_by(IN_OPEN_CLIP, key)}", turned


def sd3_transformer(state: State) -> Named:
    start = "model.diffusion_model."
    blocks = {int(found[1]) for key in state if (found := re.match(r"transf\w+\.(\d+)", key))}
    last = f".{max(blocks)}.norm1_context"
    for key, tensor in state.items():
        if match := re.search(r"(.+)\.(attn2?)\.(to|add)_(q|q_proj)\.(\w+)", key):
            other = [key.replace("_q", f"_{one}") for one in "qkv"]
            block = "x_block" if match[3] == "to" else "context_block"
            place = match[1].replace("transformer_blocks", "joint_blocks")
            joined = torch.cat([state[one] for one in other])
            yield f"{start}{place}.{block}.{match[2]}.qkv.{match[5]}", joined
        elif not re.search(r"attn2?\.(to|add)_[kv]", key):
            if "norm_out" in key or last in key:
                tensor = torch.cat([*tensor.chunk(2)][::-1])
            linear = re.search(r"linear_(\d)", key)
            number = "" if linear is None else str(2 * int(linear[1]) - 2)
            yield start + _by(IN_SD3, key).replace("{n}", number), tensor


def flux_transformer(state: State) -> Named:
    for key, tensor in state.items():
        if match := re.search(r"(.+)\.attn\.(to_q|add_q_proj)\.(\w+)", key):
            other = [key.replace("_q", f"_{one}") for one in "qkv"]
            block = re.sub("transformer_blocks", "blocks", match[1])
            place = f"double_{block}.{'img' if match[2] == 'to_q' else 'txt'}_attn.qkv"
            if block.startswith("single_"):
                other += [f"{match[1]}.proj_mlp.{match[3]}"]
                place = f"{block}.linear1"
            yield f"{place}.{match[3]}", torch.cat([state[one] for one in other])
        elif not re.search(r"attn\.(to|add)_[kv]|proj_mlp", key):
            if "norm_out" in key:
                tensor = torch.cat([*tensor.chunk(2)][::-1])
            yield _by(IN_FLUX, key), tensor


def _by(rules: Iterable[tuple[str, str]], name: str) -> str:
    for old, new in rules:
        name = re.sub(old, new, name)
    return name


def without_weights(folder: Path, *kept: str) -> Any:
    """Leave configs, tokenizers and the schedule of a pipeline's folder."""
    for file in folder.rglob("*.safetensors"):
        if file.parent.name not in kept:
            file.unlink()
