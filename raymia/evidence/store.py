"""The evidence store: answers of models, kept in Parquet, keyed by content.

Layout under the store's folder::

    evidence/<kind>/<key>/key.json         what the key was hashed from, readable
    evidence/<kind>/<key>/<part>.parquet   rows (record_id, neighbor, ...), written then renamed
    prepared/<key>/                        a reference model that was made, what it was trained on,
                                           or a part of that; facts.json, and the hashes of its
                                           files in files.sha256

A part is named by the rows it answers, so an answer that is computed twice (a retried task, an
orphan of a killed run) lands on the same name or repeats rows, and reading drops the repetition.
So several runs may write to one store at once, and parts may be merged while others read and write
(:mod:`raymia.evidence.upkeep`).
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from raymia.evidence.integrity import (
    ROW_KEY,
    is_proven,
    proof_of,
    why_changed,
    why_impossible,
    why_other_schema,
)
from raymia.evidence.row_index import Cells, RowIndex
from raymia.storage.downloads import cache_folder
from raymia.storage.files import Folder
from raymia.storage.remote import StorageError
from raymia.util.errors import RaymiaError
from raymia.util.hashing import digest, digest_file, digest_lists
from raymia.util.strict_json import parse_json

READ_THREADS = 8
FEW_THREADS = 2
"""Read and let go at once, where many parts are looked through: one may be of 128 MB, and three
times as large in memory."""
READ_ATTEMPTS = 50
NAMED_AT_ONCE = 2**16
"""Rows of a part that are lists of Python at once: a part of neighbors has millions."""
PART = ".parquet"
PREPARED_MARKER = "facts.json"
PREPARED_HASHES = "files.sha256"
"""Lines of a hash and a name; models are known by other files, so that it changes no key."""


@dataclass(frozen=True)
class EvidenceKey:
    """What a table of evidence depends on.

    Attributes
    ----------
    kind : the table's kind and folder, as ``text.tokens``.
    parts : everything that can change an answer: the model's fingerprint, the parameters of the
        question, the neighbors' key, the version of the scoring code.
    """

    kind: str
    parts: Mapping[str, Any]

    @cached_property
    def hash(self) -> str:
        return digest({"kind": self.kind, **self.parts})

    @property
    def folder(self) -> str:
        return f"evidence/{self.kind}/{self.hash}"


class EvidenceStore:
    """Reads and writes evidence under a local folder or any fsspec URL.

    Attributes
    ----------
    unproven : what this object has read that carries no hashes: parts of evidence by their names,
        prepared models by their folders.
    """

    def __init__(self, url: str) -> None:
        self.folder = Folder(url)
        self.unproven: set[str] = set()
        self._verified: set[str] = set()
        self._described: set[str] = set()

    def check(self) -> None:
        """Write a file and remove it.

        Raises
        ------
        RaymiaError
            If the store cannot be written to.
        """
        try:
            self.folder.try_writing()
        except (OSError, StorageError) as error:
            raise RaymiaError(f"store: {self.folder.url} cannot be written to: {error}") from None

    def commit(self, key: EvidenceKey, table: pa.Table) -> None:
        """Write the rows of one answer; a repetition of the same rows replaces itself.

        Parameters
        ----------
        table : rows with columns ``record_id`` (string) and ``neighbor`` (int16) and the payload
            of the key's kind.

        Raises
        ------
        RaymiaError
            If a value is one that no model can have answered.
        """
        if table.num_rows == 0:
            return
        if (why := why_impossible(table)) is not None:
            raise RaymiaError(f"{key.kind}: an answer that cannot be, and is not stored: {why}")
        name = f"{key.folder}/key.json"
        if key.folder not in self._described and not self.folder.exists(name):
            content = {"kind": key.kind, **key.parts}
            self.folder.write(name, json.dumps(content, indent=2, sort_keys=True).encode())
        self._described.add(key.folder)
        self.write_part(key.folder, table)

    def write_part(self, folder: str, table: pa.Table, proven: bool = True) -> str:
        """Write rows into a key's folder under the name that they give; returns the name.

        Parameters
        ----------
        proven : whether the rows are known to be those that were answered.
        """
        name = part_name(table)
        buffer = io.BytesIO()
        proof = proof_of(table, folder.rsplit("/", 1)[1], proven)
        # Without statistics no reader passes over rows that were not verified. Arrow's own copy of
        # the schema says nothing that Parquet's does not, and is as large as a few rows.
        options = {"compression": "zstd", "write_statistics": False, "store_schema": False}
        with pq.ParquetWriter(buffer, table.schema, **options) as writer:
            writer.add_key_value_metadata(proof)
            writer.write_table(table)
        self.folder.write(f"{folder}/{name}", buffer.getvalue())
        return name

    def read(
        self,
        key: EvidenceKey,
        columns: list[str] | None = None,
        records: Sequence[str] | None = None,
    ) -> pa.Table | None:
        """Read the rows of a key, each (record, neighbor) once; None where there are none.

        Parameters
        ----------
        records : read the rows of these records alone.
        """
        at_once = READ_THREADS if records is None else FEW_THREADS
        found = dict(self._parts(key.folder, columns, records, at_once))
        tables = [found[name] for name in sorted(found)]
        return first_of_each(pa.concat_tables(tables)) if tables else None

    def parts(
        self, key: EvidenceKey, columns: list[str], at_once: int = READ_THREADS
    ) -> Iterator[pa.Table]:
        """The rows of a key part by part, so that few are held; a row may come more than once."""
        return (table for _, table in self._parts(key.folder, columns, None, at_once))

    def _parts(
        self,
        folder: str,
        columns: list[str] | None,
        records: Sequence[str] | None,
        at_once: int,
    ) -> Iterator[tuple[str, pa.Table]]:
        """Read the parts of a key, so many at once, with their names.

        They are listed again after they were read, and until none of those that were listed has
        vanished: parts that are merged meanwhile are read in what they became, and a listing that
        runs while parts are merged may show neither.
        """
        if self.folder.is_local:  # nothing is waited for, and each thread holds a part
            at_once = min(at_once, os.cpu_count() or 1)
        wanted = None if columns is None else [*ROW_KEY, *(c for c in columns if c not in ROW_KEY)]
        seen: set[str] = set()

        def read(name: str) -> pa.Table | None:
            try:
                return self.read_part(f"{folder}/{name}", wanted, records)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(at_once) as pool:
            for attempt in range(READ_ATTEMPTS):
                new = [name for name in self.folder.names(folder, PART) if name not in seen]
                for start in range(0, len(new), at_once):
                    names = new[start : start + at_once]
                    for name, table in zip(names, pool.map(read, names), strict=True):
                        if table is not None:
                            seen.add(name)
                            yield name, table.replace_schema_metadata(None)
                if attempt and seen.issuperset(new):
                    return
        raise RaymiaError(
            f"{self.folder.url}/{folder}: files vanish while they are read; is somebody deleting "
            "them?"
        )

    def read_part(
        self,
        name: str,
        columns: list[str] | None = None,
        records: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read one part, or its rows of some records alone, and verify it.

        Parameters
        ----------
        columns : those to read; record_id must be among them where ``records`` is given.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        RaymiaError
            If it is damaged, belongs to another key, or holds values that cannot be.
        """
        # Of some columns, no more than these is fetched: from another machine by several calls,
        # between which another worker may put the same rows, answered anew, in the part's place.
        table, why = self._read_part(name, columns, whole=not columns)
        if why is not None and columns and not self.folder.is_local:
            table, why = self._read_part(name, columns, whole=True)
        if table is None or why is not None:
            raise RaymiaError(
                f"{self.folder.url}/{name}: damaged evidence file ({why}); "
                "delete it and run the audit again: only its rows are asked again"
            )
        if not is_proven(table.schema):
            self.unproven.add(name)
        if records is None:
            return table
        return table.filter(pc.is_in(table["record_id"], pa.array(records, pa.string())))

    def _read_part(
        self, name: str, columns: list[str] | None, *, whole: bool
    ) -> tuple[pa.Table | None, str | None]:
        """A part, and why it is damaged; None where it is not.

        Parameters
        ----------
        whole : whether all of the file is fetched, by one call.
        """
        try:
            with io.BytesIO(self.folder.read(name)) if whole else self.folder.open(name) as file:
                table = pq.read_table(file, columns=columns)
            kind, key = name.split("/")[-3:-1]
            return table, (
                why_other_schema(table, kind, columns)
                or why_changed(table, key)
                or why_impossible(table)
            )
        except (FileNotFoundError, RaymiaError):
            raise
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, MemoryError) as error:
            return None, str(error) or type(error).__name__

    def present(self, key: EvidenceKey, records: RowIndex, indices: range) -> Cells:
        """Which records have an answer about which index, bool [records, indices]."""
        found = np.zeros((len(records), len(indices)), bool)
        for table in self.parts(key, []):
            _, rows, columns = records.cells_of(table, indices)
            found[rows, columns] = True
        return found

    def stored_keys(self, kind: str) -> set[str]:
        """Hashes of the keys of a kind that something is stored under, from one listing."""
        return set(self.folder.names(f"evidence/{kind}", ""))

    def prepared_facts(self, key: str) -> dict[str, Any] | None:
        """The facts of a prepared model; None while it is not finished."""
        name = f"prepared/{key}/{PREPARED_MARKER}"
        if not self.folder.exists(name):
            return None
        try:
            facts: dict[str, Any] = parse_json(self.folder.read(name))
        except ValueError as error:
            raise RaymiaError(
                f"{self.folder.url}/{name}: not valid JSON ({error}); delete the folder "
                f"prepared/{key} of the store, and the reference is made again"
            ) from None
        return facts

    def prepared_path(self, key: str) -> Path:
        """A local folder with a prepared model, verified once by this store object.

        Raises
        ------
        RaymiaError
            If a file is not the one that was made.
        """
        path = self.folder.local_copy(f"prepared/{key}")
        if key not in self._verified and (wrong := list(changed_files(path))):
            raise RaymiaError(
                f"{self.folder.url}/prepared/{key}: {', '.join(wrong)}: not as it was made; delete "
                "the folder, and it is made again"
            )
        self._verified.add(key)
        if not (path / PREPARED_HASHES).exists():
            self.unproven.add(f"prepared/{key}")
        return path

    @contextmanager
    def workplace(self, key: str) -> Iterator[Path]:
        """A local folder in which what a key names is made, by one process at a time.

        It is removed at the end of the block. What a killed process, or one that failed, has made
        there stays, and the next finds it: in a store on this machine for whoever shares it, in a
        remote one for processes of this machine.
        """
        folder = self._shared / "training" / key
        with _lock_of(folder, timeout=-1):
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def turn(self, name: str, waiting: Callable[[], None]) -> Iterator[bool]:
        """One process at a time is in a block of a name, of those that share the store as in
        :meth:`workplace`; whether this one had to wait, which it says before it does."""
        lock = _lock_of(self._shared / "turns" / name, timeout=0)
        waited = False
        try:
            lock.acquire()
        except Timeout:
            waiting()
            waited = True
            lock.acquire(timeout=-1)
        try:
            yield waited
        finally:
            lock.release()

    @property
    def _shared(self) -> Path:
        """A folder of this machine's processes that work on one store."""
        return Path(self.folder.path("")) if self.folder.is_local else cache_folder()

    def is_in_work(self, folder: str) -> bool:
        """Whether a process is making something in a workplace of a store on this machine."""
        try:
            with _lock_of(Path(self.folder.path(folder)), timeout=0):
                return False
        except Timeout:
            return True

    def remove_prepared(self, keys: Collection[str]) -> None:
        """Remove finished folders, those that are there; each first counts as unfinished."""
        for key in self.folder.names("prepared", ""):
            if key in keys:
                with suppress(FileNotFoundError):
                    self.folder.remove(f"prepared/{key}/{PREPARED_MARKER}")
                with suppress(FileNotFoundError):  # a run beside this one removes it, too
                    self.folder.remove_folder(f"prepared/{key}")

    def commit_prepared(self, key: str, folder: Path) -> None:
        """Move a finished model folder, with its facts.json, into the store."""
        lines = [f"{digest_file(folder / name)}  {name}\n" for name in _files_in(folder)]
        (folder / PREPARED_HASHES).write_text("".join(lines), encoding="utf-8")
        self.folder.commit_folder(folder, f"prepared/{key}", PREPARED_MARKER)


def _lock_of(workplace: Path, timeout: float) -> FileLock:
    """Outside of the workplace, which is removed while others wait for it."""
    lock = workplace.parent.with_name("locks") / workplace.name
    lock.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(lock, timeout=timeout)


def changed_files(folder: Path) -> Iterator[str]:
    """Files of a prepared folder that are not as they were made, are missing, or came later.

    A folder of an earlier version has no hashes, and nothing is found.
    """
    try:
        lines = (folder / PREPARED_HASHES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        yield PREPARED_HASHES
        return
    made = {name: expected for expected, _, name in (line.partition("  ") for line in lines)}
    there = _files_in(folder)
    yield from sorted(made.keys() ^ set(there))
    yield from (name for name in there if name in made and digest_file(folder / name) != made[name])


def _files_in(folder: Path) -> list[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    return [name for name in names if name != PREPARED_HASHES]


def part_name(table: pa.Table) -> str:
    """The name of a part: a hash of the rows it answers, whatever their order."""
    keys = table.select(list(ROW_KEY))
    order = pc.sort_indices(keys, [(column, "ascending") for column in ROW_KEY])
    pieces = (
        row_keys(keys.take(order.slice(start, NAMED_AT_ONCE)))
        for start in range(0, len(order), NAMED_AT_ONCE)
    )
    return digest_lists(pieces) + PART


def row_keys(table: pa.Table) -> list[tuple[str, int]]:
    """The (record, neighbor) of each row."""
    return list(zip(*(table[c].to_pylist() for c in ROW_KEY), strict=True))


def first_of_each(table: pa.Table) -> pa.Table:
    """Rows of which no two answer the same; of those that do, the first."""
    numbered = table.append_column("__row", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by(list(ROW_KEY)).aggregate([("__row", "min")])["__row_min"]
    if len(first) == table.num_rows:
        return table
    rows = first.combine_chunks()
    return table.take(rows.take(pc.sort_indices(rows)))
