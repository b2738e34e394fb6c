"""How a model was trained, as far as it decides what tokens a record becomes and which of them
carried a loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from raymia.spec import LossOn, Packing, RecordFormat, TruncatedSide
from raymia.util.hashing import digest

VERSION = 3
"""Of the code that renders; whoever changes what tokens a record becomes raises it."""

Side = Literal["chosen", "rejected"]
NO_WORDS = "records of tokens have no words that could be changed"


@dataclass(frozen=True)
class Training:
    """Everything that rendering a record depends on beside the record and the tokenizer.

    Attributes
    ----------
    format : of the records.
    template : of conversations, as Jinja; None where no record is one.
    template_arguments : JSON of what else the template is given.
    side : which answer of a preference is scored.
    special_tokens : whether the tokenizer added its own to texts.
    leaves_out_empty_tools : whether a template was told nothing of an empty list of tools.
    """

    format: RecordFormat
    loss_on: LossOn
    template: str | None = None
    template_arguments: str = "{}"
    max_length: int | None = None
    truncate: TruncatedSide = "end"
    eos: bool = False
    system: str | None = None
    packing: Packing = "none"
    side: Side = "chosen"
    special_tokens: bool = True
    leaves_out_empty_tools: bool = False

    @property
    def limit(self) -> int | None:
        """Tokens that a record was cut to; a text that was cut into rows lost none."""
        return None if self.packing == "joined" else self.max_length

    @property
    def kept(self) -> slice:
        """The tokens of a longer record that are left, where it was cut."""
        return slice(self.limit) if self.truncate == "end" else slice(-(self.limit or 0), None)

    @property
    def other_side(self) -> Training:
        """The same with the other answer of a preference scored."""
        return replace(self, side="rejected" if self.side == "chosen" else "chosen")

    @property
    def arguments(self) -> dict[str, Any]:
        """What the template is given beside the messages."""
        found: dict[str, Any] = json.loads(self.template_arguments)
        return found

    def key_parts(self) -> Mapping[str, Any]:
        """Everything that changes what tokens a record becomes."""
        return {
            "version": VERSION,
            "format": self.format,
            "loss_on": self.loss_on,
            "template": self.template,
            "template_arguments": self.template_arguments,
            "max_length": self.limit,
            "truncate": self.truncate,
            "eos": self.eos,
            "system": self.system,
            "side": self.side,
            **({} if self.special_tokens else {"special_tokens": False}),
            **({"leaves_out_empty_tools": True} if self.leaves_out_empty_tools else {}),
        }

    @property
    def changed_parts(self) -> str:
        """Hash of what decides which words of a record are changed, where its copies are."""
        return digest([self.format, self.loss_on, self.side])
