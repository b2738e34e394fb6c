"""Typed results: what one attack achieved against one target."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_PER_CLASS = 2
"""A single member or non-member has no spread to take an interval from."""
TOO_FEW = "at least"
"""What the reason begins with where not enough records have a score."""


class Result(BaseModel):
    """Base of every result: immutable, without unknown keys, without silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Estimate(Result):
    """A measured number with its interval."""

    value: float = Field(description="the number on the records it is of", allow_inf_nan=False)
    low: float = Field(description="lower end of the interval", allow_inf_nan=False)
    high: float = Field(description="upper end of the interval", allow_inf_nan=False)


class Limits(Result):
    """One-sided limits at the error rates of `raymia.metrics.limits.LADDER`, 5 % first."""

    low: list[float] = Field(description="lower limits at 5 %, a quarter of it, and so on")
    high: list[float] = Field(description="upper limits at the same error rates")


class LimitedEstimate(Estimate):
    """A measured number with its interval, and with limits for many comparisons."""

    limits: Limits | None = Field(
        default=None, description="one-sided limits, for a gate; none in runs before they were kept"
    )


class Rate(Estimate):
    """A share of records with its Clopper-Pearson interval."""

    hits: int = Field(ge=0, description="records that the threshold calls members")
    of: int = Field(ge=1, description="records that were judged")


class Precision(Result):
    """How many of those called members are members, where a share of all records are members."""

    prior: float = Field(gt=0, lt=1, description="share of members among the records asked about")
    value: float | None = Field(description="none where the threshold calls nobody a member")
    low: float = Field(ge=0, le=1, description="lower end; both rates' limits hold together")
    high: float = Field(ge=0, le=1, description="upper end; both rates' limits hold together")


class HeldOutRates(Result):
    """What a threshold does on records that it was not chosen on.

    The threshold is the best whose false positive rate on the calibration half of the non-members
    is within the budget. On other records its false positive rate is near the budget, above or
    below; what it came to is here.
    """

    threshold: float = Field(description="a record that scores above it is called a member")
    n_calibration: int = Field(ge=1, description="non-members that the threshold was chosen on")
    calibration_tpr: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="members of the calibration half above the threshold, by which attacks are "
        "ranked; none in earlier runs and where there is no such member",
    )
    tpr: Rate = Field(description="members of the other half that are called members")
    fpr: Rate = Field(description="non-members of the other half that are called members")
    ppv: list[Precision] = Field(description="positive predictive value, one for each prior")


class TprAtFpr(Result):
    """True positive rate of the best threshold whose false positive rate is within a budget."""

    max_fpr: float = Field(gt=0, lt=1, description="budget of false positives, as a rate")
    resolvable: bool = Field(description="whether one false positive is within the budget")
    estimate: LimitedEstimate | None = Field(
        description="on all records, with an interval that holds the rate of all members at this "
        "rate of all non-members; none where the budget is not resolvable"
    )
    needed_non_members: int = Field(
        ge=1, description="fewest non-members with which this budget is resolvable"
    )
    held_out: HeldOutRates | None = Field(
        default=None,
        description="threshold chosen on one half, judged on the other; none where the budget is "
        "not resolvable on the half, or the other half lacks members or non-members",
    )


class HeldOutAuc(Estimate):
    """AUC on the half that attacks are not ranked on."""

    calibration: float = Field(ge=0, le=1, description="AUC on the half that they are ranked on")
    n_members: int = Field(ge=1, description="members that were judged")
    n_non_members: int = Field(ge=1, description="non-members that were judged")


class HeldOutAccuracy(LimitedEstimate):
    """Mean of true positive and true negative rate on records the threshold was not chosen on."""

    threshold: float = Field(description="a record that scores above it is called a member")
    n_members: int = Field(ge=1, description="members that were judged")
    n_non_members: int = Field(ge=1, description="non-members that were judged")


class EpsilonBound(Result):
    """A lower bound of the epsilon in (epsilon, delta)-differential privacy.

    ``held_out``: from the rates of a threshold on records that it was not chosen on. ``one_run``:
    Steinke, Nasr and Jagielski 2023. ``one_run_gaussian``: Mahloujifar, Melis and Chaudhuri 2025,
    of the mechanisms whose privacy is that of a Gaussian one. The latter two only where the audit
    file says that inclusion was randomized.
    """

    method: Literal["held_out", "one_run", "one_run_gaussian"] = Field(
        description="how the bound was found"
    )
    value: float = Field(ge=0, description="the bound; 0 says nothing")
    delta: float = Field(ge=0, lt=1, description="delta that the bound is for")
    confidence: float = Field(gt=0, lt=1, description="chance that the bound holds, at least")
    n_judged: int = Field(ge=0, description="members and non-members of the judged half")
    n_guesses: int | None = Field(
        default=None, ge=0, description="one run: records whose membership was guessed"
    )
    n_correct: int | None = Field(default=None, ge=0, description="one run: right guesses")
    chosen_by: float | None = Field(
        default=None,
        ge=0,
        description="the bound on the calibration half: of several attacks and methods the one "
        "with the highest is reported; none in earlier runs",
    )
    limits: list[float] | None = Field(
        default=None,
        description="the bound at 5 % error, a quarter of it, and so on; none where not kept",
    )
    high: float | None = Field(
        default=None,
        ge=0,
        description="held out: the upper limit, at 5 % error, of what this threshold shows; none "
        "where there is no limit",
    )
    mu: float | None = Field(
        default=None, ge=0, description="one_run_gaussian: the bound as Gaussian privacy's mu"
    )


class AttackMetrics(Result):
    """What an attack achieved against a target."""

    kind: Literal["measured"] = "measured"
    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    n_members: int = Field(ge=MIN_PER_CLASS, description="members with a score")
    n_non_members: int = Field(ge=MIN_PER_CLASS, description="non-members with a score")
    n_unscored: int = Field(ge=0, description="members and non-members without a score, left out")
    records_per_group: int | None = Field(
        default=None,
        ge=1,
        description="of groups: records that each group's score is the mean of, as many as nine "
        "of ten groups of each kind have with a score; none of records, and of groups in earlier "
        "runs, where it was the mean of all",
    )
    auc: LimitedEstimate = Field(
        description="area under the ROC curve, with the wider of DeLong's and Newcombe's "
        "intervals; 0.5 is chance"
    )
    held_out_auc: HeldOutAuc | None = Field(
        default=None,
        description="AUC on one half, where attacks are ranked on the other; none in earlier runs "
        "and where a half has fewer than two of a kind",
    )
    above_all: int | None = Field(
        default=None,
        ge=0,
        description="members that score above every non-member; none in earlier runs",
    )
    tpr: list[TprAtFpr] = Field(description="true positive rate at each false positive budget")
    balanced_accuracy: HeldOutAccuracy | None = Field(
        description="threshold chosen on one half of the records and judged on the other; none "
        "where a half lacks members or non-members"
    )
    one_minus_eer: float = Field(
        ge=0,
        le=1,
        description="one minus the rate at which both errors are equal, on all records; a point "
        "without an interval, read off the records it is measured on",
    )
    epsilon: list[EpsilonBound] = Field(
        default=[], description="lower bounds of the target's differential privacy"
    )
    confidence: float = Field(gt=0, lt=1, description="nominal level of every interval")
    resamples: int | None = Field(
        default=None, ge=1, description="bootstrap resamples behind the rates, in earlier runs"
    )

    @property
    def below_chance(self) -> bool:
        """Whether members score lower: leakage as well, or an attack with the wrong sign."""
        return self.auc.high < 0.5


class NotMeasured(Result):
    """An attack that could not be measured against a target, and why."""

    kind: Literal["not_measured"] = "not_measured"
    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    n_members: int = Field(ge=0, description="members with a score")
    n_non_members: int = Field(ge=0, description="non-members with a score")
    n_unscored: int = Field(ge=0, description="members and non-members without a score")
    reason: str = Field(description="why there are no metrics, for a person to read")


Metrics = Annotated[AttackMetrics | NotMeasured, Field(discriminator="kind")]


class Comparison(Result):
    """The AUC of one attack less that of another on the same records: DeLong's paired test.

    The first is the attack that leads on its target. It was picked because it leads, so its lead
    is flattered; the correction is for the number of tests.
    """

    between: Literal["attacks", "targets"] = Field(
        description="two attacks on one target, or one attack on two targets"
    )
    target: str = Field(description="target of the leading attack")
    attack: str = Field(description="the leading attack")
    other_target: str = Field(description="what it is compared with")
    other_attack: str = Field(description="what it is compared with")
    n_members: int = Field(ge=MIN_PER_CLASS, description="members that both scored")
    n_non_members: int = Field(ge=MIN_PER_CLASS, description="non-members that both scored")
    value: float = Field(description="difference of the AUCs")
    low: float = Field(description="lower end of its interval, for this comparison alone")
    high: float = Field(description="upper end of its interval, for this comparison alone")
    confidence: float = Field(gt=0, lt=1, description="nominal level of the interval")
    p_value: float = Field(ge=0, le=1, description="two-sided, for this comparison alone")
    p_holm: float = Field(ge=0, le=1, description="corrected for all comparisons of the audit")


class ClaimsAtRate(Result):
    """How many candidates may be called members at a false discovery rate."""

    rate: float = Field(gt=0, lt=1, description="expected share of non-members among the claimed")
    claimed: int = Field(ge=0, description="candidates that may be claimed, of the highest scores")
    fewest: int | None = Field(
        description="with so few non-members no fewer can be claimed at once; none where the "
        "non-members are too few for any claim"
    )
    needed_non_members: int = Field(
        ge=1, description="fewest non-members with which any claim at this rate is possible"
    )


class CandidateClaims(Result):
    """What can be claimed of candidates whose membership is unknown.

    Each candidate has a p-value against the known non-members, and Benjamini and Hochberg's
    procedure over all of them keeps the share of false claims in expectation within the rate
    (Bates et al. 2023, The Annals of Statistics 51). It holds where the non-members are of the
    distribution of the candidates that are none, and for an attack that was picked before its
    claims were seen. It is not proven for attacks that are fitted on the records.
    """

    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    of: Literal["records", "groups"] = Field(description="what is claimed")
    n_candidates: int = Field(ge=0, description="candidates with a score")
    n_non_members: int = Field(ge=0, description="non-members with a score")
    n_unscored: int = Field(ge=0, description="candidates without a score, never claimed")
    records_per_group: int | None = Field(
        default=None,
        ge=1,
        description="of groups: records that each group's score is the mean of, as many as nine "
        "of ten candidate groups and groups of non-members have with a score; none of records, "
        "and of groups in earlier runs, where it was the mean of all",
    )
    claims: list[ClaimsAtRate] = Field(description="one for each rate")
