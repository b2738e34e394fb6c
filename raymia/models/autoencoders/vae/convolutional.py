"""Convolutional encoder and decoder, and what the autoencoders made of them share."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from raymia.models.autoencoders.vae.config import CONFIG_FILE, AutoencoderConfig
from raymia.models.autoencoders.vae.network import AutoencoderNetwork
from raymia.storage.files import Folder

WEIGHTS_FILE = "model.safetensors"


class Encoder(nn.Module):
    """Images to ``outputs`` numbers each."""

    def __init__(self, config: AutoencoderConfig, outputs: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for before, after in pairwise((config.image_shape[0], *config.channels)):
            stages += [
                nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1),
                *_normalization(config, after),
                nn.ReLU(),
            ]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(config.channels[-1] * math.prod(config.sizes[-1]), outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        numbers: torch.Tensor = self.head(self.stages(images).flatten(1))
        return numbers


class Decoder(nn.Module):
    """Latent vectors to images in [0, 1]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.start = (config.channels[-1], *config.sizes[-1])
        self.head = nn.Linear(config.latent, math.prod(self.start))
        stages: list[nn.Module] = [*_normalization(config, config.channels[-1]), nn.ReLU()]
        channels = pairwise((*config.channels[::-1], config.image_shape[0]))
        sizes = pairwise(config.sizes[::-1])
        for (before, after), ((low, narrow), (high, wide)) in zip(channels, sizes, strict=True):
            # A side that was halved with a remainder of one gets it back.
            remainder = (high - 2 * low, wide - 2 * narrow)
            stages += [
                nn.ConvTranspose2d(
                    before, after, kernel_size=4, stride=2, padding=1, output_padding=remainder
                ),
                *_normalization(config, after),
                nn.ReLU(),
            ]
        del stages[-2 if config.normalization != "none" else -1 :]
        self.stages = nn.Sequential(*stages, nn.Sigmoid())

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.stages(self.head(latents).unflatten(1, self.start))
        return images


def _normalization(config: AutoencoderConfig, channels: int) -> list[nn.Module]:
    if config.normalization == "batch":
        return [nn.BatchNorm2d(channels)]
    if config.normalization == "group":
        return [nn.GroupNorm(math.gcd(8, channels), channels)]
    return []


class ConvolutionalAutoencoder(AutoencoderNetwork):
    """Base of raymia's own autoencoders.

    Parameters
    ----------
    config : networks and objective.
    outputs : of the encoder, per image.
    """

    def __init__(self, config: AutoencoderConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.image_shape = config.image_shape
        self.latent_shape = (config.latent,)
        self.encoder = Encoder(config, outputs)
        self.decoder = Decoder(config)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The encoder's outputs in float32, whatever its weights are in; [images, outputs]."""
        outputs: torch.Tensor = self.encoder(images.to(self._dtype))
        return outputs.float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.decoder(latents.to(self._dtype))
        return images.float()

    @property
    def _dtype(self) -> torch.dtype:
        return self.decoder.head.weight.dtype

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute encoder and decoder in a precision; what else there is stays in float32."""
        self.encoder.to(dtype)
        self.decoder.to(dtype)

    def put_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take weights and buffers by name; what is missing or left over is an error."""
        self.load_state_dict(tensors)

    def save(self, folder: Path) -> None:
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        out = Folder(str(folder))
        out.write(WEIGHTS_FILE, safetensors.torch.save(tensors))
        out.write(CONFIG_FILE, self.config.to_json().encode())
