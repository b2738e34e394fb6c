"""Parts that a stream leaves in its store are merged while it runs, so that they stay few."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray

from raymia.engine.on_ray.failures import own_error
from raymia.evidence.store import PART, EvidenceKey, EvidenceStore
from raymia.evidence.upkeep import MAX_PARTS, compact, merge_alike

LOGGER = logging.getLogger(__name__)


class Merging:
    """Merges the parts of keys in tasks of their own, one at a time, whenever as many blocks have
    passed as there may be parts.

    A task reads and writes up to :data:`raymia.evidence.upkeep.MERGED_BYTES`; it takes no CPU of
    those that the stream counts on, and may run on any machine.
    """

    def __init__(self, store_url: str, keys: Sequence[EvidenceKey]) -> None:
        self._store_url = store_url
        self._folders = sorted({key.folder for key in keys})
        self._passed = 0
        self._running: ray.ObjectRef | None = None

    def after_block(self) -> None:
        """Start to merge if it is time."""
        self._passed += 1
        if self._passed < MAX_PARTS or self._is_at_work():
            return
        self._passed = 0
        self._running = _started(merge_parts, self._store_url, self._folders)

    def _is_at_work(self) -> bool:
        if self._running is None:
            return False
        ready, _ = ray.wait([self._running], timeout=0)
        if ready:
            self._end()
        return not ready

    def _end(self) -> None:
        """Take leave of a task; what it could not merge is tried again, in the end by `finish`."""
        try:
            ray.get(self._running)
        except ray.exceptions.RayError as error:
            LOGGER.warning("parts could not be merged yet: %s", own_error(error))
        self._running = None

    def finish(self) -> None:
        """Merge what there is still too much of.

        Raises
        ------
        RayError
            What is in the way.
        """
        if self._running is not None:
            self._end()
        store = EvidenceStore(self._store_url)
        for folder in self._folders:
            if len(store.folder.names(folder, PART)) > MAX_PARTS:
                ray.get(_started(compact_parts, self._store_url, folder))


def _started(task: Callable[..., None], *arguments: Any) -> ray.ObjectRef:
    return ray.remote(num_cpus=0)(task).remote(*arguments)


def merge_parts(store_url: str, folders: Sequence[str]) -> None:
    """Merge the parts of some keys that are too many of one size."""
    store = EvidenceStore(store_url)
    for folder in folders:
        merge_alike(store, folder)


def compact_parts(store_url: str, folder: str) -> None:
    """Merge the parts of a key to as few as they may be."""
    compact(EvidenceStore(store_url), folder)
