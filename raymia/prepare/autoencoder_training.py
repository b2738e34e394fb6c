"""The epochs of training an autoencoder: each a function of the seed and the epoch's number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.autoencoders.model import Autoencoder
from raymia.models.autoencoders.vae import AutoencoderNetwork
from raymia.prepare.private import Privacy
from raymia.prepare.private_images import PrivateSteps
from raymia.prepare.training_loop import refuse_no_number
from raymia.prepare.training_state import Weights
from raymia.spec.images import AutoencoderTrainingSpec
from raymia.util.draws import generator, normals, stream_key

MEASURING_DRAWS = 4
"""Latent draws per image, of a mean loss."""

Images = npt.NDArray[np.uint8]


def steps_per_epoch(images: int, settings: AutoencoderTrainingSpec) -> int:
    """Steps of the optimizer for one pass over the images."""
    return -(-images // settings.batch_size)


class Training:
    """A network that is being trained.

    Adam with a constant learning rate, in float32, on the GPU where there is one.

    Parameters
    ----------
    images : uint8 [count, channels, height, width], two or more.
    privacy : of a private training; an epoch is then as many steps as one pass over the images has.

    Attributes
    ----------
    epoch : epochs that are behind it.
    steps_per_epoch : optimizer steps.
    """

    unit: ClassVar[str] = "epoch"
    mean: Weights | None = None

    def __init__(
        self,
        images: Images,
        network: AutoencoderNetwork,
        settings: AutoencoderTrainingSpec,
        seed: int,
        privacy: Privacy | None = None,
    ) -> None:
        self.images, self.settings, self.seed = images, settings, seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).train()
        self.epoch = 0
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=0.0
        )
        self.steps_per_epoch = steps_per_epoch(len(images), settings)
        self._private: PrivateSteps | None = None
        if privacy is not None:
            self._private = PrivateSteps(self.network, self.optimizer, privacy, len(images), seed)
            self._private.check(
                self._first_losses, "take `--normalization group`, or train without `dp`"
            )

    @property
    def done(self) -> int:
        return self.epoch

    @property
    def total(self) -> int:
        return self.settings.epochs

    @property
    def steps(self) -> int:
        return self.epoch * self.steps_per_epoch

    def go_to(self, steps: int) -> None:
        self.epoch = steps // self.steps_per_epoch

    def facts(self) -> dict[str, Any]:
        spent = {} if self._private is None else self._private.spent(self.steps)
        return {"epoch": self.epoch, "steps": self.steps, **spent}

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """Finish the network, and put it back in training mode afterwards."""
        self.finish()
        yield
        self.network.train()

    def advance(self) -> None:
        """Train on every image once.

        Batches are of equal size, give or take one: a batch of a single image has no statistics.

        Raises
        ------
        RaymiaError
            If the loss is no longer finite.
        """
        self.network.train()
        if self._private is not None:
            self._advance_privately(self._private)
            return
        order = generator(self.seed, "order", self.epoch).permutation(len(self.images))
        # Drawn on the CPU, so that a seed means the same on every device.
        random = torch.Generator().manual_seed(stream_key(self.seed, "noise", self.epoch))
        for number, rows in enumerate(np.array_split(order, self.steps_per_epoch), 1):
            loss = self.network.training_loss(self._tensor(self.images[rows]), random)
            refuse_no_number(loss, self.steps + number)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self.epoch += 1

    def _advance_privately(self, private: PrivateSteps) -> None:
        """Take as many private steps as an epoch has."""
        for step in range(self.steps, self.steps + self.steps_per_epoch):
            rows = private.samples.of(step)
            random = torch.Generator().manual_seed(stream_key(self.seed, "noise of a step", step))
            noise = torch.randn((len(rows), self.network.noise_size), generator=random)
            self._step_privately(private, step, rows, noise.to(self.device))
        self.epoch += 1

    def _step_privately(
        self, private: PrivateSteps, step: int, rows: Sequence[int], noise: torch.Tensor
    ) -> None:
        def losses(start: int, end: int) -> torch.Tensor:
            images = self._tensor(self.images[rows[start:end]])
            return self.network.losses(images, noise[start:end])

        private.take(step, len(rows), self.settings.batch_size, losses)

    def _first_losses(self, numbers: Sequence[int]) -> torch.Tensor:
        """Losses of the first two images, at noise that is always the same."""
        random = torch.Generator().manual_seed(stream_key(self.seed, "private check"))
        noise = torch.randn((2, self.network.noise_size), generator=random).to(self.device)
        chosen = list(numbers)
        return self.network.losses(self._tensor(self.images[chosen]), noise[chosen])

    def finish(self) -> None:
        """Put the network in eval mode, with what it keeps of the images it was trained on."""
        self.network.eval()
        if not self.network.kept_images:
            return
        shuffled = generator(self.seed, "kept").permutation(len(self.images))
        kept = shuffled[: self.network.kept_images]
        self.network.finish(self._tensor(self.images[kept]))

    def loss_on(self, images: Images) -> float:
        """Mean loss per image, in nats, as an audit asks for it; of a finished network.

        Latent draws of the i-th image are a function of the seed and i: losses on members and
        held-out images, or at two epochs, differ by the images and weights alone.
        """
        size = self.network.noise_size
        keys = torch.tensor([stream_key(self.seed, "measure", i) for i in range(len(images))])
        noise = normals(keys, MEASURING_DRAWS * size).reshape(len(images), MEASURING_DRAWS, size)
        model = Autoencoder(self.network, batch_images=self.settings.batch_size)
        loss = model.terms(self._tensor(images), noise)["loss"]
        return round(float(loss.double().mean()), 4)

    def _tensor(self, images: Images) -> torch.Tensor:
        return torch.from_numpy(images).to(self.device).float() / 255
