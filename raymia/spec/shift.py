"""Whether members and non-members come from one distribution."""

from __future__ import annotations

from pydantic import Field

from raymia.spec.base import Strict


class ShiftSpec(Strict):
    """Guessers that see no target try to tell members from non-members."""

    enabled: bool = Field(
        default=True,
        description="false asks no guesser; copies on one side are looked for all the same",
    )
    error_rate: float = Field(
        default=0.05,
        ge=0.01,
        lt=1,
        description="chance that some guesser cries shift where members and non-members were "
        "split at random",
    )
    sample: int = Field(
        default=20_000,
        ge=50,
        description="records of each kind that the check looks at, drawn at random where there are "
        "more; guessers are asked about fewer where one kind has far more than the other",
    )
