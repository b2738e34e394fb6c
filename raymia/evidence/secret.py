"""A secret of a store, by which redacted reports call its records."""

from __future__ import annotations

import secrets

from raymia.storage.files import Folder
from raymia.util.errors import RaymiaError

SECRET_FILE = "redaction.key"
BYTES = 32


def secret_of(store: Folder) -> bytes:
    """The store's secret, drawn when it is first asked for; of a store that is not there, or cannot
    be written to, one that nobody will have again.

    Of several who ask first, all have the secret that was written first, where the store is on a
    disk that has hard links or in an object store that writes on condition. On such a disk nobody
    else can ever read it.
    """
    if not store.exists(SECRET_FILE):
        drawn = secrets.token_bytes(BYTES)
        if not store.exists(""):
            return drawn
        try:
            if not store.create(SECRET_FILE, drawn, mode=0o600) and not store.exists(SECRET_FILE):
                store.write(SECRET_FILE, drawn)  # a disk without links, or a store like it
                if store.is_local:
                    store.local_copy(SECRET_FILE).chmod(0o600)
        except (OSError, RaymiaError):
            return drawn
    return store.read(SECRET_FILE)
