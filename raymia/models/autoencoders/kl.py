"""diffusers' AutoencoderKL, as an autoencoder that is asked for the terms of its ELBO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raymia.models.autoencoders.vae.network import (
    AutoencoderNetwork,
    Posterior,
    normal_divergence,
    squared_error,
)
from raymia.models.source import read_json
from raymia.models.whole_weights import load_whole
from raymia.util.errors import InputError
from raymia.util.optional import require


class KlAutoencoder(AutoencoderNetwork):
    """A loss of ||x - dec(z)||^2 + KL(q(z|x) || N(0, I)), on images in [-1, 1]; z is a map.

    Published checkpoints were trained with further losses (perceptual, adversarial) and a small
    weight on the divergence, none of which a checkpoint says; reconstruction and divergence stand
    apart in the evidence.

    Parameters
    ----------
    vae : the AutoencoderKL.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        config = vae.config
        side, scale = int(config.sample_size), 2 ** (len(config.block_out_channels) - 1)
        self.image_shape = (int(config.in_channels), side, side)
        self.latent_shape = (int(config.latent_channels), side // scale, side // scale)
        self.noise_size = self.latent_size

    def posterior(self, images: torch.Tensor) -> Posterior:
        """Mean and log-variance, [images, *latent_shape] each."""
        found = self.vae.encode((2 * images - 1).to(self.vae.dtype)).latent_dist
        return found.mean.float(), found.logvar.float()

    def terms(
        self, images: torch.Tensor, posterior: Posterior, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = posterior
        latents = mean + (0.5 * log_variance).exp() * noise.reshape(mean.shape)
        error = squared_error(2 * images - 1, self._decode(latents))
        return error, normal_divergence(mean, log_variance)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return (self._decode(latents) / 2 + 0.5).clamp(0, 1)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.vae.decode(latents.to(self.vae.dtype)).sample
        return images.float()

    def save(self, folder: Path) -> None:
        self.vae.save_pretrained(folder)


def load_kl_autoencoder(
    folder: Path, dtype: torch.dtype, variant: str | None = None
) -> KlAutoencoder:
    """Load an AutoencoderKL; in eval mode, on the CPU, its weights not to be trained.

    Raises
    ------
    InputError
        If diffusers cannot load it, or tensors of the weights are missing.
    """
    require("diffusers", "models of the class AutoencoderKL")
    from diffusers import AutoencoderKL

    named = {} if variant is None else {"variant": variant}
    try:
        vae = load_whole(AutoencoderKL, folder, torch_dtype=dtype, local_files_only=True, **named)
    except InputError:
        raise
    except Exception as error:  # diffusers, safetensors and torch each raise their own
        raise InputError(f"{folder}: cannot be loaded as an AutoencoderKL: {error}") from error
    if vae.config.force_upcast and dtype == torch.float16:
        vae.to(torch.float32)  # its config says that it overflows in float16
    return KlAutoencoder(vae).eval().requires_grad_(False)


def build_kl_autoencoder(folder: Path) -> KlAutoencoder:
    """Make an AutoencoderKL of a checkpoint's config with random weights; in training mode."""
    require("diffusers", "models of the class AutoencoderKL")
    from diffusers import AutoencoderKL

    config = read_json(folder / "config.json")
    return KlAutoencoder(AutoencoderKL.from_config(config)).train()
