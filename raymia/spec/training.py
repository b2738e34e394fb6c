"""How targets were trained: what decides which tokens of a record carried a loss."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from raymia.spec.base import DataPath, Place
from raymia.spec.kinds import TrainingSection

RecordFormat = Literal["text", "chat", "completion", "tokens", "preference", "unpaired"]
LossOn = Literal["all", "completion", "assistant", "last_assistant", "labels"]
Packing = Literal["none", "separate", "joined"]
TruncatedSide = Literal["end", "start", "drop"]
BASE_TEMPLATE = "base"
"""Stands for the chat template of the reference of this name."""
Template = Annotated[str, Place(lambda named: None if named == BASE_TEMPLATE else "data")]
FORMATS: tuple[RecordFormat, ...] = (
    "text",
    "chat",
    "completion",
    "tokens",
    "preference",
    "unpaired",
)


class TrainingSpec(TrainingSection):
    """How a target was trained; what is not said is assumed, and the report says what was.

    docs/your-training.md says what TRL, axolotl and LLaMA-Factory call these.
    """

    config: DataPath | None = Field(
        default=None,
        description="the training's own YAML or JSON file, of axolotl, LLaMA-Factory, TRL or "
        "Transformers, which is read; keys beside it come first",
    )
    template: Template | None = Field(
        default=None,
        description="chat template: a file of Jinja, or `base` for that of the reference `base`; "
        "default: the checkpoint's own",
    )
    template_arguments: dict[str, Any] = Field(
        default={}, description="what else the template is given, as `{enable_thinking: false}`"
    )
    loss_on: LossOn | None = Field(
        default=None,
        description="which tokens carried a loss: all of them, those of the completion, of the "
        "assistant's turns, of its last turn, or those that `labels` name",
    )
    max_length: int | None = Field(
        default=None, ge=2, description="tokens that records were cut to; default: none were cut"
    )
    truncate: TruncatedSide | None = Field(
        default=None,
        description="which end of a long record was cut off, or `drop` where it was left out",
    )
    eos: bool | None = Field(
        default=None,
        description="whether an end-of-text token was put after each text or completion; "
        "a template writes its own",
    )
    special_tokens: bool | None = Field(
        default=None,
        description="whether the tokenizer added its own tokens to texts, as one that begins them; "
        "default: it did",
    )
    system: str | None = Field(
        default=None, description="system prompt of conversations that have none of their own"
    )
    packing: Packing | None = Field(
        default=None,
        description="whether rows held several records: `separate`, none of which saw another, or "
        "`joined`, as one text that was cut into rows",
    )
    date: datetime.date | None = Field(
        default=None, description="day of the training, for templates that write the day"
    )
