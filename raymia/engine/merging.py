"""Parts that a stream leaves in its store are merged while it runs, so that they stay few."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from raymia.evidence.store import PART, EvidenceKey, EvidenceStore
from raymia.evidence.upkeep import MAX_PARTS, compact, merge_alike
from raymia.util.errors import RaymiaError

LOGGER = logging.getLogger(__name__)


class Merging:
    """Merges the parts of keys whenever as many blocks have passed as there may be parts."""

    def __init__(self, store_url: str, keys: Sequence[EvidenceKey]) -> None:
        self.store_url = store_url
        self.folders = sorted({key.folder for key in keys})
        self._passed = 0

    def after_block(self) -> None:
        """Merge if it is time."""
        self._passed += 1
        if self._passed >= MAX_PARTS and self.is_free():
            self._passed = 0
            self.merge()

    def is_free(self) -> bool:
        """Whether parts may be merged now."""
        return True

    def merge(self) -> None:
        """Merge; what cannot be merged now is tried again, in the end by :meth:`finish`."""
        try:
            merge_parts(self.store_url, self.folders)
        except (OSError, RaymiaError) as error:
            LOGGER.warning("parts could not be merged yet: %s", error)

    def compact(self, folder: str) -> None:
        """Merge the parts of a key to as few as they may be."""
        compact_parts(self.store_url, folder)

    def finish(self) -> None:
        """Merge what there is still too much of."""
        store = EvidenceStore(self.store_url)
        for folder in self.folders:
            if len(store.folder.names(folder, PART)) > MAX_PARTS:
                self.compact(folder)


def merge_parts(store_url: str, folders: Sequence[str]) -> None:
    """Merge the parts of some keys that are too many of one size."""
    store = EvidenceStore(store_url)
    for folder in folders:
        merge_alike(store, folder)


def compact_parts(store_url: str, folder: str) -> None:
    """Merge the parts of a key to as few as they may be."""
    compact(EvidenceStore(store_url), folder)
