"""The attack on how a model's loss changes around the record, and the choice of what is around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_LOSS, Scores, answered, register
from raymia.attacks.images.base import Filtered, errors
from raymia.attacks.means import Means
from raymia.evidence.image import Floats, ImageEvidence, ImageModelEvidence
from raymia.metrics.learning import MIN_PER_CLASS, fold_of
from raymia.metrics.roc import auc, roc_curve

PARTS = 10
"""The perturbation is chosen on one part in so many of the records, where no shadow is given."""


@dataclass(frozen=True)
class Choice:
    """Which perturbation attacks use that were told none, and why.

    Attributes
    ----------
    perturbation : the chosen one.
    aucs : of PFAMI's mean ratio with each perturbation, on what it was chosen on.
    fitted_on : the shadows, a part of the records, or nothing, where neither a shadow nor that part
        has 10 members and 10 non-members; then it is the first of those in the evidence.
    spent : bool [records], which records it was chosen on: they get no score.
    """

    perturbation: str
    aucs: Mapping[str, float]
    fitted_on: Literal["shadows", "records", "nothing"]
    spent: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Around(Filtered):
    """Base of attacks on the loss of the record's neighbors.

    Parameters
    ----------
    low_pass : as in :class:`Filtered`.
    form : "ratio" for [L(neighbor) - L(x)] / L(x), or "difference" for L(neighbor) - L(x).
    perturbation : one of those that the audit asks about; None takes the audit's, or with `auto`
        the one that :func:`choose_perturbation` finds.
    """

    form: str = "ratio"
    perturbation: str | None = None

    asks = ("terms", "neighbors")
    needs = frozenset({"shadows_if_given"})

    def __post_init__(self) -> None:
        if self.form not in ("ratio", "difference"):
            raise ValueError(f"form should be 'ratio' or 'difference', but got {self.form!r}")
        if not (self.perturbation is None or isinstance(self.perturbation, str)):
            raise ValueError(
                f"perturbation should be the name of one, as 'crop', but got {self.perturbation!r}"
            )

    def unserved(self, means: Means) -> list[str]:
        own = means.unasked("perturbations", "perturbation", self.perturbation)
        return super().unserved(means) + own

    def chosen(self, evidence: ImageEvidence) -> tuple[str, npt.NDArray[np.bool_]]:
        """The perturbation that is used, and bool [records], which records were spent on it."""
        named = self.perturbation or evidence.chosen
        if named is not None:
            return named, np.zeros(evidence.count, bool)
        choice = choose_perturbation(evidence)
        return choice.perturbation, choice.spent

    def fluctuation(self, model: ImageModelEvidence, perturbation: str) -> Floats:
        """How the loss changes, [records, strengths, timesteps, draws]."""
        return fluctuation(model, perturbation, self.form, self.low_pass)


@register
@dataclass(frozen=True)
class Pfami(Around):
    """Mean fluctuation of the loss around the record (PFAMI_Met; Fu et al.).

    A member lies at a maximum of the model's density, so that perturbing it raises the loss. The
    change is taken at each timestep and draw, and at each strength of the perturbation, and
    averaged; as a ratio, over a loss that is at least 1e-6. With a reference, the target's
    fluctuation less the reference's, as the authors' code has it: a difference of fluctuations, not
    of logarithms. No score where an answer on the record or on a neighbor that is used is missing,
    or for records on which the perturbation was chosen.

    Parameters
    ----------
    low_pass : take the errors after FreMIA's low-pass; denoisers only.
    form : "ratio" as published, or "difference".
    perturbation : one of those that the audit asks about; default: the audit's. With `auto`, the
        one that tells members best on the shadows, or on a tenth of the records.
    strengths : "all" as in the paper, or "one" for the middle one (the sixth of ten), as in the
        authors' code.
    """

    strengths: str = "all"

    name = "pfami"
    title = "PFAMI, metric"
    source = "Fu et al. 2023, arXiv 2308.12143"
    formula = "mean_(strength, t, eps) [L_t(neighbor) - L_t(x)] / L_t(x)"
    needs = Around.needs | {"reference_if_given"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strengths not in ("all", "one"):
            raise ValueError(f"strengths should be 'all' or 'one', but got {self.strengths!r}")

    def score(self, evidence: ImageEvidence) -> Scores:
        perturbation, spent = self.chosen(evidence)
        scores = self._mean(answered(evidence.target), perturbation)
        if evidence.reference is not None:
            scores = scores - self._mean(evidence.reference, perturbation)
        return np.where(spent, np.nan, scores)

    def _mean(self, model: ImageModelEvidence, perturbation: str) -> Scores:
        changes = self.fluctuation(model, perturbation)
        if self.strengths == "one":
            changes = changes[:, [changes.shape[1] // 2]]
        means: Scores = changes.mean(axis=(1, 2, 3))
        return means


def fluctuation(
    model: ImageModelEvidence, perturbation: str, form: str = "ratio", low_pass: bool = False
) -> Floats:
    """Change of the loss from the record to its neighbors (Fu et al., PFAMI).

    Returns
    -------
    float64 [records, strengths, timesteps, draws]; NaN where an answer is missing.

    Raises
    ------
    ValueError
        If nothing was asked about neighbors of this perturbation, or at other timesteps.
    """
    if perturbation not in model.neighbors:
        given = ", ".join(model.neighbors) or "none"
        raise ValueError(
            f"this attack was not given neighbors of perturbation {perturbation!r}; given: {given}"
        )
    around = model.neighbors[perturbation]
    own = errors(model.terms, "loss", low_pass)[:, None]
    others = errors(around, "loss", low_pass)
    if around.timesteps != model.terms.timesteps or own.shape[2:] != others.shape[2:]:
        raise ValueError(
            "a record and its neighbors should be asked about at the same timesteps and draws, "
            f"but got {own.shape[2:]} and {others.shape[2:]}"
        )
    change = others - own
    return change / np.maximum(own, MIN_LOSS) if form == "ratio" else change


def choose_perturbation(evidence: ImageEvidence) -> Choice:
    """Choose the perturbation that tells members best, on shadows or on a tenth of the records.

    What is compared is PFAMI's mean ratio over all strengths, without a reference: the mean of its
    AUC over the shadows that were trained on 10 of the records or more and not on 10 others or
    more; without such a shadow, its AUC for the target on a tenth of the records, drawn by their
    groups. Of equals, the first.
    """
    target = answered(evidence.target)
    names = list(target.neighbors)
    if not names:
        raise ValueError("this attack was not given the answers to a question it asks")
    nothing = np.zeros(evidence.count, bool)
    usable = [s for s in evidence.shadows if _tells(s.is_in)]
    if usable:
        aucs = {
            name: float(np.mean([_auc(_mean_ratio(s.model, name), s.is_in) for s in usable]))
            for name in names
        }
        return Choice(_best(aucs), aucs, "shadows", nothing)
    labels = answered(evidence.labels)
    known = np.array([label is not None for label in labels.is_member], bool)
    members = np.array([bool(label) for label in labels.is_member], bool)
    tenth = fold_of(labels.units, PARTS, "part that a perturbation is chosen on") == 0
    judged = known & tenth
    if not _tells(members[judged]):
        return Choice(names[0], {}, "nothing", nothing)
    aucs = {name: _auc(_mean_ratio(target, name)[judged], members[judged]) for name in names}
    used = {unit for unit, label in zip(labels.units, judged, strict=True) if label}
    spent = np.array([unit in used for unit in labels.units], bool)
    return Choice(_best(aucs), aucs, "records", spent)


def _tells(is_member: npt.NDArray[np.bool_]) -> bool:
    return int(min(is_member.sum(), (~is_member).sum())) >= MIN_PER_CLASS


def _mean_ratio(model: ImageModelEvidence, perturbation: str) -> Scores:
    means: Scores = fluctuation(model, perturbation).mean(axis=(1, 2, 3))
    return means


def _auc(scores: Scores, is_member: npt.NDArray[np.bool_]) -> float:
    """AUC over records with a score; NaN without both members and others."""
    has = ~np.isnan(scores)
    if len(set(is_member[has].tolist())) < 2:
        return float("nan")
    return auc(roc_curve(scores[has], is_member[has]))


def _best(aucs: Mapping[str, float]) -> str:
    return max(aucs, key=lambda name: -1.0 if np.isnan(aucs[name]) else aucs[name])
