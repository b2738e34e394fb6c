"""The attack on the error of a step there and back after DDIM inversion."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import Filtered, mean_error, score_of_error
from raymia.evidence.image import ImageEvidence, ImageModelEvidence


@register
@dataclass(frozen=True)
class SecMi(Filtered):
    """The t-error of SecMI with its threshold statistic (Duan et al., ICML 2023).

    The record is taken to timestep t by deterministic DDIM inversion, phi takes it one step further
    and psi back. Divided by the number of elements, which orders records of one size as published.
    With a reference, the difference of the logarithms. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass.
    """

    name = "secmi"
    title = "SecMI, threshold"
    source = "Duan et al. 2023, arXiv 2302.01316"
    formula = "-||psi(phi(x_t, t), t) - x_t||^2, x_t by DDIM inversion"
    asks = ("inversion",)
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self._error, evidence)

    def _error(self, model: ImageModelEvidence) -> Scores:
        return mean_error(answered(model.inversion), "l2", low_pass=self.low_pass)
