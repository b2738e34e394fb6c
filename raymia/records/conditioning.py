"""What a generation is conditioned on, as a record has it: a caption, or a class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from raymia.records.pixels import UnusableImageError
from raymia.records.texts import why_no_text
from raymia.spec import ImageRecordsSpec

NO_CAPTION = "without a caption"
NO_CLASS = "without a class"


@dataclass(frozen=True)
class Condition:
    """What of an image models are conditioned on: its caption, or its class.

    Attributes
    ----------
    key : of the audit file, which names the column.
    column : or the suffix of the files that hold it.
    lack : what an image is without it.
    """

    key: str
    column: str
    lack: str

    @property
    def suffix(self) -> str:
        """The column as the suffix of a file, without the dot."""
        return self.column.lstrip(".")

    def of(self, value: Any) -> str:
        """The caption, or the digits of the class."""
        if value is None:
            raise UnusableImageError(self.lack)
        if self.key == "class_column":
            value = _class_number(value)
            reason = "no whole number from 0 on" if value is None else None
        elif isinstance(value, list):
            reason = f"a list of {len(value)}; name a column with one caption of each image"
        else:
            reason = why_no_text(value)
        if reason is not None:
            raise UnusableImageError(f"{self.lack}: it is {reason}")
        return str(value)

    def within(self, content: bytes, *, first_line: bool = False) -> str:
        """That which a file holds, or its first line, without the white space around it."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UnusableImageError(f"{self.lack}: it is not UTF-8") from None
        return self.of((lines_of(text)[0] if first_line else text).strip())


def lines_of(text: str) -> list[str]:
    """The lines of a file, as programs read them that read it by lines; one at least."""
    return re.split(r"\r\n|\r|\n", text)


def _class_number(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and type(value) is not bool and value >= 0 else None


def condition_of(spec: ImageRecordsSpec) -> Condition | None:
    """What the audit file names; None where it names neither captions nor classes."""
    if spec.caption_column is not None:
        return Condition("caption_column", spec.caption_column, NO_CAPTION)
    if spec.class_column is not None:
        return Condition("class_column", spec.class_column, NO_CLASS)
    return None
