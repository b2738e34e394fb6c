"""What an audit comes to, as a type: one finding, one sentence, and what it does not prove."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raymia.metrics.summary import Result

Finding = Literal[
    "incomplete",
    "not_measurable",
    "shift_suspected",
    "no_leak_found",
    "leaks",
    "leaks_strongly",
]
"""Findings, in the order of what they say of a leak."""


class TargetVerdict(Result):
    """What the audit of one checkpoint comes to."""

    target: str = Field(description="name of the checkpoint under audit")
    finding: Finding = Field(description="what was found")
    attack: str | None = Field(
        description="the attack it rests on; of those that nothing could be tested by, the first; "
        "none where nothing is measured"
    )


class Verdict(Result):
    """What a whole audit comes to."""

    finding: Finding = Field(description="what was found; of several checkpoints, on the worst")
    sentence: str = Field(description="the finding with its numbers, for a person to read")
    limits: list[str] = Field(default=[], description="what the finding does not prove")
    targets: list[TargetVerdict] = Field(default=[], description="one for each checkpoint")
