"""Keeping what opens a door out of everything that is written or said."""

from __future__ import annotations

import re

_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@\"'<>]+@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&](?:amp;)?[\w-]*(?:signature|credential|token|key|keyid|secret|password|sig)=)[^&\s\"'<>]+",
    re.IGNORECASE,
)


def hidden(text: str) -> str:
    """A text without the credentials of the URLs in it: user and password before the host, and
    values of signing and token parameters, as in presigned URLs.

    Examples
    --------
    >>> hidden("https://me:secret@host/file?Signature=abc")
    'https://***@host/file?Signature=***'
    """
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1***", _USER.sub(r"\1***@", text))
