"""Small autoencoders whose normalization has seen data, and images for them."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL

from raymia.models.autoencoders.kl import KlAutoencoder
from raymia.models.autoencoders.vae import AutoencoderConfig, build_autoencoder
from raymia.util.draws import normals, stream_key

OBJECTIVES = ("vae", "beta_vae", "wae_mmd", "rhvae")


def small_config(objective="vae", **settings):
    chosen = {"image_shape": (3, 10, 14), "latent": 5, "channels": (6, 8), **settings}
    if objective == "beta_vae":
        chosen.setdefault("beta", 4.0)
    return AutoencoderConfig(objective=objective, **chosen)


def small_autoencoder(objective="vae", **settings):
    """A random network in eval mode, with running statistics of some batches."""
    torch.manual_seed(0)
    network = build_autoencoder(small_config(objective, **settings))
    seen = pictures(40, network.image_shape, seed=99)
    with torch.no_grad():
        for batch in seen.split(8):
            network.decode(network.posterior(batch)[0])
    network.eval().requires_grad_(False)
    network.finish(seen)
    return network


def small_kl_autoencoder():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=2,
        sample_size=8,
    )
    return KlAutoencoder(vae).eval().requires_grad_(False)


def pictures(count, shape, seed=0):
    """Smooth random images, float32 [count, *shape] in [0, 1]."""
    made = np.random.default_rng(seed).random((count, shape[0], 4, 4), dtype=np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(made), shape[1:], mode="bilinear")


def draws_of(count, draws, size):
    keys = torch.tensor([stream_key("test", i) for i in range(count)])
    return normals(keys, draws * size).reshape(count, draws, size)
