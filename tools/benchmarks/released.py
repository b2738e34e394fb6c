"""PFAMI_Met in the way that its authors' code computes it, to be timed beside raymia's.

What is kept of that way is what it costs: one network call per batch, neighbor and timestep, fresh
noise for each, losses with their graph for gradients, and ten strengths evaluated of which the
score uses one. What was wrong in it is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate

BATCH = 100
TIMESTEPS = tuple(range(0, 500, 50))
STRENGTHS = tuple(torch.linspace(0.95, 0.70, 10).tolist())
USED = 5
CALLS = (1 + len(STRENGTHS)) * len(TIMESTEPS)
"""Calls of the network per batch: the records and ten neighbors, at ten timesteps."""

Tensor = torch.Tensor


def released_scores(network: Any, alphas_cumprod: Tensor, images: Tensor) -> Tensor:
    """Mean relative change of the loss from a record to its crop.

    Parameters
    ----------
    network : diffusers' UNet2DModel that predicts the noise.
    alphas_cumprod : of the noise schedule, on the network's device.
    images : float32 [n, channels, height, width] in [-1, 1], on the network's device.

    Returns
    -------
    float32 [n], higher for members.
    """
    scores = []
    for batch in torch.split(images, BATCH):
        losses = torch.stack(
            [
                torch.stack([_loss(network, alphas_cumprod, made, t) for t in TIMESTEPS])
                for made in (batch, *(_crop(batch, share) for share in STRENGTHS))
            ]
        )
        own, around = losses[0], losses[1:]
        changes = (around - own) / own
        scores.append(changes[USED].mean(0))
    return torch.cat(scores)


def _loss(network: Any, alphas_cumprod: Tensor, images: Tensor, t: int) -> Tensor:
    """The squared error of the predicted noise, per image; gradients are tracked, for nothing."""
    noise = torch.randn_like(images)
    kept = alphas_cumprod[t].to(images.dtype)
    noisy = kept.sqrt() * images + (1 - kept).sqrt() * noise
    timestep = torch.tensor(t, device=images.device)
    predicted: Tensor = network(noisy, timestep).sample
    return (predicted - noise).square().flatten(1).mean(1).detach().cpu()


def _crop(images: Tensor, share: float) -> Tensor:
    """The center, a whole number of pixels wide, scaled back."""
    height, width = images.shape[-2:]
    rows, columns = int(height * share), int(width * share)
    top, left = (height - rows) // 2, (width - columns) // 2
    center = images[..., top : top + rows, left : left + columns]
    return interpolate(center, size=(height, width), mode="bilinear", align_corners=False)
