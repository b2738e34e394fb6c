"""DP-SGD for image models, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from raymia.prepare.private import (
    PoissonSamples,
    Privacy,
    add_gradients,
    check_gradients,
    each_apart,
    noise_of,
    plan_privacy,
    private_optimizer,
)
from raymia.prepare.training_loop import refuse_no_number
from raymia.spec.target_training import DpSpec
from raymia.util.errors import InputError


def plan_images(spec: DpSpec | None, images: int, batch: int, steps: int) -> Privacy | None:
    """The privacy of a training on images; None for one that is not private.

    Raises
    ------
    InputError
        If a step takes more images than there are, or the budget cannot be kept.
    """
    if spec is None:
        return None
    if batch > images:
        raise InputError(
            f"batch_size: a private step takes {batch:,} of {images:,} images on average; give "
            "more images, or a smaller batch_size"
        )
    return plan_privacy(spec, images, batch, steps)


class PrivateSteps:
    """The private steps of a network's training.

    Parameters
    ----------
    network : with what of it is trained, as a LoRA.
    optimizer : that takes the steps; its state is all there is to keep.
    images : that there are to train on.

    Raises
    ------
    InputError
        Naming the layers whose gradients of single images opacus does not find.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        privacy: Privacy,
        images: int,
        seed: int,
    ) -> None:
        self.network, self.privacy, self.seed = network, privacy, seed
        self.samples = PoissonSamples(images, privacy.sample_rate, privacy.steps, seed)
        self.optimizer = private_optimizer(optimizer, privacy)

    def check(self, losses: Callable[[Sequence[int]], torch.Tensor], instead: str) -> None:
        """Refuse a network of which opacus does not find each image's own gradients; see
        :func:`raymia.prepare.private.check_gradients`."""
        check_gradients(self.network, losses, f"a {type(self.network).__name__}", instead)

    def take(
        self, step: int, count: int, size: int, losses: Callable[[int, int], torch.Tensor]
    ) -> None:
        """Take a step.

        Parameters
        ----------
        count : images of the step.
        size : how many are computed at a time.
        losses : of the images from one place to another, [images].

        Raises
        ------
        RaymiaError
            If the loss is no number.
        """
        starts = range(0, count, size)
        pieces = (losses(start, min(start + size, count)) for start in starts)
        with each_apart(self.network):
            total = add_gradients(self.optimizer, pieces, len(starts))
            refuse_no_number(total, step + 1)
            device = next(self.network.parameters()).device
            self.optimizer.generator = noise_of(self.seed, step, device)
            self.optimizer.step()

    def spent(self, steps: int) -> dict[str, Any]:
        """What a checkpoint says of it."""
        spec = self.privacy.spec
        return {"privacy": {"epsilon": self.privacy.spent(steps), "delta": spec.delta}}
