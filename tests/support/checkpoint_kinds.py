"""Checkpoints of many kinds, what raymia does with each, and the table of it in the docs.

    PYTHONPATH=. python tests/support/checkpoint_kinds.py    # writes the table

The test of the table says when it is out of date.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import small_loras
import torch
import transformers
from edited import edit, reweigh
from original_files import save_whole, without_weights
from quantized_models import save_bitsandbytes, save_block_fp8, set_quantization
from safetensors.torch import load_file, save_file
from small_families import save_family
from small_gguf import save_gguf
from small_image_models import save_model, save_pipeline, save_with_classes
from tiny_models import BASE, save_adapter, save_tiny

from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.util.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
START, END = "<!-- made by tests/support/checkpoint_kinds.py -->\n", "<!-- end -->\n"
WIDTH = 160
"""Letters of a reason in the table."""

Made = dict[str, Any]
"""Of :class:`ModelSpec`, beside the folder."""


def llama(folder: Path, **settings: Any) -> Made:
    save_tiny(folder, "llama", **settings)
    return {}


def by(save: Callable[..., Any], *given: Any, **made: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        save(folder, *given)
        return made

    return make


def resaved(folder: Path, dtype: str = "float32", **options: Any) -> Made:
    save_tiny(folder, "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.to(getattr(torch, dtype)).save_pretrained(folder, **options)
    return {}


def adapted(folder: Path, deeper: int = 2, **settings: Any) -> Made:
    save_tiny(folder / "base", "llama")
    save_tiny(folder / "other", "llama", num_hidden_layers=deeper)
    save_adapter(folder / "adapter", folder / "other", **settings)
    return {"model": str(folder / "base"), "adapter": str(folder / "adapter")}


def with_tokenizer(folder: Path) -> Made:
    made = adapted(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["Netherfield"])
    tokenizer.save_pretrained(folder / "adapter")
    return made


def changed(
    change: Callable[[dict[str, torch.Tensor]], Any] = lambda _: None, **config: Any
) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        save_tiny(folder, "llama")
        reweigh(folder / "model.safetensors", change)
        edit(folder / "config.json", layer_types=None, **config)
        return {}

    return make


def saved_with(method: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        set_quantization(save_tiny(folder, "llama"), {"quant_method": method})
        return {}

    return make


def without(file: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        resaved(folder, max_shard_size="100KB")
        (folder / next(p.name for p in sorted(folder.glob(file)))).unlink()
        return {}

    return make


def untokenized(folder: Path) -> Made:
    llama(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    return {}


def pickled(folder: Path) -> Made:
    llama(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return {}


def beside(folder: Path) -> Made:
    llama(folder)
    save_adapter(folder / "adapter", folder)
    for file in (folder / "adapter").glob("adapter_*"):
        shutil.copy(file, folder)
    shutil.rmtree(folder / "adapter")
    return {}


def other(config: Any, **changes: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
        edit(folder / "config.json", **changes)
        return {}

    return make


def low_rank(tensors: dict[str, torch.Tensor]) -> None:
    for letter in "AB":
        tensors[f"model.layers.0.self_attn.q_proj.lora_{letter}.weight"] = torch.ones(4, 32)


def integers(tensors: dict[str, torch.Tensor]) -> None:
    tensors |= {n: (t * 9).to(torch.int8) for n, t in tensors.items() if "_proj" in n}


def pipeline(kind: str, part: str = "", **changes: Any) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        save_pipeline(kind, folder)
        if changes:
            edit(next((folder / part).glob("*.json")), **changes)
        return {}

    return make


def classes(folder: Path) -> Made:
    save_with_classes(folder, count=10)
    return {}


def anew(**how: Any) -> Callable[[Path], Made]:
    """A pipeline saved in another way."""

    def make(folder: Path) -> Made:
        saved = save_pipeline("stable", folder / "plain").pipeline
        saved.save_pretrained(folder / "anew", **how)
        return {"model": str(folder / "anew")}

    return make


def flat(folder: Path) -> Made:
    saved = save_pipeline("ddpm", folder / "whole").pipeline
    for part in (saved.unet, saved.scheduler):
        part.save_pretrained(folder / "flat")
    return {"model": str(folder / "flat")}


def family(kind: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        save_family(kind, folder)
        return {}

    return make


def image_adapter(how: str, **renamed: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        pipe = save_pipeline("stable", folder / "base").pipeline
        unet = small_loras.adapted(pipe.unet, small_loras.UNET, 1, use_dora=how == "dora")
        place = folder / "lora.safetensors"
        if how == "kohya":
            small_loras.save_by_kohya(place, unet)
        else:
            place = small_loras.save_by_diffusers(folder, unet) / "pytorch_lora_weights.safetensors"
        tensors = load_file(place)
        for old, new in renamed.items():
            tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
        if renamed:
            save_file(tensors, place)
        return {"model": str(folder / "base"), "adapter": str(place)}

    return make


def lora_file(folder: Path) -> Made:
    save_pipeline("ddpm", folder)
    save_file({"unet.to_q.lora.up.weight": torch.ones(4, 4)}, folder / "lora.safetensors")
    return {}


def one_file(*names: str, as_adapter: bool = False) -> Callable[[Path], Made]:
    """Tensors of these names in a file, given as a model or as an adapter of one."""

    def make(folder: Path) -> Made:
        save_pipeline("stable", folder / "base")
        place = folder / "one.safetensors"
        save_file({name: torch.ones(2, 16) for name in names}, place)
        made = {"model": str(folder / "base"), "adapter": str(place)}
        return made if as_adapter else {"model": str(place)}

    return make


def one_file_and_config(folder: Path) -> Made:
    file, _ = save_whole("stable", folder)
    without_weights(folder / "pipeline")
    return {"model": str(file), "config": str(folder / "pipeline")}


def another(pipeline_kind: str, network: str) -> Callable[[Path], Made]:
    """A pipeline of a family that raymia does not ask."""

    def make(folder: Path) -> Made:
        save_pipeline("dit", folder)
        edit(folder / "model_index.json", _class_name=pipeline_kind)
        edit(folder / "transformer" / "config.json", _class_name=network)
        return {}

    return make


def single(kind: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        save_model(kind, folder)
        return {}

    return make


def without_scales(folder: Path) -> Made:
    save_tiny(folder, "llama")
    reweigh(folder / "model.safetensors", pack)
    set_quantization(folder, {"quant_method": "gptq"})
    return {}


def pack(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "_proj" in name]:
        packed = tensors.pop(name).to(torch.int32)
        tensors[name.replace("weight", "qweight")] = packed


def on_gguf(folder: Path, **settings: Any) -> Made:
    save_gguf(folder / "base")
    save_tiny(folder / "other", "llama", vocab_size=64, **settings)
    save_adapter(folder / "adapter", folder / "other")
    return {"model": str(folder / "base"), "adapter": str(folder / "adapter"),
            "gguf_file": "small.gguf"}  # fmt: skip


def own_code(folder: Path, **made: bool) -> Made:
    save_tiny(folder, "llama")
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    (folder / "own.py").write_text("from transformers import LlamaForCausalLM as Own\n")
    return {"trust_remote_code": True, **made}


def deeper_imagegpt(folder: Path) -> Made:
    save_model("imagegpt", folder)
    edit(folder / "config.json", n_layer=3)
    return {}


BERT = transformers.BertConfig(
    vocab_size=2048, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=32,
)  # fmt: skip

FAMILIES = {
    "SDXL": "sdxl", "PixArt": "pixart", "Stable Diffusion 3": "sd3", "FLUX.1": "flux",
    "AuraFlow": "aura_flow", "Lumina 2": "lumina2", "Sana": "sana",
    "flow matching in pixels": "flow_in_pixels",
}  # fmt: skip

TEXTS: dict[str, Callable[[Path], Made]] = {
    "one file": llama,
    "shards with their index": lambda folder: resaved(folder, max_shard_size="100KB"),
    "bfloat16": lambda folder: resaved(folder, "bfloat16"),
    "old rotary frequencies, masks, a value head beside": changed(
        lambda t: t.update({"v_head.summary.weight": torch.ones(1), "model.layers.0.self_attn."
                            "rotary_emb.inv_freq": torch.ones(8)})
    ),
    "block-wise FP8": by(save_block_fp8),
    "saved by bitsandbytes, nf4": by(save_bitsandbytes, "nf4"),
    "GPTQ": saved_with("gptq"),
    "AWQ": saved_with("awq"),
    "compressed-tensors": saved_with("compressed-tensors"),
    "torchao": saved_with("torchao"),
    "GPTQ without its scales": without_scales,
    "another quantization": saved_with("modelopt"),
    "FP8, and `quantization: nf4`": by(save_block_fp8, quantization="nf4"),
    "integers without scales": changed(integers),
    "LoRA": adapted,
    "DoRA": lambda folder: adapted(folder, use_dora=True),
    "(IA)3": lambda folder: adapted(folder, method="IA3"),
    "prefix tuning": lambda folder: adapted(folder, method="PrefixTuning", num_virtual_tokens=4),
    "LoRA with a tokenizer of its own": with_tokenizer,
    "LoRA of a deeper base": lambda folder: adapted(folder, deeper=4),
    "GGUF": by(save_gguf, gguf_file="small.gguf"),
    "GGUF, and `quantization: nf4`": by(save_gguf, gguf_file="small.gguf", quantization="nf4"),
    "LoRA on GGUF": on_gguf,
    "LoRA of a deeper base on GGUF": lambda folder: on_gguf(folder, num_hidden_layers=4),
    "code of its own, allowed": own_code,
    "code of its own, not allowed": lambda folder: own_code(folder, trust_remote_code=False),
    "LoRA's tensors among the weights": changed(low_rank),
    "LoRA in the folder of the weights": beside,
    "fewer layers in the config": changed(num_hidden_layers=1),
    "more layers in the config": changed(num_hidden_layers=3),
    "other widths in the config": changed(intermediate_size=48),
    "a shard missing": without("model-*.safetensors"),
    "no tokenizer": untokenized,
    "pickles alone": pickled,
    "encoder (BERT)": other(BERT),
    "classifier": other(BERT, architectures=["BertForSequenceClassification"]),
}  # fmt: skip
IMAGES: dict[str, Callable[[Path], Made]] = {
    "DDPM, DDIM or PNDM": pipeline("ddpm"),
    "latent diffusion": pipeline("ldm"),
    "Stable Diffusion 1 and 2": pipeline("stable"),
    "DiT": pipeline("dit"),
    "weights saved as fp16 variant": anew(variant="fp16"),
    "shards": anew(max_shard_size="100KB"),
    "shards of an fp16 variant": anew(max_shard_size="100KB", variant="fp16"),
    "a UNet and its schedule in one folder": flat,
    "AutoencoderKL": single("autoencoder_kl"),
    "ImageGPT": single("imagegpt"),
    "ImageGPT, more layers in the config": deeper_imagegpt,
    "LoRA of diffusers": image_adapter("diffusers"),
    "DoRA of diffusers": image_adapter("dora"),
    "LoRA of kohya's scripts": image_adapter("kohya"),
    "LoRA of a deeper base": image_adapter("kohya", down_blocks_0="down_blocks_7"),
    "LoHa of kohya's scripts": image_adapter("kohya", lora_down="hada_w1_a"),
    "a LoRA in the pipeline's folder": lora_file,
    "inpainting": pipeline("stable", "unet", in_channels=9),
    **{name: family(kind) for name, kind in FAMILIES.items()},
    "class-conditional UNet": classes,
    "EDM": pipeline("ddpm", "scheduler", _class_name="EDMEulerScheduler"),
    "consistency model": pipeline("stable", "scheduler", _class_name="LCMScheduler"),
    "another network": pipeline("dit", "transformer", _class_name="HunyuanDiT2DModel"),
    "Lumina": another("LuminaPipeline", "LuminaNextDiT2DModel"),
    "one file, Stable Diffusion 1 and 2": one_file("cond_stage_model.a", "model.diffusion_model.b"),
    "one file, Stable Diffusion 1 and 2, with `config`": one_file_and_config,
    "one file, SDXL": one_file("conditioner.embedders.0.a", "model.diffusion_model.b"),
    "one file, FLUX.1's network alone": one_file("double_blocks.0.a"),
    "one file, a LoRA": one_file("lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight"),
    "textual inversion": one_file("<word>", as_adapter=True),
    "textual inversion of another base": one_file("clip_l", "clip_g", as_adapter=True),
}


def outcome(resolve: Any, make: Callable[[Path], Made], folder: Path) -> str:
    """What is done with a checkpoint: read, or refused and why."""
    spec = ModelSpec(**{"model": str(folder), **make(folder)})
    try:
        found = resolve(spec, "model", on_gpu=False)
        told = r", (saved as|by code of its own|by transformers' own code) ?[^,]*"
        saved = re.search(told, found.describe())
        return f"read{saved[0] if saved else ''}"
    except InputError as error:
        said = error.problems[0].split(": ", 1)[1]
    if " is not installed here" in said:
        return f"read where {said.split(' is not')[0]} is installed"
    said = re.sub(r"(, (which|whose|and) |; | \().*", "", said.replace(f"{folder}", "FOLDER"))
    for inside in ("/base", "/adapter", "/other"):
        said = said.replace(f"FOLDER{inside}", "FOLDER")
    return f"refused: {said.replace('FOLDER: ', '').replace('FOLDER', 'the folder')[:WIDTH]}"


def rows() -> Iterator[tuple[str, str, str]]:
    kinds = (("texts", resolve_causal_lm, TEXTS), ("images", resolve_image_model, IMAGES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for records, resolve, makers in kinds:
            for name, make in makers.items():
                with tempfile.TemporaryDirectory() as scratch:
                    yield records, name, outcome(resolve, make, Path(scratch).resolve() / "there")


def table() -> str:
    lines = [f"| {' | '.join(row)} |\n" for row in rows()]
    return "".join(["| of | checkpoint | what is done |\n", "|---|---|---|\n", *lines])


def written() -> str:
    """The table that the page has."""
    return PAGE.read_text().split(START, 1)[1].split(END, 1)[0]


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(START)
    after = rest.partition(END)[2]
    sys.exit(PAGE.write_text(f"{before}{START}\n{table()}\n{END}{after}") and None)
