"""What a run found about texts beyond scores: records, token by token."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raymia.metrics.summary import Result
from raymia.results.example import Example


class TextPiece(Result):
    """A token of a text, or text that no token was scored for."""

    text: str = Field(description="as it stands in the record, or in what the template made of it")
    part: Literal["scored", "context", "cut"] = Field(
        default="scored",
        description="`context` is what the model saw and no loss was on, `cut` what the training "
        "cut off; of plain texts all is scored but the first token",
    )
    log_prob: float | None = Field(
        default=None, description="natural, given what is before it; none where it was not scored"
    )
    typical: float | None = Field(
        default=None, description="what the log-probability is compared with; none where unknown"
    )
    turn: str | None = Field(
        default=None,
        description="the role of the turn of a conversation that begins here; none within a turn",
    )
    left_out: int = Field(
        default=0, ge=0, description="characters between it and the next piece that are left out"
    )


class TextExample(Example):
    """One text of a target, cut where it is long."""

    pieces: list[TextPiece] = Field(
        default=[], description="the text in its order; none where it is left out"
    )
    cut: int = Field(default=0, ge=0, description="characters after the pieces, left out")
    reference: str | None = Field(
        default=None,
        description="whose log-probabilities are typical; none for the mean of log p under the "
        "target's own distribution at that place",
    )
