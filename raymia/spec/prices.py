"""What machines cost."""

from __future__ import annotations

from pydantic import Field

from raymia.spec.base import Strict


class CostsSpec(Strict):
    """Prices, from which `raymia plan` says what an audit or a training will cost."""

    per_hour: dict[str, float] = Field(
        description="price of one GPU of a type, as `A10G: 1.21`, and of one `CPU` actor"
    )
    currency: str = Field(default="USD", description="what the plan calls it")
