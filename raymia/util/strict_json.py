"""JSON from outside: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from raymia.util.encodings import why_not_utf8
from raymia.util.errors import InputError

MAX_DEPTH = 100
"""Deepest nesting; more would overflow the stack of whoever goes through it."""


def parse_json(
    text: str | bytes,
    *,
    unique_keys: bool = False,
    hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse JSON.

    Parameters
    ----------
    unique_keys : refuses a key that is written twice, of which the last would win unseen.
    hook : makes objects of their keys and values, where ``unique_keys`` does not.

    Raises
    ------
    ValueError
        For what is no UTF-8 or no JSON, or is JSON that cannot be taken: nested too deeply, a
        number of thousands of digits, a key that is there twice. A json.JSONDecodeError says where.
    """
    if isinstance(text, bytes):
        if (why := why_not_utf8(text)) is not None:
            raise ValueError(why)
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else hook)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def parse_json_of(path: object, text: str | bytes, *, unique_keys: bool = False) -> Any:
    """Parse the JSON of a file.

    Parameters
    ----------
    path : that messages begin with.

    Raises
    ------
    InputError
        Where :func:`parse_json` raises.
    """
    try:
        return parse_json(text, unique_keys=unique_keys)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def parse_array(text: str | bytes) -> list[tuple[Any, str | None]]:
    """Parse JSON that is one array.

    Returns
    -------
    Its elements, each with the reason why it cannot be taken, a key that is written twice in it.

    Raises
    ------
    ValueError
        As :func:`parse_json`.
    """
    twice: dict[int, tuple[dict[str, Any], str]] = {}  # kept, so that no other has its number

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if name := _written_twice(pairs, found):
            twice[id(found)] = found, name
        return found

    elements = parse_json(text, hook=noted)
    reasons = (_first_twice(element, twice) if twice else None for element in elements)
    return list(zip(elements, reasons, strict=True))


def _first_twice(value: Any, twice: Mapping[int, tuple[Any, str]]) -> str | None:
    """What is said of the first object in a value, or of itself, with a key that is there twice."""
    if id(value) in twice:
        return twice[id(value)][1]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((said for one in inner if (said := _first_twice(one, twice))), None)


_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if said := _written_twice(pairs, found):
        raise ValueError(said)
    return found


def _written_twice(pairs: list[tuple[str, Any]], found: Mapping[str, Any]) -> str | None:
    if len(found) == len(pairs):
        return None
    names = [name for name, _ in pairs]
    twice = next(name for n, name in enumerate(names) if name in names[:n])
    return f"the key {twice!r} is written twice"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)
