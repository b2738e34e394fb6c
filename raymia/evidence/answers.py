"""What answers of one model have in common, whatever the records are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswersByQuestion:
    """Base of what one model answered: each field is named after the question that it answers."""
