"""LoRAs of transformers in the names of the models' authors, as kohya's scripts and ComfyUI have
them: read as diffusers reads them, and as the authors' weights would be changed."""

from __future__ import annotations

import diffusers
import pytest
import torch
from original_files import flux_transformer, sd3_transformer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from small_families import save_family
from small_loras import TEXT, adapted

from raymia.models.denoisers.model import DenoiserFamily, load_denoiser
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.util.errors import InputError

RANK, ALPHA = 2, 3.0
STARTS = {"kohya": "lora_unet_", "comfy": "diffusion_model."}


def resolved(base, adapter=None):
    spec = ModelSpec(model=str(base), adapter=None if adapter is None else str(adapter))
    return resolve_image_model(spec, "targets[0].model", on_gpu=False)


def original_changes(weights):
    """Low-rank changes of all weights of layers, by their original names: up and down."""
    torch.manual_seed(0)
    return {
        name.removesuffix(".weight"): (
            torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2)) / 4,
            torch.randn(RANK, *weight.shape[1:]) / 4,
        )
        for name, weight in weights.items()
        if name.endswith(".weight") and weight.ndim > 1
    }


def save_changes(file, changes, how="kohya"):
    tensors = {}
    for name, (up, down) in changes.items():
        module = STARTS[how] + (name.replace(".", "_") if how == "kohya" else name)
        tensors[f"{module}.lora_up.weight"] = up
        tensors[f"{module}.lora_down.weight"] = down
        tensors[f"{module}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, file)
    return file


def product(up, down):
    return ALPHA / RANK * (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def changed_weights(base, adapter):
    """The network's weights with the adapter added, by diffusers' names."""
    family = DenoiserFamily([resolved(base, adapter)], [4])
    family.use(0)
    state = {}
    for name, module in family._switch._parts[""].named_modules():
        if hasattr(module, "get_delta_weight"):
            change = module.get_delta_weight("adapter_0")
            state[f"{name}.weight"] = module.base_layer.weight.detach() + change
    return state


def deep(kind, folder):
    """A pipeline whose network has a block that is not the last."""
    pipe = save_family(kind, folder).pipeline
    more = {"sd3": {"num_layers": 3, "dual_attention_layers": (0,)}, "flux": {"num_layers": 2}}
    network = type(pipe.transformer).from_config({**pipe.transformer.config, **more[kind]})
    network.save_pretrained(folder / "transformer")
    return network.eval()


def test_every_original_module_of_stable_diffusion_3_is_read(tmp_path):
    network = deep("sd3", tmp_path / "base")
    whole = dict(sd3_transformer(network.state_dict()))
    start = "model.diffusion_model."
    changes = original_changes({name.removeprefix(start): t for name, t in whole.items()})
    for name, pair in changes.items():
        whole[f"{start}{name}.weight"] = whole[f"{start}{name}.weight"] + product(*pair)
    file = tmp_path / "whole.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, file)
    by_diffusers = diffusers.SD3Transformer2DModel.from_single_file(
        str(file), config=str(tmp_path / "base"), subfolder="transformer", local_files_only=True
    ).state_dict()
    found = changed_weights(tmp_path / "base", save_changes(tmp_path / "l.safetensors", changes))
    assert len(found) > len(changes) > 30
    for name, weight in found.items():
        torch.testing.assert_close(weight, by_diffusers[name], atol=1e-5, rtol=1e-5)


def test_every_original_module_of_flux_is_read(tmp_path):
    network = deep("flux", tmp_path / "base")
    whole = dict(flux_transformer(network.state_dict()))
    changes = original_changes(whole)
    file = save_changes(tmp_path / "l.safetensors", changes)
    state = {**network.state_dict(), **changed_weights(tmp_path / "base", file)}
    found = dict(flux_transformer(state))
    assert len(changes) > 25
    for name, pair in changes.items():
        expected = whole[f"{name}.weight"] + product(*pair)
        torch.testing.assert_close(found[f"{name}.weight"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("how", "is_sparse"), [("kohya", False), ("comfy", True)], ids=["kohya", "comfy, split ranks"]
)
def test_a_lora_on_flux_answers_as_diffusers_loads_it(how, is_sparse, tmp_path):
    network = deep("flux", tmp_path / "base")
    changes = original_changes(dict(flux_transformer(network.state_dict())))
    # Diffusers cuts linear1 at the published width, and leaves out what lies beside the blocks.
    changes = {n: c for n, c in changes.items() if "_blocks" in n and "linear1" not in n}
    if is_sparse:
        for name in [name for name in changes if name.endswith("qkv")]:
            up, down = (torch.cat([half] * 3, dim) for dim, half in enumerate(changes[name][::-1]))
            own = (
                torch.arange(len(down)) // (len(down) // 3)
                == torch.arange(3 * RANK)[:, None] // RANK
            )
            changes[name] = down * own.T, up
    pipe = diffusers.FluxPipeline.from_pretrained(tmp_path / "base")
    file = save_changes(tmp_path / "l.safetensors", changes, how)
    encoder = get_peft_model_state_dict(adapted(pipe.text_encoder, TEXT, 2))
    start = {
        "kohya": "lora_te1_text_model_",
        "comfy": "text_encoders.clip_l.transformer.text_model.",
    }
    tensors = load_file(file)
    for name, value in encoder.items():
        module, half = name.removesuffix(".weight").removeprefix("text_model.").rsplit(".", 1)
        module = start[how] + (module.replace(".", "_") if how == "kohya" else module)
        tensors[f"{module}.lora_{'down' if half == 'lora_A' else 'up'}.weight"] = value
    save_file(tensors, file)
    fused = diffusers.FluxPipeline.from_pretrained(tmp_path / "base")
    fused.load_lora_weights(str(file))
    fused.fuse_lora(components=["transformer", "text_encoder"])
    fused.unload_lora_weights()
    fused.save_pretrained(tmp_path / "fused")
    bare, found, expected = (
        answered(resolved(*named))
        for named in ((tmp_path / "base",), (tmp_path / "base", file), (tmp_path / "fused",))
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - bare).abs().max() > 1e-2


def answered(checkpoint):
    model = load_denoiser(checkpoint, batch_images=4)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, *model.latent_shape, generator=generator)
    return model.predict_noise(noisy, torch.tensor([100.0, 700.0]), ["a cat", "a dog on a mat"])


def test_kohyas_third_text_encoder_is_the_t5_of_flux(tmp_path):
    save_family("flux", tmp_path / "base")
    name = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    halves = {
        f"{name}.lora_down.weight": torch.ones(2, 32),
        f"{name}.lora_up.weight": torch.ones(16, 2),
    }
    save_file(halves, tmp_path / "l.safetensors")
    (one,) = resolved(tmp_path / "base", tmp_path / "l.safetensors").placed
    assert (one.weights.part, one.path) == (
        "text_encoder_2", "encoder.block.0.layer.0.SelfAttention.q",
    )  # fmt: skip


def test_an_original_name_of_another_transformer_says_who_reads_it(tmp_path):
    save_family("lumina2", tmp_path / "base")
    file = save_changes(
        tmp_path / "l.safetensors",
        {"layers.0.attention.qkv": (torch.ones(9, 2), torch.ones(2, 3))},
        "comfy",
    )
    with pytest.raises(
        InputError, match="names are those of the authors' own code, which raymia reads"
    ):
        resolved(tmp_path / "base", file)


def test_rows_of_another_height_are_refused_with_the_sum(tmp_path):
    save_family("flux", tmp_path / "base")
    qkv = {"double_blocks.0.img_attn.qkv": (torch.ones(95, 2), torch.ones(2, 32))}
    file = save_changes(tmp_path / "l.safetensors", qkv)
    with pytest.raises(
        InputError, match=r"matrices of \[95, 2\] and \[2, 32\] for a weight of \[96, 32\]"
    ):
        resolved(tmp_path / "base", file)
