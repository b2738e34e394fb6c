"""JSON from outside: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 100
"""Deepest nesting; more would overflow the stack of whoever goes through it."""


def parse_json(text: str | bytes, *, unique_keys: bool = False) -> Any:
    """Parse JSON.

    Parameters
    ----------
    unique_keys : refuses a key that is written twice, of which the last would win unseen.

    Raises
    ------
    ValueError
        For what is no UTF-8 or no JSON, or is JSON that cannot be taken: nested too deeply, a
        number of thousands of digits, a key that is there twice. A json.JSONDecodeError says where.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise ValueError(f"the key {twice!r} is written twice")
    return found


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
