"""What changed from one run to another."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raymia.metrics.summary import Result

Finding = Literal["leaks_more", "leaks_less", "mixed", "no_change_shown", "not_comparable"]


class ComparedRun(Result):
    """One of the two runs."""

    folder: str = Field(description="where it lies")
    name: str = Field(description="name of the audit")
    created: str = Field(description="when the run ended, ISO 8601 in UTC")


class Change(Result):
    """A setting or a version that differs."""

    what: str = Field(description="path to the key of the audit file, or what the version is of")
    a: str | None = Field(description="in the first run; none where it is not set")
    b: str | None = Field(description="in the second run; none where it is not set")


class RecordChanges(Result):
    """How the records differ, by their ids."""

    common: int = Field(ge=0, description="records of both runs that have the same label in both")
    relabelled: int = Field(ge=0, description="of both runs, with another label; not compared")
    added: int = Field(ge=0, description="only in the second run")
    removed: int = Field(ge=0, description="only in the first run")
    examples: dict[str, list[str]] = Field(
        default={}, description="the first ids that were relabelled, added or removed"
    )


class Difference(Result):
    """The second run's number less the first run's, on the same records."""

    a: float = Field(description="in the first run, on the common records")
    b: float = Field(description="in the second run, on the common records")
    value: float = Field(description="the second less the first")
    low: float = Field(description="lower end of its interval, for this comparison alone")
    high: float = Field(description="upper end of its interval, for this comparison alone")
    p_value: float = Field(ge=0, le=1, description="two-sided, for this comparison alone")
    p_holm: float = Field(ge=0, le=1, description="corrected for all numbers of all attacks")


class AttackChange(Result):
    """How one attack changed on one target."""

    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    n_members: int = Field(ge=0, description="common members that both runs scored")
    n_non_members: int = Field(ge=0, description="common non-members that both runs scored")
    fitted: bool = Field(
        default=False,
        description="whether it was fitted on the labels of the records, in either run: its AUC "
        "scatters more, and its rate is not compared",
    )
    auc: Difference | None = Field(
        description="by DeLong's paired test; none with fewer than five of a kind"
    )
    tpr: Difference | None = Field(
        description="true positive rate at `max_fpr`, by a paired bootstrap; none where the budget "
        "is not resolvable on the common records, and where the attack was fitted on their labels"
    )


class TargetChange(Result):
    """How one target changed."""

    a: str = Field(description="name in the first run")
    b: str = Field(description="name in the second run")
    finding: Finding = Field(description="what the changes come to, at 5 % after the correction")
    sentence: str = Field(description="the finding with its numbers, for a person to read")
    attacks: list[AttackChange] = Field(description="attacks of both runs, most changed first")
    added: list[str] = Field(default=[], description="attacks only in the second run")
    removed: list[str] = Field(default=[], description="attacks only in the first run")


class RunComparison(Result):
    """Two runs, side by side on the records that both have."""

    a: ComparedRun
    b: ComparedRun
    records: RecordChanges
    settings: list[Change] = Field(description="of the audit files, and versions")
    targets: list[TargetChange] = Field(description="those of both runs")
    added: list[str] = Field(default=[], description="targets only in the second run")
    removed: list[str] = Field(default=[], description="targets only in the first run")
    max_fpr: float = Field(gt=0, lt=1, description="budget that true positive rates are at")
    confidence: float = Field(gt=0, lt=1, description="nominal level of every interval")
    cautions: list[str] = Field(default=[], description="what a reader must know first")
