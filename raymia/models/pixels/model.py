"""Models that predict an image pixel by pixel: ImageGPT (Chen et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from raymia.models.batching import run_on_images
from raymia.models.denoisers.model import DTYPES
from raymia.models.lanes import Twins, lanes_here
from raymia.models.pixels.resolver import PixelCheckpoint, read_palette
from raymia.models.whole_weights import load_whole
from raymia.spec.images import Shape

Tensor = torch.Tensor
Answer = TypeVar("Answer")


class PixelModel:
    """An ImageGPT: each pixel is a color of a palette, predicted from the pixels before it.

    Parameters
    ----------
    model : transformers' ImageGPTForCausalImageModeling; its last token starts an image.
    palette : float32 [colors, 3], in [-1, 1].
    shape : 3, height and width of the images.
    batch_images : largest number of images per forward pass.
    """

    def __init__(self, model: Any, palette: Tensor, shape: Shape, batch_images: int) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.palette = palette.to(self.device)
        self.shape = shape
        self.batch_images = batch_images
        self._twins = Twins(model)

    def run(
        self, count: int, run: Callable[[PixelModel, list[int]], Sequence[Answer]]
    ) -> list[Answer]:
        """Run a function over micro-batches of images; see :func:`run_on_images`.

        Parameters
        ----------
        run : from a model, which is this one or a twin of it, and a batch to its answers.
        """
        return run_on_images(
            count, *(partial(run, model) for model in self._lanes()), budget=self.batch_images
        )

    def _lanes(self) -> list[PixelModel]:
        """This model for each batch that is run side by side, with its share of the memory."""
        lanes, _ = lanes_here()
        copies = self._twins.of(lanes) if lanes > 1 else []
        share = max(1, self.batch_images // lanes)
        return [PixelModel(one, self.palette, self.shape, share) for one in copies] or [self]

    def tokens(self, images: Tensor) -> Tensor:
        """The color of each pixel, row by row: int64 [batch, height * width]."""
        pixels = (images.to(self.device) * 2 - 1).permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cdist(pixels, self.palette.expand(len(pixels), -1, -1)).argmin(-1)

    @torch.inference_mode()
    def loss(self, images: Tensor) -> Tensor:
        """Mean negative log-likelihood per pixel, in nats, float32 [batch].

        Parameters
        ----------
        images : float32 [batch, 3, height, width] in [0, 1].
        """
        if self.model.training:
            raise RuntimeError("a model is scored in evaluation mode")
        tokens = self.tokens(images)
        start = torch.full_like(tokens[:, :1], self.model.config.vocab_size - 1)
        logits = self.model(input_ids=torch.cat([start, tokens[:, :-1]], dim=1)).logits.float()
        found: Tensor = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        return -found.mean(dim=1)


def load_pixel_model(checkpoint: PixelCheckpoint, *, batch_images: int) -> PixelModel:
    """Load an ImageGPT's folder, with the palette from its preprocessor_config.json.

    Raises
    ------
    InputError
        If the palette is missing, or tensors of the weights are.
    """
    from transformers import ImageGPTForCausalImageModeling

    palette = read_palette(Path(checkpoint.path), checkpoint.path)
    model = load_whole(
        ImageGPTForCausalImageModeling, checkpoint.path, dtype=DTYPES[checkpoint.dtype]
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return PixelModel(
        model.to(device).eval(),
        torch.tensor(palette, dtype=torch.float32),
        checkpoint.shape,
        batch_images,
    )
