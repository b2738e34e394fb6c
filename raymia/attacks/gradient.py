"""Attacks on what the target would still learn from the record."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class GradNorm(Attack):
    """Minus the norm of the loss's gradient, averaged over the parameter tensors (Wang et al.,
    2024).

    A pass backward through the weights for each record, so it needs the weights in a precision
    that has gradients. No score without a scored token.

    Parameters
    ----------
    norm : "inf" for the largest entry, as in the benchmark MIMIR, or "2".
    """

    norm: str = "inf"

    name = "grad_norm"
    title = "GradNorm"
    source = "Wang et al. 2024, arXiv 2402.17012"
    formula = "-mean over parameters of the norm of the gradient of -mean_t log p(x_t | x_<t)"
    asks = ("gradient",)

    def __post_init__(self) -> None:
        if str(self.norm) not in ("inf", "2"):
            raise ValueError(f"norm should be 'inf' or '2', but got {self.norm!r}")

    def score(self, evidence: TextEvidence) -> Scores:
        norms = answered(evidence.target.gradient)
        return -(norms.largest if str(self.norm) == "inf" else norms.l2)
