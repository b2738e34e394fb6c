"""Checks and rates of networks of diffusion and flow models on one device."""

from __future__ import annotations

from functools import partial

import torch

from gpu_checks.parts import Found, Part, Setting, peak_memory, rounded, seconds_of
from gpu_checks.shapes import image_networks

IMAGES = 8
"""Per forward pass."""


def image_parts() -> list[Part]:
    return [Part(name, 1.0, partial(measure, name)) for name in image_networks(is_tiny=True)]


@torch.inference_mode()
def measure(name: str, setting: Setting) -> Found:
    """Passes per second in bfloat16, one image against float32, and memory."""
    device = setting.device
    torch.manual_seed(0)
    with torch.device(device):
        network, inputs = image_networks(is_tiny=setting.is_tiny)[name]()
    network = network.to(device).eval()
    right = network(**inputs(1, device, torch.float32)).sample
    network = network.to(torch.bfloat16)
    gap = (network(**inputs(1, device, torch.bfloat16)).sample.float() - right).abs()
    count = 2 if setting.is_tiny else IMAGES
    given = inputs(count, device, torch.bfloat16)
    seconds = seconds_of(lambda: network(**given), device)
    return rounded(
        {
            "passes/s": count / seconds,
            "from float32, mean share of the output's size": float(
                gap.mean() / right.abs().mean().clamp_min(1e-12)
            ),
            "GiB, at most": peak_memory(device),
        }
    )
