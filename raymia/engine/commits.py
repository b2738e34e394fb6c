"""Answers are committed by a thread of its own, while a model is asked what comes next."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from raymia.evidence.store import EvidenceKey, EvidenceStore


class Commits:
    """Commits in the order in which answers come, and nothing more once a commit has failed:
    answers about neighbors are never stored without the neighbors."""

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "commits")
        self._error: Exception | None = None

    def add(self, key: EvidenceKey, answers: pa.Table, done: Callable[[], None]) -> Future[None]:
        """Have answers committed.

        Parameters
        ----------
        done : called when they are.

        Returns
        -------
        What is to be waited for before anybody relies on them; it raises an error of the store.
        """
        return self._thread.submit(self._commit, key, answers, done)

    def _commit(self, key: EvidenceKey, answers: pa.Table, done: Callable[[], None]) -> None:
        if self._error is not None:
            raise self._error
        try:
            self._store.commit(key, answers)
        except Exception as error:
            self._error = error
            raise
        done()

    def has_answers(self, key: EvidenceKey) -> bool:
        """Whether the store has an answer under a key that is no error, once all that was added
        before is committed; an earlier run or another worker may have given it."""
        return self._thread.submit(self._has_answers, key).result()

    def _has_answers(self, key: EvidenceKey) -> bool:
        return any(table["error"].null_count for table in self._store.parts(key, ["error"]))

    def close(self) -> None:
        """Wait until all is committed, or has failed."""
        self._thread.shutdown()
