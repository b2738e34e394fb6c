"""Records that every sound model can answer about: the form of one that is given, without its
content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

WORDS = "The sun rose over the hills, and the birds began to sing."
GRAY = b"\x80"
TOKENS, LARGEST = 16, 8
"""Tokens that are kept of a record's, and below which number each is."""
OF_THE_FORM = frozenset({"role", "type", "tools"})
"""Keys of conversations that say what stands beside them."""


def harmless(payload: Any) -> Any:
    """A payload of the same form: plain words for texts, gray for pixels, small ids for tokens."""
    if isinstance(payload, str):
        content = _object_in(payload)
        return WORDS if content is None else json.dumps(harmless(content))
    if isinstance(payload, bytes):
        return GRAY * len(payload)
    if isinstance(payload, Mapping):
        return {k: v if k in OF_THE_FORM else harmless(v) for k, v in payload.items()}
    if isinstance(payload, list):
        is_of_tokens = all(isinstance(one, int) for one in payload)
        return [*map(_small, payload[:TOKENS])] if is_of_tokens else [*map(harmless, payload)]
    return payload


def _object_in(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _small(token: int) -> int:
    """A token that every vocabulary has; what marks one that is not scored stays."""
    return token if token < 0 else token % LARGEST
