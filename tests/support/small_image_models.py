"""Small diffusers pipelines of every architecture, randomly initialized, saved to folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

VOCABULARY = [
    "<|startoftext|>",
    "<|endoftext|>",
    "a</w>",
    "cat</w>",
    "dog</w>",
    "on</w>",
    "mat</w>",
]


@dataclass(frozen=True)
class SavedPipeline:
    """A pipeline as diffusers holds it, and its network's own answer."""

    pipeline: Any
    expected_noise: Callable[[torch.Tensor, torch.Tensor, list[str] | None], torch.Tensor]


def plain_latents(pipeline: Any, images: torch.Tensor) -> torch.Tensor:
    """What a pipeline's network is trained on, of images in [0, 1], by calls of diffusers."""
    vae, (scale, shift) = _autoencoder(pipeline)
    if vae is None:
        return 2 * images - 1
    with torch.inference_mode():
        found = vae.encode(2 * images - 1, return_dict=False)[0]
    latents = found if isinstance(found, torch.Tensor) else found.mode()
    return (latents - shift) * scale


def plain_images(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    """The images in [0, 1] that a pipeline's own decoding makes of latents."""
    vae, (scale, shift) = _autoencoder(pipeline)
    with torch.inference_mode():
        images = latents if vae is None else vae.decode(latents / scale + shift).sample
    return (images / 2 + 0.5).clamp(0, 1)


def _autoencoder(pipeline: Any) -> tuple[Any, tuple[float, float]]:
    """Of a pipeline that has one, with the scale and the shift of its latents."""
    vae = getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
    config = {} if vae is None else vae.config
    return vae, (config.get("scaling_factor", 1.0), config.get("shift_factor") or 0.0)


def unet(channels: int = 1, size: int = 16, seed: int = 0) -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def save_with_classes(folder: Path, count: int) -> Any:
    """Save a DDPM that is told one of so many classes; its network."""
    import diffusers

    config = {key: value for key, value in unet().config.items() if not key.startswith("_")}
    network = diffusers.UNet2DModel(**{**config, "num_class_embeds": count}).eval()
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(folder)
    return network


def save_pipeline(kind: str, folder: Path) -> SavedPipeline:
    """Save a pipeline of a kind: ddpm, ddim, pndm, ldm, stable, stable_2 or dit."""
    import diffusers

    torch.manual_seed(1)
    with torch.inference_mode():
        if kind in ("ddpm", "ddim", "pndm"):
            network = unet()
            name = kind.upper()
            scheduler = getattr(diffusers, f"{name}Scheduler")()
            made = diffusers.DDPMPipeline(network, scheduler)
            answer = _plain(network)
        elif kind == "ldm":
            network = unet(channels=4, size=8)
            vq = diffusers.VQModel(
                in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, num_vq_embeddings=16,
                vq_embed_dim=4,
            ).eval()  # fmt: skip
            made = diffusers.LDMPipeline(vq, network, diffusers.DDIMScheduler())
            answer = _plain(network)
        elif kind in ("stable", "stable_2"):
            made, answer = _stable(folder, predicts_v=kind == "stable_2")
        else:
            made, answer = _dit()
        made.save_pretrained(folder)
    return SavedPipeline(made, answer)


def _plain(network: Any) -> Callable[..., torch.Tensor]:
    @torch.inference_mode()
    def answer(noisy: torch.Tensor, timesteps: torch.Tensor, _: Any) -> torch.Tensor:
        return network(noisy, timesteps).sample

    return answer


def _kl() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, sample_size=16, scaling_factor=0.5,
    ).eval()  # fmt: skip


def _stable(folder: Path, *, predicts_v: bool) -> tuple[Any, Callable[..., torch.Tensor]]:
    import json

    from diffusers import (
        DDIMScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = folder / "words"
    words.mkdir(parents=True, exist_ok=True)
    (words / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(VOCABULARY)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), unk_token="<|endoftext|>",
        bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        model_max_length=12,
    )  # fmt: skip
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(VOCABULARY), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=12, bos_token_id=0, eos_token_id=1,
            pad_token_id=1,
        )
    ).eval()  # fmt: skip
    network = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(64, 64), norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=16, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=predicts_v,
    ).eval()  # fmt: skip
    scheduler = PNDMScheduler(skip_prk_steps=True, steps_offset=1)
    if predicts_v:
        scheduler = DDIMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear")
    pipeline = StableDiffusionPipeline(
        vae=_kl(), text_encoder=encoder, tokenizer=tokenizer, unet=network, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip

    @torch.inference_mode()
    def answer(noisy: torch.Tensor, timesteps: torch.Tensor, captions: Any) -> torch.Tensor:
        states, _ = pipeline.encode_prompt(captions, "cpu", 1, do_classifier_free_guidance=False)
        output = network(noisy, timesteps, encoder_hidden_states=states).sample
        kept = scheduler.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        return kept.sqrt() * output + (1 - kept).sqrt() * noisy if predicts_v else output

    return pipeline, answer


def _dit() -> tuple[Any, Callable[..., torch.Tensor]]:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
        sample_size=8, patch_size=2, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    pipeline = DiTPipeline(transformer=network, vae=_kl(), scheduler=DDIMScheduler())

    @torch.inference_mode()
    def answer(noisy: torch.Tensor, timesteps: torch.Tensor, _: Any) -> torch.Tensor:
        none = torch.full((len(noisy),), 10)
        return network(noisy, timesteps, class_labels=none).sample[:, :4]

    return pipeline, answer


def save_model(kind: str, folder: Path) -> int:
    """Save any image model, and return the side of the images it takes."""
    import json

    if kind == "autoencoder_kl":
        _kl().save_pretrained(folder)
        return 16
    if kind == "imagegpt":
        from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

        config = ImageGPTConfig(vocab_size=9, n_positions=64, n_embd=16, n_layer=1, n_head=2)
        ImageGPTForCausalImageModeling(config).save_pretrained(folder)
        palette = [[r, g, b] for r in (-1, 1) for g in (-1, 1) for b in (-1, 1)]
        (folder / "preprocessor_config.json").write_text(json.dumps({"clusters": palette}))
        return 8
    save_pipeline(kind, folder)
    return 16
