"""One record that a report shows, whatever its kind."""

from __future__ import annotations

from pydantic import Field

from raymia.metrics.summary import Result


class Example(Result):
    """One record of a target, chosen by an attack's score."""

    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="the attack whose score chose the record")
    record_id: str = Field(description="id of the record")
    is_member: bool | None = Field(description="none for a candidate")
    score: float = Field(description="by that attack", allow_inf_nan=False)
    rank: int = Field(ge=1, description="place by score among the records of its class; 1 is first")
    of: int = Field(ge=1, description="records of its class with a score")
    outscored: float | None = Field(
        ge=0, le=1, description="share of the other non-members with a lower score; none without"
    )
