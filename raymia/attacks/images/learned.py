"""Attacks that learn what a member's picture looks like: of fluctuations, or of residuals.

Both are fitted on shadows, of which it is known what they were trained on, or without shadows on
those records of the audit that are not being judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import ImageAttack
from raymia.attacks.images.fluctuation import Around
from raymia.evidence.image import ImageEvidence, ImageModelEvidence
from raymia.metrics.learning import MIN_PER_CLASS, fold_of

Pictures = npt.NDArray[np.float32]

STOPPING_PARTS = 5
"""One part in so many of what a network is fitted on decides when to stop."""


@dataclass(frozen=True)
class Examples:
    """Pictures with labels.

    Attributes
    ----------
    pictures : float32 [examples, channels, height, width], NaN where an answer is missing.
    is_member : [examples].
    units : [examples], what must not be split.
    """

    pictures: Pictures
    is_member: npt.NDArray[np.bool_]
    units: list[str]


@dataclass(frozen=True)
class OnPictures(ImageAttack):
    """Base of attacks that judge one picture per record.

    Parameters
    ----------
    folds : at least 2.
    """

    folds: int = 5

    needs = frozenset({"labels", "shadows_if_given", "reference_if_given"})

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds should be at least 2, but got {self.folds}")

    def judge(
        self, evidence: ImageEvidence, picture: Callable[[ImageModelEvidence], Pictures]
    ) -> Scores:
        """Log-odds of membership, by networks that did not see the record's unit, [records].

        Parameters
        ----------
        picture : what is looked at of a model's answers, [records, channels, height, width]; NaN
            where an answer is missing.
        """
        labels = answered(evidence.labels)
        judged = picture(answered(evidence.target))
        if evidence.shadows:
            shown = [picture(shadow.model) for shadow in evidence.shadows]
            taught = Examples(
                np.concatenate(shown),
                np.concatenate([shadow.is_in for shadow in evidence.shadows]),
                [*labels.units] * len(shown),
            )
        else:
            known = [i for i, label in enumerate(labels.is_member) if label is not None]
            taught = Examples(
                judged[known],
                np.array([bool(labels.is_member[i]) for i in known], bool),
                [labels.units[i] for i in known],
            )
        return cross_fitted(taught, judged, list(labels.units), self.folds)


def cross_fitted(taught: Examples, judged: Pictures, units: list[str], folds: int) -> Scores:
    """Judge each picture by a network that was fitted on other units alone.

    Units fall into folds by their names. A picture whose unit is among the examples is judged by
    the network that was fitted on the other folds, any other by all networks on average. The order
    of the examples changes nothing.

    Returns
    -------
    Log-odds, [judged]; NaN where the picture has a NaN, or where fewer than 10 examples of a class
    are left to fit on.
    """
    from raymia.attacks.networks.small_resnet import fit_resnet

    usable = np.isfinite(taught.pictures).all(axis=(1, 2, 3))
    order = np.array(
        sorted(
            np.flatnonzero(usable), key=lambda i: (taught.units[i], taught.pictures[i].tobytes())
        ),
        np.int64,
    )
    pictures, is_member = taught.pictures[order], taught.is_member[order]
    names = [taught.units[i] for i in order]
    purpose = "fold of a learned attack"
    fold_taught = fold_of(names, folds, purpose)
    stops = fold_of(names, STOPPING_PARTS, "part that ends a fit") == 0
    has_answer = np.isfinite(judged).all(axis=(1, 2, 3))
    seen = set(taught.units)
    is_free = np.array([unit not in seen for unit in units], bool)
    fold_judged = fold_of(units, folds, purpose)
    odds = np.full((folds, len(units)), np.nan)
    for fold in range(folds):
        others = fold_taught != fold
        here = has_answer & (is_free | (fold_judged == fold))
        teaching = is_member[others & ~stops]
        if min(teaching.sum(), (~teaching).sum()) < MIN_PER_CLASS or not here.any():
            continue
        fitted = fit_resnet(pictures[others], is_member[others], stops[others])
        odds[fold, here] = fitted.log_odds(judged[here])
    found = ~np.isnan(odds)
    counts = found.sum(axis=0)
    scores: Scores = np.where(found, odds, 0.0).sum(axis=0) / np.where(counts > 0, counts, np.nan)
    return scores


@register
@dataclass(frozen=True)
class PfamiNns(OnPictures, Around):
    """A small network on the picture of fluctuations, timesteps by strengths (PFAMI_NNs; Fu et
    al.).

    Rows are the timesteps and draws, columns the strengths; draws at one timestep are sorted, since
    their order means nothing. With a reference, the target's fluctuations less the reference's, as
    in the authors' code. Fitted on shadows where the audit has some, as published, else on the
    audit's own labels; in both cases cross-fitted: records fall into folds by their content (by
    their group where they have one), and no network judges a record whose unit it saw. Records in
    neither get the mean over all networks. One part in five of what a network learns from decides
    when to stop. No score where an answer is missing, for records on which the perturbation was
    chosen, or with fewer than 10 members or non-members to fit on.

    Parameters
    ----------
    low_pass : take the errors after FreMIA's low-pass; denoisers only.
    form : "ratio" as published, or "difference".
    perturbation : as in `pfami`.
    folds : at least 2.
    """

    name = "pfami_nns"
    title = "PFAMI, network"
    source = "Fu et al. 2023, arXiv 2308.12143"
    formula = "cross-fitted log-odds of a ResNet on [L_t(neighbor) - L_t(x)] / L_t(x)"

    def __post_init__(self) -> None:
        OnPictures.__post_init__(self)
        Around.__post_init__(self)

    def score(self, evidence: ImageEvidence) -> Scores:
        perturbation, spent = self.chosen(evidence)
        reference = evidence.reference

        def picture(model: ImageModelEvidence) -> Pictures:
            changes = self.fluctuation(model, perturbation)
            if reference is not None:
                changes = changes - self.fluctuation(reference, perturbation)
            rows = np.sort(changes, axis=-1).reshape(*changes.shape[:2], -1)
            return rows.swapaxes(1, 2)[:, None].astype(np.float32)

        return np.where(spent, np.nan, self.judge(evidence, picture))


@register
@dataclass(frozen=True)
class SecMiNns(OnPictures):
    """A small network on the absolute residual of SecMI (Duan et al., ICML 2023).

    The residual is that of `secmi`, before it is summed. With a reference, the network is shown the
    reference's residual as further channels. Fitted and judged as in `pfami_nns`; the authors fit
    theirs on a fifth of the target's own labeled records. No score where an answer is missing, or
    with fewer than 10 members or non-members to fit on.

    Parameters
    ----------
    folds : at least 2.
    """

    name = "secmi_nns"
    title = "SecMI, network"
    source = "Duan et al. 2023, arXiv 2302.01316"
    formula = "cross-fitted log-odds of a ResNet on |psi(phi(x_t, t), t) - x_t|"
    asks = ("inversion_map",)

    def score(self, evidence: ImageEvidence) -> Scores:
        beside = [evidence.reference] if evidence.reference is not None else []

        def picture(model: ImageModelEvidence) -> Pictures:
            return np.concatenate([answered(m.inversion_map) for m in (model, *beside)], axis=1)

        return self.judge(evidence, picture)
