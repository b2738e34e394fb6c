"""Attacks that compare the record with its neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import (
    MIN_VARIANCE,
    Attack,
    InSpace,
    Scores,
    answered,
    mean_of_present,
    register,
)
from raymia.evidence.text import ModelEvidence, TextEvidence


@register
@dataclass(frozen=True)
class Neighbor(InSpace):
    """Loss of the neighbors, on average, minus loss of the record (Mattern et al., ACL 2023).

    The average is over the neighbors that could be made; no score where there is none.

    Parameters
    ----------
    space : "log" as published, or "probability", which is SPV-MIA's variation without its
        reference.
    """

    name = "neighbor"
    title = "Neighbor"
    source = "Mattern et al. 2023, arXiv 2305.18462"
    formula = "log p(x) - mean_n log p(x~_n), log p per token"
    asks = ("tokens", "neighbors")

    def score(self, evidence: TextEvidence) -> Scores:
        return -variation(self, evidence.target, answered(evidence.target.neighbors).mean_log_prob)


@register
@dataclass(frozen=True)
class DetectGpt(Attack):
    """What `neighbor` measures, in standard deviations of the neighbors (Mitchell et al., 2023).

    The standard deviation is the paper's, over one less than the number of neighbors that could be
    made (the released code divides by that number). It is at least 1e-3, so that neighbors that
    are all one text give a large score and no infinity. No score with fewer than two neighbors.
    """

    name = "detect_gpt"
    title = "DetectGPT"
    source = "Mitchell et al. 2023, arXiv 2301.11305"
    formula = "[log p(x) - mean_n log p(x~_n)] / std_n log p(x~_n), log p per token"
    asks = ("tokens", "neighbors")

    def score(self, evidence: TextEvidence) -> Scores:
        neighbors = answered(evidence.target.neighbors).mean_log_prob
        counts = (~np.isnan(neighbors)).sum(axis=1)
        mean = mean_of_present(neighbors)
        variance = mean_of_present((neighbors - mean[:, None]) ** 2)  # over the count
        variance = variance * counts / np.where(counts > 1, counts - 1, np.nan)
        spread = np.sqrt(np.maximum(variance, MIN_VARIANCE))
        scores: Scores = (evidence.target.tokens.mean() - mean) / spread
        return scores


@register
@dataclass(frozen=True)
class Spv(InSpace):
    """SPV-MIA: probabilistic variation, calibrated by a reference (Fu et al., NeurIPS 2024).

    With q(x) the geometric mean of the token probabilities of x (one over the perplexity), a
    model's variation is ``mean_n q(x~_n) - q(x)``, an estimate of the second directional derivative
    of its probability: members lie on a local maximum, so theirs is strongly negative. The score is
    minus the target's variation plus the reference's. The paper's N symmetric pairs and the
    released code's one-sided neighbors have this same form where both sides of a pair are fills
    of their own; they differ in how neighbors are made (the presets `paper` and `repo` of the
    audit file).

    Parameters
    ----------
    space : "probability" as published, or "log" for mean log-probabilities in place of q.
    """

    space: str = "probability"

    name = "spv"
    title = "SPV-MIA"
    source = "Fu et al. 2024, arXiv 2311.06062"
    formula = (
        "[mean_n q_ref(x~_n) - q_ref(x)] - [mean_n q_target(x~_n) - q_target(x)], "
        "q = exp(mean_t log p)"
    )
    needs = frozenset({"reference"})
    asks = ("tokens", "neighbors")

    def score(self, evidence: TextEvidence) -> Scores:
        target, reference = evidence.target, answered(evidence.reference)
        return variation(self, reference, answered(reference.neighbors).mean_log_prob) - variation(
            self, target, answered(target.neighbors).mean_log_prob
        )


@register
@dataclass(frozen=True)
class SpvEmbedding(InSpace):
    """SPV-MIA with neighbors in the embedding domain: x + z and x - z on the input embeddings.

    As `spv`, with Gaussian noise in place of paraphrases, the same for target and reference where
    their embeddings have one width. The paper does not print the scale of the noise; it is a
    setting of the audit file (`probes.noise`). No score where a model has no answer.

    Parameters
    ----------
    space : as in `spv`.
    symmetric : average x + z and x - z as published; false takes x + z alone.
    """

    space: str = "probability"
    symmetric: bool = True

    name = "spv_embedding"
    title = "SPV-MIA, embedding domain"
    source = "Fu et al. 2024, arXiv 2311.06062"
    formula = (
        "[mean_n (q_ref(x + z_n) + q_ref(x - z_n)) / 2 - q_ref(x)] - [the same of q_target], "
        "q = exp(mean_t log p)"
    )
    asks = ("tokens", "noise")
    needs = frozenset({"reference"})

    def score(self, evidence: TextEvidence) -> Scores:
        return self._variation(answered(evidence.reference)) - self._variation(evidence.target)

    def _variation(self, model: ModelEvidence) -> Scores:
        around = answered(model.noise).mean_log_prob
        return variation(self, model, around if self.symmetric else around[:, ::2])


def variation(attack: InSpace, model: ModelEvidence, around: Scores) -> Scores:
    """Mean likelihood around each record minus that of the record, in the attack's space."""
    record = attack.likelihood(model.tokens.mean())
    return mean_of_present(attack.likelihood(around)) - record
