"""What a release gate decided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raymia.metrics.summary import Result


class GateOutcome(Result):
    """One condition of the release gate on one target."""

    condition: str = Field(description="as it was written: what makes the gate fail")
    target: str = Field(description="name of the checkpoint under audit")
    status: Literal["passed", "failed", "not_evaluated"] = Field(
        description="the gate passes where every condition is passed; one that could not be "
        "evaluated is not"
    )
    reason: str = Field(description="with the figures it rests on, for a person to read")
