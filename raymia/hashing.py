"""Content hashes: what every key in the evidence store is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_HEX_CHARS = 32
"""128 bits: a collision among 10^12 keys has a probability below 10^-14."""


def digest(value: Any) -> str:
    """Hash a JSON-serializable value; equal values give equal digests whatever their key order."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(canonical.encode())


def digest_bytes(content: bytes) -> str:
    """Hash raw bytes, as a record's payload."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_HEX_CHARS]


def digest_file(path: Path) -> str:
    """Hash a file's content without reading it into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_HEX_CHARS]
