"""What raymia says when something a person gave it cannot be used."""

from __future__ import annotations

from collections.abc import Iterable

from raymia.util.credentials import sayable


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


class RaymiaError(Exception):
    """Base of every error that raymia raises on purpose; its text is meant to be read."""

    def __init__(self, message: str) -> None:
        self.message = sayable(message)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message  # Ray Data appends its own advice to args


class InputError(RaymiaError):
    """One or more problems in what the user gave, all reported together."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        problems = [problems] if isinstance(problems, str) else problems
        self.problems = [sayable(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


class NothingWrittenError(InputError):
    """A target wrote nothing, or next to nothing, that a reference could be made of."""
