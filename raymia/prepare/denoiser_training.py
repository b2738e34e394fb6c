"""The steps of training a diffusion model: each a function of the seed and the step's number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from raymia.prepare.captioned import Captioned
from raymia.prepare.denoiser_files import TrainableDenoiser
from raymia.prepare.private import Privacy
from raymia.prepare.private_images import PrivateSteps
from raymia.prepare.training_state import Weights
from raymia.spec.images import DiffusionTrainingSpec
from raymia.util.draws import generator, normals, stream_key, uniforms
from raymia.util.errors import InputError

MAX_GRADIENT = 1.0
"""Norm that gradients are cut to."""

DIVERGED = 1e3
"""A loss per element that no training comes back from."""

SMALLEST_CROP = 0.8
"""Share of the sides that a crop for augmentation keeps at least."""

MEASURED_TIMESTEPS = 4
"""Per image, of a mean loss."""

Images = npt.NDArray[np.uint8]
Tensor = torch.Tensor


class Training:
    """A network that is being trained.

    Parameters
    ----------
    images : in the order that the seed's draws refer to.
    privacy : of a private training.

    Attributes
    ----------
    step : optimizer steps taken.
    mean : the running mean of the weights, by parameter; None where none is kept.
    """

    unit: ClassVar[str] = "step"

    def __init__(
        self,
        images: Images | Captioned,
        model: TrainableDenoiser,
        settings: DiffusionTrainingSpec,
        seed: int,
        privacy: Privacy | None = None,
    ) -> None:
        self.images = Captioned.of(images)
        self.model, self.settings, self.seed = model, settings, seed
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            model.trained.parameters(),
            lr=settings.learning_rate,
            betas=(0.95, 0.999),
            weight_decay=1e-6,
        )
        self.mean: Weights | None = None
        if settings.ema is not None:
            parameters = model.trained.named_parameters()
            self.mean = {name: value.detach().clone() for name, value in parameters}
        self._epoch = -1
        self._order = np.zeros(0, dtype=np.int64)
        is_augmented = settings.flip or settings.crop
        has_latents = model.denoiser.autoencoder is not None
        self._latents = self._all_latents() if has_latents and not is_augmented else None
        self._private: PrivateSteps | None = None
        if privacy is not None:
            whole = model.network
            self._private = PrivateSteps(whole, self.optimizer, privacy, len(images), seed)
            self._private.check(
                self._first_losses,
                "take another network or method, or train without `dp`",
            )

    @property
    def network(self) -> torch.nn.Module:
        """What is trained of the network."""
        return self.model.trained

    @property
    def done(self) -> int:
        return self.step

    @property
    def total(self) -> int:
        return self.settings.steps

    @property
    def steps(self) -> int:
        return self.step

    def go_to(self, steps: int) -> None:
        self.step = steps

    def facts(self) -> dict[str, Any]:
        spent = {} if self._private is None else self._private.spent(self.step)
        return {"step": self.step, "prediction_type": self.model.denoiser.path.prediction, **spent}

    def advance(self) -> None:
        """Train on one batch."""
        network, denoiser = self.model.network, self.model.denoiser
        network.train()
        torch.manual_seed(stream_key(self.seed, "dropout", self.step))
        # Drawn on the CPU, so that a seed means the same on every device.
        draws = torch.Generator().manual_seed(stream_key(self.seed, "step", self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        if self._private is not None:
            self._advance_privately(self._private, draws)
        else:
            rows = self._rows()
            clean, noise, timesteps = self._drawn(self._batch(rows, draws), draws)
            noisy = denoiser.path.add_noise(clean, noise, timesteps)
            predicted = self.model(noisy, timesteps, self.images.captions_of(rows))
            loss = functional.mse_loss(predicted, denoiser.path.target(clean, noise, timesteps))
            refuse_divergence(float(loss.detach()), self.step + 1)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
            self.optimizer.step()
        self._update_mean()
        self.step += 1

    def _advance_privately(self, private: PrivateSteps, draws: torch.Generator) -> None:
        """Take a private step; gradients are cut image by image, and not once more as a whole."""
        rows = np.array(private.samples.of(self.step), dtype=np.int64)
        drawn = self._drawn(self._batch(rows, draws), draws) if len(rows) else ()

        def losses(start: int, end: int) -> Tensor:
            clean, noise, timesteps = (part[start:end] for part in drawn)
            return self._losses(clean, noise, timesteps, self.images.captions_of(rows[start:end]))

        private.take(self.step, len(rows), self.settings.batch_size, losses)

    def _drawn(self, clean: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images of a step with their noise and timesteps."""
        noise = torch.randn(clean.shape, generator=draws).to(clean.device)
        schedule = self.model.denoiser.path.timesteps
        if self.settings.timesteps == "uniform":
            timesteps = torch.randint(schedule, (len(clean),), generator=draws)
        else:  # Esser et al. (2024), section 3.1, with mean 0 and scale 1
            shares = torch.randn(len(clean), generator=draws).sigmoid()
            timesteps = (shares * schedule).long().clamp(max=schedule - 1)
        return clean, noise, timesteps.to(clean.device)

    def _losses(
        self, clean: Tensor, noise: Tensor, timesteps: Tensor, captions: Sequence[str] | None
    ) -> Tensor:
        """Mean squared error of each image, [images]."""
        path = self.model.denoiser.path
        predicted = self.model(path.add_noise(clean, noise, timesteps), timesteps, captions)
        error = predicted - path.target(clean, noise, timesteps)
        return error.square().flatten(1).mean(1)

    def _first_losses(self, numbers: Sequence[int]) -> Tensor:
        """Losses of the first two images, at draws that are always the same."""
        draws = torch.Generator().manual_seed(stream_key(self.seed, "private check"))
        rows = np.arange(2) % len(self.images)
        chosen = torch.tensor(list(numbers))
        clean, noise, timesteps = self._drawn(self._batch(rows, draws), draws)
        chosen = chosen.to(clean.device)
        captions = self.images.captions_of(rows[list(numbers)])
        return self._losses(clean[chosen], noise[chosen], timesteps[chosen], captions)

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """Put the running mean, where one is kept, in place of the weights for a while."""
        if self.mean is None:
            yield
            return
        parameters = dict(self.network.named_parameters())
        current = {name: value.detach().clone() for name, value in parameters.items()}
        _put(self.mean, parameters)
        try:
            yield
        finally:
            _put(current, parameters)

    @torch.no_grad()
    def loss_on(self, images: Images | Captioned) -> float:
        """Mean squared error per element over four timesteps of each image, one in each quarter.

        Timesteps and noise of the i-th image are a function of the seed and i: losses on members
        and held-out images, or at two steps, differ by the images and weights alone.
        """
        network, denoiser = self.model.network, self.model.denoiser
        network.eval()
        given, total = Captioned.of(images), 0.0
        for start in range(0, len(images), self.settings.batch_size):
            rows = range(start, min(start + self.settings.batch_size, len(images)))
            part = given[rows.start : rows.stop]
            clean = self._encode(part.pixels)
            for quarter in range(MEASURED_TIMESTEPS):
                keys = torch.tensor([stream_key(self.seed, "measure", i, quarter) for i in rows])
                shares = (quarter + uniforms(keys, 1, 1)[:, 0]) / MEASURED_TIMESTEPS
                timesteps = (shares * denoiser.path.timesteps).long().to(clean.device)
                noise = normals(keys, clean[0].numel()).reshape(clean.shape).to(clean.device)
                noisy = denoiser.path.add_noise(clean, noise, timesteps)
                predicted = self.model(noisy, timesteps, part.captions)
                wanted = denoiser.path.target(clean, noise, timesteps)
                total += float((predicted - wanted).square().flatten(1).mean(1).double().sum())
        return round(total / (len(images) * MEASURED_TIMESTEPS), 6)

    def _rows(self) -> npt.NDArray[np.int64]:
        """The images of the step."""
        first = self.step * self.settings.batch_size
        return np.array([self._row(first + n) for n in range(self.settings.batch_size)])

    def _batch(self, rows: npt.NDArray[np.int64], draws: torch.Generator) -> Tensor:
        """What the network sees of images, before noise."""
        if self._latents is not None:
            return self._latents[torch.from_numpy(rows)]
        images = torch.from_numpy(self.images.pixels[rows]).float() / 255
        if self.settings.flip:
            mirrored = torch.rand(len(images), generator=draws) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if self.settings.crop:
            images = _cropped(images, draws)
        return self.model.denoiser.encode(images).clone()  # no inference tensor

    def _row(self, place: int) -> int:
        """The image at a place in the sequence of all epochs."""
        epoch, within = divmod(place, len(self.images))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = generator(self.seed, "order", epoch).permutation(len(self.images))
        return int(self._order[within])

    def _encode(self, images: Images) -> Tensor:
        return self.model.denoiser.encode(torch.from_numpy(images).float() / 255).clone()

    def _all_latents(self) -> Tensor:
        size = self.settings.batch_size
        starts = range(0, len(self.images), size)
        pixels = self.images.pixels
        return torch.cat([self._encode(pixels[start : start + size]) for start in starts])

    @torch.no_grad()
    def _update_mean(self) -> None:
        """The decay grows with the steps, so that the first weights are soon forgotten."""
        if self.mean is None or self.settings.ema is None:
            return
        grown = (1 + self.step) / (10 + self.step) if self.step else 0.0
        decay = min(self.settings.ema, grown)
        for name, value in self.network.named_parameters():
            self.mean[name].lerp_(value, 1 - decay)


def refuse_divergence(loss: float, step: int) -> None:
    """Stop a training that has come apart.

    Raises
    ------
    InputError
        With the step, and what to try.
    """
    if not loss < DIVERGED:  # NaN is not, either
        raise InputError(
            f"step {step}: the training has diverged: its loss is {loss:.4g}, and that of a "
            "network that predicts nothing is about 1; give a smaller learning_rate, as a tenth, "
            "or a longer warmup, and train in another folder"
        )


def learning_rate(settings: DiffusionTrainingSpec, step: int) -> float:
    """The rate of a step, counted from 0: a linear rise, then half a cosine down to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    share = (step - settings.warmup) / (settings.steps - settings.warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * share)) / 2


@torch.no_grad()
def _put(values: Weights, parameters: dict[str, torch.nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _cropped(images: Tensor, draws: torch.Generator) -> Tensor:
    """Cut a part of random size out of each image at a random place, and scale it back."""
    count = len(images)
    share = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(count, generator=draws)
    shift = (2 * torch.rand(count, 2, generator=draws) - 1) * (1 - share)[:, None]
    zero = torch.zeros(count)
    affine = torch.stack(
        [
            torch.stack([share, zero, shift[:, 0]], dim=1),
            torch.stack([zero, share, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    places = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, padding_mode="border", align_corners=False)
