"""What a config, a header or a server states under a key: a value of another kind is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raymia.util.errors import InputError

MOST = 2**31
"""Above every whole number that counts tokens, channels or sides; larger ones are damage."""
SHOWN = 60
"""Characters of a value that a message quotes."""


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes
    ----------
    words : that stand after "should be".
    holds : whether a value is of it.
    """

    words: str
    holds: Callable[[Any], bool]


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < MOST


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e300 and math.isfinite(value)


def _are(value: Any, kind: Kind) -> bool:
    return isinstance(value, list) and all(kind.holds(one) for one in value)


WHOLE = Kind("a whole number from 1 on", lambda value: _is_whole(value, 1))
COUNT = Kind("a whole number from 0 on", lambda value: _is_whole(value, 0))
NUMBER = Kind("a finite number", _is_number)
TEXT = Kind("a text", lambda value: isinstance(value, str))
TEXTS = Kind("a text, or a list of texts", lambda value: _are(value, TEXT) or TEXT.holds(value))
WHOLES = Kind("a list of whole numbers from 1 on", lambda value: bool(value) and _are(value, WHOLE))
SIDES = Kind(
    "a whole number from 1 on, or two in a list",
    lambda value: WHOLE.holds(value) or (_are(value, WHOLE) and len(value) == 2),
)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object with keys", lambda value: isinstance(value, Mapping))


def stated(content: Mapping[str, Any], key: str, kind: Kind, where: str) -> Any:
    """The value under a key, which is of a kind.

    Parameters
    ----------
    where : stands before the sentence: the file or the server, and what names it.

    Raises
    ------
    InputError
        Naming the key, what was expected and what came.
    """
    value = content.get(key)
    if kind.holds(value):
        return value
    came = f"is {shown(value)}" if key in content else "is missing"
    raise InputError(f"{where}: {key} should be {kind.words}, but {came}")


def stated_if(content: Mapping[str, Any], key: str, kind: Kind, where: str) -> Any | None:
    """The same, or None where there is no such key, or a null under it."""
    return None if content.get(key) is None else stated(content, key, kind, where)


def shown(value: Any) -> str:
    """The beginning of a value, as a message quotes it."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
