"""How an image becomes noise, and what a network that goes back says of the noise in it.

Every path is x_t = signal x + sigma epsilon. It hides what the network was trained to predict, so
that every attack on the noise has one definition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from raymia.models.denoisers.schedules import FLOW, PREDICTIONS
from raymia.util.errors import InputError

Tensor = torch.Tensor


class Path(ABC):
    """A path from images to noise, in timesteps.

    Attributes
    ----------
    timesteps : how many there are.
    prediction : what the network predicts.
    first : where the noise in an image itself is asked for, a timestep or a share.
    """

    timesteps: int
    prediction: str
    first: ClassVar[float] = 0

    @abstractmethod
    def timestep(self, step: float) -> float:
        """What the network is told of a place that is given as a timestep, or as a share of the
        path, which is a number between 0 and 1 that is not whole."""

    @abstractmethod
    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and sigma, float32 [batch, 1, 1, 1]."""

    @abstractmethod
    def noise_in(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that a network sees in x_t by its output."""

    @abstractmethod
    def clean_in(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        """The image that a network sees in x_t by its output."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should have predicted of x_t."""

    @abstractmethod
    def residual(self, noise: Tensor, seen: Tensor, timesteps: Tensor) -> Tensor:
        """What the loss is taken of, from the noise that is in x_t and the noise that is seen."""

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t = signal x + sigma epsilon."""
        signal, sigma = self.coefficients(timesteps)
        return signal * clean + sigma * noise


class Diffusion(Path):
    """The path of DDPM: signal = sqrt(abar_t), sigma = sqrt(1 - abar_t) (Ho et al. 2020, eq. 4).

    Parameters
    ----------
    alphas_cumprod : abar, the cumulative product of 1 - beta, [timesteps].
    prediction : "epsilon", "v_prediction" or "sample".
    """

    def __init__(self, alphas_cumprod: Tensor, prediction: str) -> None:
        if prediction not in PREDICTIONS:
            raise InputError(
                f"a scheduler's prediction_type should be one of {', '.join(PREDICTIONS)}, but got "
                f"{prediction!r}"
            )
        self.alphas_cumprod = alphas_cumprod.to(torch.float64)
        self.timesteps = len(alphas_cumprod)
        self.prediction = prediction

    def timestep(self, step: float) -> int:
        if isinstance(step, int):
            return step
        return min(round(step * self.timesteps), self.timesteps - 1)

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        if self.alphas_cumprod.device != timesteps.device:
            self.alphas_cumprod = self.alphas_cumprod.to(timesteps.device)
        kept = self.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        return kept.sqrt().float(), (1 - kept).sqrt().float()

    def noise_in(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return output
        signal, sigma = self.coefficients(timesteps)
        if self.prediction == "v_prediction":  # v = signal * noise - sigma * clean
            return signal * output + sigma * noisy
        return (noisy - signal * output) / sigma

    def clean_in(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        """Nothing is divided by the signal but where noise is predicted: a schedule may end without
        one (Lin et al., 2024, section 3.1)."""
        if self.prediction == "sample":
            return output
        signal, sigma = self.coefficients(timesteps)
        if self.prediction == "v_prediction":
            return signal * noisy - sigma * output
        return (noisy - sigma * output) / signal

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """By ``prediction``. The velocity is v = sqrt(abar_t) epsilon - sqrt(1 - abar_t) x_0
        (Salimans and Ho, 2022, appendix D)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        signal, sigma = self.coefficients(timesteps)
        return signal * noise - sigma * clean

    def residual(self, noise: Tensor, seen: Tensor, timesteps: Tensor) -> Tensor:
        del timesteps
        return noise - seen


class Flow(Path):
    """The straight path of flow matching: x_s = (1 - s) x + s epsilon (Lipman et al. 2023; Liu et
    al. 2023), of which the network predicts the velocity v = epsilon - x.

    Timestep t is at the share s = t / timesteps; the network may be asked at any share. At s = 0
    there is no noise, and the best answer to where it is would be 0: the first place is where noise
    and signal are to each other as they are at DDPM's first timestep.
    """

    prediction = FLOW
    first = 0.01

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps

    def timestep(self, step: float) -> float:
        return float(step) if isinstance(step, int) else step * self.timesteps

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        share = (timesteps.double() / self.timesteps).float().reshape(-1, 1, 1, 1)
        return 1 - share, share

    def noise_in(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        signal, _ = self.coefficients(timesteps)
        return noisy + signal * output  # epsilon = x_s + (1 - s) v

    def clean_in(self, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        _, share = self.coefficients(timesteps)
        return noisy - share * output  # x = x_s - s v

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        del timesteps
        return noise - clean

    def residual(self, noise: Tensor, seen: Tensor, timesteps: Tensor) -> Tensor:
        """That of the velocity, which was trained: epsilon - seen = (1 - s) (v - output)."""
        signal, _ = self.coefficients(timesteps)
        return (noise - seen) / signal
