"""What a run found about images beyond scores: pictures of records, and how the loss changes around
them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raymia.metrics.summary import Result
from raymia.results.example import Example

Png = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", description="a PNG in base64")]
Changes = list[list[float | None]]
"""Relative change of the loss, [L(neighbor) - L(x)] / L(x), by timestep and then by strength; none
where there is no evidence. A model without timesteps has one row."""


class ImageExample(Example):
    """One image of a target, with what is around it."""

    image: Png | None = Field(
        description="the record, a PNG in base64, at most 256 pixels a side; none where left out"
    )
    perturbation: str | None = Field(
        default=None, description="what makes the neighbors; none where no attack uses them"
    )
    strengths: list[float] = Field(default=[], description="of the perturbation")
    neighbors: list[Png] = Field(
        default=[], description="one for each strength, at most 128 pixels a side"
    )
    timesteps: list[int | float] = Field(
        default=[], description="rows of the fluctuation; none for a model without timesteps"
    )
    fluctuation: Changes = Field(
        default=[], description="relative change of the loss, the mean over draws"
    )


class PerturbationChoice(Result):
    """Which perturbation attacks used that were told none, and why."""

    target: str = Field(description="name of the checkpoint under audit")
    perturbation: str = Field(description="the chosen one")
    aucs: dict[str, float | None] = Field(
        description="of PFAMI's mean ratio with each perturbation, on what it was chosen on"
    )
    fitted_on: Literal["shadows", "records", "nothing"] = Field(
        description="what it was chosen on; nothing where there were too few records"
    )
    spent: int = Field(
        ge=0, description="records it was chosen on, which those attacks do not score"
    )


class MeanFluctuation(Result):
    """How the loss changes around members and around non-members, on average."""

    target: str = Field(description="name of the checkpoint under audit")
    perturbation: str = Field(description="what makes the neighbors")
    strengths: list[float] = Field(description="of the perturbation")
    timesteps: list[int | float] = Field(description="rows; none for a model without timesteps")
    members: Changes = Field(description="mean over members; empty without any")
    non_members: Changes = Field(description="mean over non-members; empty without any")
    n_members: int = Field(ge=0, description="members in the mean")
    n_non_members: int = Field(ge=0, description="non-members in the mean")
