"""Keeping what opens a door, or takes over a terminal, out of what is written or said."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, TextIO

_END = r"\s\"'<>"
_USER = re.compile(rf"(\b[a-z][a-z0-9+.-]*://)[^/{_END}@]+@", re.IGNORECASE)
_PASSWORD = re.compile(
    rf"(\b(?!file:)[a-z][a-z0-9+.-]*:///?)[^/{_END}@:]*:[^{_END}]*@", re.IGNORECASE
)
"""With a slash or an @ in it, which should be written as %2F and %40, and seldom is; and behind
the third slash that filesystems without hosts put there."""
_TOKEN = re.compile(rf"(\bhttps?://)(?![a-z0-9-]+(?:\.[a-z0-9-]+)*(?::\d+)?/)[^{_END}]*@")
"""The same without a colon, where what is before the slash is not written as hosts are."""
_QUERY = re.compile(
    r"([?&](?:amp;)?[\w-]*(?:signature|credential|token|key|keyid|secret|password|sig)=)"
    rf"[^&\\{_END}]+",
    re.IGNORECASE,
)
"""No backslash, which a URL writes as %5C: it begins an escape in JSON and in YAML."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All but the line break and the tab; and what turns the direction of writing."""


def hidden(text: str) -> str:
    """A text without the credentials of the URLs in it: user and password before the host, and
    values of signing and token parameters, as in presigned URLs.

    For what a person reads. What becomes JSON or YAML is hidden before, by :func:`hidden_in`: in
    the text that is made of it, the end of a string is not where it is in the string.

    Examples
    --------
    >>> hidden("https://me:secret@host/file?Signature=abc")
    'https://***@host/file?Signature=***'
    """
    # No URL goes over a line's end, and a report has lines of a million letters without one.
    lines = (_without_user(line) if "://" in line else line for line in text.split("\n"))
    return _QUERY.sub(r"\1***", "\n".join(lines))


def hidden_in(value: Any) -> Any:
    """What JSON can hold, with each of its strings and keys :func:`hidden` by itself.

    Examples
    --------
    >>> hidden_in({"why": ['open("https://host/file?key=abc")', 1]})
    {'why': ['open("https://host/file?key=***")', 1]}
    """
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, dict):
        return {hidden_in(key): hidden_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hidden_in(inner) for inner in value]
    return value


def hidden_json(text: str) -> str:
    """JSON, written anew with its strings :func:`hidden` one by one."""
    return json.dumps(hidden_in(json.loads(text)), indent=2, ensure_ascii=False)


def _without_user(line: str) -> str:
    for before_host in (_USER, _PASSWORD, _TOKEN):
        line = before_host.sub(r"\1***@", line)
    return line


def sayable(text: str) -> str:
    """A text as it may be said: :func:`hidden`, and with a question mark for each control
    character, by which a server's or a file's words could take over a terminal, and for each byte
    of a file's name that is no Unicode, which no file of UTF-8 can hold.

    Examples
    --------
    >>> sayable("\x1b[2J")
    '?[2J'
    """
    return _CONTROLS.sub("?", hidden(text)).encode(errors="replace").decode()


def say(text: str, to: TextIO | None = None) -> None:
    """Print a line at once, :func:`sayable`; to standard output if not to another stream."""
    print(sayable(text), file=to or sys.stdout, flush=True)
