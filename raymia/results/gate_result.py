"""What a release gate decided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raymia.metrics.summary import Result

GateStatus = Literal["passed", "failed", "undecided", "not_evaluated"]


class GateOutcome(Result):
    """One condition of the release gate on one target."""

    condition: str = Field(description="as it was written: what makes the gate fail")
    target: str = Field(description="name of the checkpoint under audit")
    status: GateStatus = Field(
        description="failed: the leak is shown to be over the number; passed: it is shown to be "
        "within; undecided: neither; not_evaluated: nothing was measured that could show either"
    )
    reason: str = Field(description="with the figures it rests on, for a person to read")
