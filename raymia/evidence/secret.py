"""A secret of a store, by which redacted reports call its records."""

from __future__ import annotations

import secrets
from contextlib import suppress

from raymia.storage.files import Folder
from raymia.util.errors import RaymiaError

SECRET_FILE = "redaction.key"
BYTES = 32


def secret_of(store: Folder) -> bytes:
    """The store's secret, drawn when it is first asked for; of a store that is not there, or cannot
    be written to, one that nobody will have again."""
    if not store.exists(SECRET_FILE):
        drawn = secrets.token_bytes(BYTES)
        if not store.exists(""):
            return drawn
        try:
            store.write(SECRET_FILE, drawn)
        except (OSError, RaymiaError):
            return drawn
        if store.is_local:
            with suppress(OSError):
                store.local_copy(SECRET_FILE).chmod(0o600)
    return store.read(SECRET_FILE)
