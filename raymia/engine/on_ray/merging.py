"""Parts of a stream's answers are merged in tasks of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from raymia.engine.merging import LOGGER, Merging, compact_parts, merge_parts
from raymia.engine.on_ray.failures import own_error
from raymia.evidence.store import EvidenceKey


class TaskMerging(Merging):
    """Merges in one task at a time.

    A task reads and writes up to :data:`raymia.evidence.upkeep.MERGED_BYTES`; it takes no CPU of
    those that the stream counts on, and may run on any machine.
    """

    def __init__(self, store_url: str, keys: Sequence[EvidenceKey]) -> None:
        super().__init__(store_url, keys)
        self._running: ray.ObjectRef | None = None

    def is_free(self) -> bool:
        if self._running is not None and ray.wait([self._running], timeout=0)[0]:
            self._end()
        return self._running is None

    def merge(self) -> None:
        self._running = _started(merge_parts, self.store_url, self.folders)

    def compact(self, folder: str) -> None:
        ray.get(_started(compact_parts, self.store_url, folder))

    def finish(self) -> None:
        """Merge what there is still too much of.

        Raises
        ------
        RayError
            What is in the way.
        """
        if self._running is not None:
            self._end()
        super().finish()

    def _end(self) -> None:
        """Take leave of a task; what it could not merge is tried again, in the end by `finish`."""
        try:
            ray.get(self._running)
        except ray.exceptions.RayError as error:
            LOGGER.warning("parts could not be merged yet: %s", own_error(error))
        self._running = None


def _started(task: Callable[..., None], *arguments: Any) -> ray.ObjectRef:
    return ray.remote(num_cpus=0)(task).remote(*arguments)
