"""raymia's own convolutional autoencoders: VAE, beta-VAE, WAE-MMD and RHVAE."""

from raymia.models.autoencoders.vae.config import (
    AutoencoderConfig,
    MmdConfig,
    RhvaeConfig,
    read_config,
)
from raymia.models.autoencoders.vae.files import build_autoencoder, load_vae
from raymia.models.autoencoders.vae.network import AutoencoderNetwork

__all__ = [
    "AutoencoderConfig",
    "AutoencoderNetwork",
    "MmdConfig",
    "RhvaeConfig",
    "build_autoencoder",
    "load_vae",
    "read_config",
]
