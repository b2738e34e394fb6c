"""Attacks that use the model's own prediction as noise, or look at it alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import Timed, mean_error, score_of_error, score_per_byte
from raymia.evidence.image import Grid, ImageEvidence, ImageModelEvidence


@dataclass(frozen=True)
class _Norm(Timed):
    """Base of attacks on the p-norm of a residual, which is taken to the power of p, as published,
    and divided by the number of elements."""

    p: int = 4

    needs = frozenset({"reference_if_given"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p not in (2, 4):
            raise ValueError(f"p should be 2 or 4, but got {self.p!r}")

    @abstractmethod
    def residual(self, model: ImageModelEvidence) -> Grid:
        """The answers that the attack looks at."""

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self._error, evidence)

    def _error(self, model: ImageModelEvidence) -> Scores:
        return mean_error(self.residual(model), f"l{self.p}", self.timestep, self.low_pass)


@register
@dataclass(frozen=True)
class Pia(_Norm):
    """Error at a timestep for the noise that the model sees in the record itself (Kong et al., ICLR
    2024).

    eps_0 = eps_theta(x, 0), x_t made from the record and eps_0. Averaged over timesteps, or one.
    With a reference, the difference of the logarithms. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass.
    timestep : one of those that the audit asks about; default: all.
    p : of the norm, 2 or 4.
    """

    name = "pia"
    title = "PIA"
    source = "Kong et al. 2024, arXiv 2305.18355"
    formula = "-||eps_0 - eps_theta(x_t, t)||_p^p, x_t from x and eps_0 = eps_theta(x, 0)"
    asks = ("proximal",)

    def residual(self, model: ImageModelEvidence) -> Grid:
        return answered(model.proximal)


@register
@dataclass(frozen=True)
class Pian(_Norm):
    """PIA with eps_0 scaled to the mean absolute value of standard normal noise (Kong et al.).

    With a reference, the difference of the logarithms. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass.
    timestep : one of those that the audit asks about; default: all.
    p : of the norm, 2 or 4.
    """

    name = "pian"
    title = "PIAN"
    source = "Kong et al. 2024, arXiv 2305.18355"
    formula = "as PIA, eps_0 = eps_theta(x, 0) sqrt(2 / pi) / mean |eps_theta(x, 0)|"
    asks = ("proximal_normalized",)

    def residual(self, model: ImageModelEvidence) -> Grid:
        return answered(model.proximal_normalized)


@register
@dataclass(frozen=True)
class SimA(_Norm):
    """Norm of the noise that the model sees in the record, to which none was added (2025).

    The published score is the norm itself, which orders records at one timestep in the same way.
    Averaged over timesteps, or one. With a reference, the difference of the logarithms. No score
    where a model has no answer.

    Parameters
    ----------
    low_pass : take the prediction after FreMIA's low-pass.
    timestep : one of those that the audit asks about; default: all.
    p : of the norm, 2 or 4.
    """

    name = "sima"
    title = "SimA"
    source = "Rao et al. 2025, arXiv 2509.25003"
    formula = "-||eps_theta(x, t)||_p^p"
    asks = ("clean",)

    def residual(self, model: ImageModelEvidence) -> Grid:
        return answered(model.clean)


@register
@dataclass(frozen=True)
class SimAMc(_Norm):
    """Norm of the noise that the model sees on average over noisy versions of the record (2025).

    The predicted noise is averaged over the draws before its norm is taken: what a draw adds goes,
    and what is left points away from what the model knows near the record. Each draw is used with
    its opposite, where the authors' are independent; then it is also the residual of the mean
    velocity of Rao and Moyer (2026), up to a factor at each timestep (docs/images.md), and with
    `per_byte` and p = 2 their statistic that is calibrated by the image's complexity. They too
    divide by the length of the compressed image; by which compression is not known here. Averaged
    over timesteps, or one. With a reference, the difference of the logarithms, or with `per_byte`
    of the norms. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the prediction after FreMIA's low-pass.
    timestep : one of those that the audit asks about; default: all.
    p : of the norm, 2 or 4.
    per_byte : divide by the size of the image's channels as gray PNG files, as `loss_per_byte`.
    """

    per_byte: bool = False

    name = "sima_mc"
    title = "SimA, Monte Carlo"
    source = "after Rao et al. 2025, arXiv 2509.25003; Rao and Moyer 2026, arXiv 2603.13421"
    formula = (
        "-||mean_eps eps_theta(x_t, t)||_p^p, draws in pairs of eps and -eps; per_byte over "
        "bytes(PNG(x))"
    )
    asks = ("averaged",)

    def residual(self, model: ImageModelEvidence) -> Grid:
        return answered(model.averaged)

    def score(self, evidence: ImageEvidence) -> Scores:
        if self.per_byte:
            return score_per_byte(self._error, evidence)
        return super().score(evidence)
