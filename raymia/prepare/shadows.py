"""A shadow: a model trained as a target is, on a random half of its records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raymia.prepare.text_split import TextSplit
from raymia.prepare.trainer import Progress

FOLDER = "shadows"
"""Below the folder of the target's training."""


def shadow_name(number: int) -> str:
    """What a shadow is called, and its folder."""
    return f"shadow-{number:02}"


@dataclass(frozen=True)
class Shadow:
    """A training that is to be done.

    Attributes
    ----------
    name : of the training.
    half : which records are trained on, and which are held out.
    train : does it on the machine that it is called on; its folder is complete when it ends.
    finished : says its manifest; None where it is not finished.
    notes : what one should know before it is trained, as sentences.
    """

    name: str
    half: TextSplit
    train: Callable[[Progress], None]
    finished: Callable[[], dict[str, Any] | None]
    notes: tuple[str, ...] = ()
