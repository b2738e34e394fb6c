"""Sweeps: which settings of attacks and of queries are tried, and what the best one is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from raymia.spec.base import Share, Strict

Value = bool | int | float | str | list[int | float]
"""What a swept key can be set to; a list where the key takes one, as `timesteps` does."""


class SpaceSpec(Strict):
    """The values of one key: give one of the kinds."""

    grid: list[Value] | None = Field(
        default=None, min_length=1, description="every one of these values"
    )
    choice: list[Value] | None = Field(
        default=None, min_length=1, description="one of these values; all of them in a grid search"
    )
    uniform: list[float] | None = Field(
        default=None, min_length=2, max_length=2, description="a number between the two"
    )
    loguniform: list[float] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="a number between the two, whose logarithm is uniform",
    )
    integers: list[int] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="a whole number from the first to the second; all of them in a grid search",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> SpaceSpec:
        given = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of {', '.join(type(self).model_fields)}, "
                f"but got {' and '.join(given) or 'none'}"
            )
        for kind in ("uniform", "loguniform", "integers"):
            ends = getattr(self, kind)
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"{kind} should rise from its first number to its second")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError("loguniform should be above 0")
        return self

    @property
    def values(self) -> list[Value] | None:
        """Every value, where there is an end of them."""
        if self.integers is not None:
            return list(range(self.integers[0], self.integers[1] + 1))
        return self.grid if self.grid is not None else self.choice

    @property
    def extremes(self) -> list[Value]:
        """Every value, or the two ends."""
        return self.values or [*(self.uniform or self.loguniform or [])]


class ObjectiveSpec(Strict):
    """What makes one setting better than another; `auc` alone may stand for the section."""

    metric: Literal["auc", "tpr"] = Field(
        default="auc", description="area under the ROC curve, or TPR at the rate below"
    )
    fpr: Share = Field(default=0.01, description="false-positive rate, for `tpr`")


class SweepSpec(Strict):
    """What `raymia sweep` tries.

    The models are asked once for each setting of the queries, and attacks are tried on the answers.
    Settings are compared on one half of the records and the best is judged by the other half.
    """

    attacks: dict[str, dict[str, SpaceSpec]] = Field(
        default={},
        description="by attack (`name@reference` for one reference), its parameters; default: the "
        "audit's own attacks as they are",
    )
    queries: dict[str, SpaceSpec] = Field(
        default={},
        description="by dotted key of this file, as `neighbors.count`: keys under neighbors, "
        "probes, and references that are made",
    )
    search: Literal["grid", "random", "optuna"] = Field(
        default="grid",
        description="every combination; `samples` draws, each with every combination of `grid` "
        "values; or `samples` settings that Optuna proposes, given those before",
    )
    samples: int = Field(
        default=100, ge=1, le=100_000, description="per attack, for random and optuna"
    )
    seed: int = Field(default=0, ge=0, description="of the draws, and of the halves")
    objective: ObjectiveSpec = Field(default=ObjectiveSpec(), description="what is made large")

    @field_validator("objective", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"metric": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something_is_swept(self) -> SweepSpec:
        if not self.attacks and not self.queries:
            raise ValueError("nothing is swept; give settings under `attacks` or `queries`")
        if self.search == "grid" and "samples" in self.model_fields_set:
            raise ValueError("samples is for `search: random` and `search: optuna`")
        return self
