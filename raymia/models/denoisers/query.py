"""How a network is asked, and how it was trained otherwise than its pipeline says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """How a network was trained otherwise than its pipeline says; None is as that says.

    Attributes
    ----------
    caption_tokens : that a T5 or a Gemma reads of a caption.
    guidance : of a network that is told one.
    prediction : what the network learned to predict, one of ``PREDICTIONS``.
    zero_terminal_snr : whether the noise schedule was rescaled to end in noise alone.
    clip_skip : from which layer of a CLIP the states of a caption are taken, counted from the last,
        which is 1.
    """

    caption_tokens: int | None = None
    guidance: float | None = None
    prediction: str | None = None
    zero_terminal_snr: bool | None = None
    clip_skip: int | None = None

    @property
    def given(self) -> Mapping[str, Any]:
        """What is not as the pipeline does it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Query:
    """What of a pipeline decides how captions are read and the network is asked.

    Attributes
    ----------
    config : of the network.
    pipeline : its class.
    size : height and width of the images, in pixels.
    prompt : the one caption of all images; None where each has its own, or none has.
    is_resized : whether the size is another than the one the network is made for.
    told : what else was otherwise than its pipeline says.
    """

    config: Mapping[str, Any]
    pipeline: str
    size: tuple[int, int]
    prompt: str | None = None
    is_resized: bool = False
    told: Told = Told()

    def key_parts(self) -> Mapping[str, Any]:
        """What changes its answers and stands in none of its files."""
        parts: dict[str, Any] = {} if self.prompt is None else {"prompt": self.prompt}
        sized = {"size": list(self.size)} if self.is_resized else {}
        return {**parts, **sized, **self.told.given}

    @property
    def takes_guidance(self) -> bool:
        """Whether the network is told a guidance."""
        return bool(self.config.get("guidance_embeds"))


GUIDANCE = 1.0
"""That a network is told which takes one."""
