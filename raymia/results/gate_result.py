"""What a release gate decided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raymia.metrics.summary import Comparison, Estimate, Result

GateStatus = Literal["passed", "failed", "undecided", "not_evaluated"]


DeletionFinding = Literal["above", "below", "alike", "shift", "not_tested"]


class GateOutcome(Result):
    """One condition of the release gate on one target."""

    condition: str = Field(description="as it was written: what makes the gate fail")
    target: str = Field(description="name of the checkpoint under audit")
    status: GateStatus = Field(
        description="failed: the leak is shown to be over the number; passed: it is shown to be "
        "within; undecided: neither; not_evaluated: nothing was measured that could show either"
    )
    reason: str = Field(description="with the figures it rests on, for a person to read")


class Deletion(Result):
    """A model that was trained again without the members, beside the one that was trained on them,
    by the attack that leads there."""

    target: str = Field(description="name of the checkpoint that was trained again")
    before: str = Field(description="name of the checkpoint that was trained on the members")
    attack: str = Field(description="the attack that leads on that one")
    n_removed: int = Field(ge=0, description="members that both scored")
    n_non_members: int = Field(ge=0, description="non-members that both scored")
    of: Literal["records", "distinct", "groups"] = Field(
        default="records", description="what both AUCs are of: what tests against chance count"
    )
    auc_before: Estimate = Field(description="of members against non-members, before")
    auc_after: Estimate = Field(description="the same after; 0.5 says that they are alike")
    finding: DeletionFinding | None = Field(
        default=None,
        description="above: members can still be told, below: by scores that are too low; alike: "
        "chance explains the AUC after, with all models of the audit that were trained again; "
        "shift: they differ without any model; not_tested: too few count, or limits were not kept; "
        "none in earlier runs",
    )
    difference: Comparison = Field(description="of the two, on the records that both scored")


class PrivacyClaim(Result):
    """What a private training claims of one checkpoint, and what the audit shows."""

    target: str = Field(description="name of the checkpoint under audit")
    epsilon: float = Field(description="that no attack can show more than, for each record")
    delta: float = Field(description="chance that epsilon is no bound")
    status: GateStatus = Field(
        description="failed: the audit shows a larger epsilon, so that the training is broken; "
        "passed: it shows a smaller one; undecided and not_evaluated as of the release gate"
    )
    reason: str = Field(description="with the bound it rests on, for a person to read")
