"""How texts are read: their ids, and what can be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from raymia.records.base import Given, group_name
from raymia.records.tables import TableRow, read_rows
from raymia.util.hashing import digest_bytes
from raymia.util.reasons import CAME

SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("payload", pa.string()),
        ("is_member", pa.bool_()),
        ("group", pa.string()),
    ]
)
"""One row per record: content id, text, membership (null for candidates), and the group that it
belongs to (null for none)."""
EMPTY = "empty or white space only"
NOT_TEXT = "not a text"
MAX_TEXT = 4_000_000
"""Characters of a record's whole content. To cut as many into tokens takes a gigabyte."""
MAX_TOKENS = 1_000_000
"""Of a record that is given as tokens; about as many as a text of that length has."""
TOO_LONG = (
    f"of more than {MAX_TEXT:,} characters or {MAX_TOKENS:,} tokens; split it into several records"
)
NOT_UNICODE = "not valid Unicode: a surrogate without its pair"


def record_id(payload: str) -> str:
    """The id of a text record: a hash of its content."""
    return digest_bytes(payload.encode())


def is_unicode(text: str) -> bool:
    """Whether a text has no surrogate without its pair, as JSON may spell one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_texts(rows: Iterable[TableRow]) -> Iterator[Given]:
    """Yield the texts of rows that were read as ``text_column``, and why a row holds none."""
    for row in rows:
        text = row.values["text_column"]
        reason = row.why_not("text_column") or why_no_text(text) or why_too_long(len(text))
        if reason is not None:
            yield Given(row.where, reason=reason)
        else:
            group = group_name(row.values.get("group_column"))
            yield Given(row.where, record_id(text), text, group)


def texts_among(path: str, column: str) -> Iterator[str]:
    """Yield the texts of tables, whatever is in them; other values are passed over."""
    for row in read_rows(path, {"text_column": column}):
        if isinstance(row.values["text_column"], str):
            yield row.values["text_column"]


def why_no_text(value: Any) -> str | None:
    """Why a value is not a text with something in it; None where it is."""
    if not isinstance(value, str):
        return f"{NOT_TEXT} but {'null' if value is None else type(value).__name__}"
    if not value.strip():
        return EMPTY
    return None if is_unicode(value) else NOT_UNICODE


def why_too_long(characters: int, tokens: int = 0) -> str | None:
    """Why a record's content cannot be taken for its length; None where it can.

    Parameters
    ----------
    tokens : where the content is nothing else; `characters` is 0 then.
    """
    if characters <= MAX_TEXT and tokens <= MAX_TOKENS:
        return None
    return TOO_LONG + CAME + f"{characters or tokens:,}"
