"""Building an autoencoder of raymia's own from its config, and loading one."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from raymia.models.autoencoders.vae.config import AutoencoderConfig, read_config
from raymia.models.autoencoders.vae.convolutional import WEIGHTS_FILE, ConvolutionalAutoencoder
from raymia.models.autoencoders.vae.riemannian import RiemannianAutoencoder
from raymia.models.autoencoders.vae.variational import VariationalAutoencoder
from raymia.models.autoencoders.vae.wasserstein import WassersteinAutoencoder
from raymia.util.errors import InputError


def build_autoencoder(config: AutoencoderConfig) -> ConvolutionalAutoencoder:
    """Make an autoencoder with random weights, drawn by torch's own generator; in training mode."""
    if config.objective == "wae_mmd":
        return WassersteinAutoencoder(config)
    if config.objective == "rhvae":
        return RiemannianAutoencoder(config)
    return VariationalAutoencoder(config)


def load_vae(folder: Path) -> ConvolutionalAutoencoder:
    """Load an autoencoder that :meth:`ConvolutionalAutoencoder.save` wrote; in eval mode, on the
    CPU, its weights not to be trained.

    Raises
    ------
    InputError
        If config or weights are missing or damaged, or do not fit each other.
    """
    model = build_autoencoder(read_config(folder))
    file = folder / WEIGHTS_FILE
    try:
        model.put_tensors(safetensors.torch.load_file(file))
    except FileNotFoundError:
        raise InputError(f"{folder} has no {WEIGHTS_FILE}, the model's weights") from None
    except SafetensorError as error:
        raise InputError(f"{file} is no readable safetensors file: {error}") from None
    except RuntimeError as error:
        raise InputError(f"{file} does not fit the config.json beside it: {error}") from None
    return model.eval().requires_grad_(False)
