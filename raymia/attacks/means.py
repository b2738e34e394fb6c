"""What an audit file gives attacks to work with on a target, known before a model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """Values that models are asked about, and the key of the audit file that names them."""

    key: str
    values: Sequence[Any]


@dataclass(frozen=True)
class Count:
    """How many of something there are or will be, and the key of the audit file that says so."""

    key: str
    number: int


@dataclass(frozen=True)
class Means:
    """What an audit file gives attacks to work with on a target.

    Attributes
    ----------
    choices, counts : by what the kind of records calls them. On images choices are the
        `perturbations` of neighbors, and the timesteps of a question by its name; counts are
        `population` and `samples`.
    """

    choices: Mapping[str, Choice] = field(default_factory=dict)
    counts: Mapping[str, Count] = field(default_factory=dict)

    def unasked(self, what: str, parameter: str, value: object) -> list[str]:
        """A sentence where a value of a parameter is none of those that models are asked about;
        None is always one."""
        choice = self.choices.get(what)
        if value is None or choice is None or value in choice.values:
            return []
        given = ", ".join(map(str, choice.values))
        return [
            f"{parameter} {value} is not asked about: {choice.key} is {given}; write one of these, "
            "or name it there"
        ]

    def fewer(self, what: str, least: int, parameter: str | None = None) -> list[str]:
        """A sentence where there are fewer of something than an attack takes.

        Parameters
        ----------
        parameter : that says how many it takes, if any does.
        """
        count = self.counts.get(what)
        if count is None or count.number >= least:
            return []
        takes = f"it takes {least}" if parameter is None else f"{parameter} is {least}"
        lower = f"set it to at most {count.number:,}, or " if parameter and count.number else ""
        return [f"{takes}, and {count.key} gives {count.number:,}; {lower}give more"]
