"""Looking after an evidence store: what is in it, whether it is whole, fewer files, less of it.

Everything here may run while audits read and write. A file is deleted only once another holds what
it held, or if nobody needs it; what was written a short while ago counts as being written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raymia.evidence.integrity import ROW_KEY, is_proven
from raymia.evidence.sealed import SEALED_ROOMS, check_small, is_sealed
from raymia.evidence.store import (
    PART,
    PREPARED_HASHES,
    PREPARED_MARKER,
    READ_THREADS,
    EvidenceStore,
    changed_files,
    first_of_each,
    part_name,
)
from raymia.storage.files import FileEntry
from raymia.storage.moves import TEMPORARY_PREFIX
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest
from raymia.util.strict_json import parse_json

MAX_PARTS = 64
"""Parts of one key that are left as they are."""
MERGED_BYTES = 128 * 2**20
"""Parts are merged up to this size, so that merging needs little memory."""
BEING_WRITTEN = timedelta(days=1)
"""Younger files are left alone: somebody may be writing beside them."""
DEPTHS = {
    "evidence": 3,
    "prepared": 2,
    "training": 2,
    "corpus": 2,
    "scores": 2,
    "sweeps": 2,
    "rates": 1,
}
"""Parts of a name that make a key, by room: rates are one, since each is a hundred bytes."""
UNFINISHED = ("training/", "scores/")
"""Where work lies that is not finished, of which nothing is verified."""


@dataclass(frozen=True)
class StoredThing:
    """What one key of a store keeps.

    Attributes
    ----------
    folder : below the store's own: ``evidence/KIND/KEY``, ``prepared/KEY``, ``sweeps/KEY``, a file
        of counts, or ``rates``.
    files : complete ones.
    incomplete : files that are being written, or whose writer was killed.
    """

    folder: str
    files: tuple[FileEntry, ...]
    incomplete: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """The size in bytes, with incomplete files."""
        return sum(file.size for file in (*self.files, *self.incomplete))

    @property
    def modified(self) -> datetime:
        return max(file.modified for file in (*self.files, *self.incomplete))

    @property
    def parts(self) -> list[FileEntry]:
        return [file for file in self.files if file.name.endswith(PART)]

    def is_older_than(self, age: timedelta, now: datetime) -> bool:
        return now - self.modified > age


def stored_things(store: EvidenceStore) -> list[StoredThing]:
    """What a store keeps, key by key.

    Raises
    ------
    InputError
        If there is no store.
    """
    found: dict[str, list[FileEntry]] = {}
    for room, depth in DEPTHS.items():
        for entry in store.folder.entries(room):
            found.setdefault("/".join(entry.name.split("/")[:depth]), []).append(entry)
    if not found:
        raise InputError(f"{store.folder.url}: no evidence store, or an empty one")
    return [
        StoredThing(
            folder,
            tuple(e for e in entries if not _is_incomplete(e)),
            tuple(e for e in entries if _is_incomplete(e)),
        )
        for folder, entries in sorted(found.items())
    ]


def _is_incomplete(entry: FileEntry) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in entry.name.split("/"))


@dataclass(frozen=True)
class KeyFacts:
    """What a key of evidence was hashed from, as far as it is known, and how much it holds."""

    kind: str
    model: str
    question: str
    rows: int


def key_facts(store: EvidenceStore, thing: StoredThing) -> KeyFacts:
    """Read a key's facts, and the footers of its parts."""
    rows = _rows(store, thing)
    try:
        content = parse_json(store.folder.read(f"{thing.folder}/key.json"))
    except (OSError, ValueError):
        return KeyFacts(thing.folder.split("/")[1], "", "", rows)
    others = {k: v for k, v in content.items() if k not in ("kind", "model", "version")}
    question = ", ".join(f"{k}={json.dumps(v)}" for k, v in sorted(others.items()) if v)
    return KeyFacts(str(content.get("kind")), str(content.get("model", "")), question, rows)


def _rows(store: EvidenceStore, thing: StoredThing) -> int:
    def count(entry: FileEntry) -> int:
        try:
            with store.folder.open(entry.name) as file:
                return int(pq.read_metadata(file).num_rows)
        except (OSError, pa.ArrowInvalid):
            return 0  # damaged, which `verify` says; or merged since

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return sum(pool.map(count, thing.parts))


# ------------------------------------------------------------------------- whole?


def verify(store: EvidenceStore, thing: StoredThing) -> Iterator[str]:
    """Read everything that a key keeps, and tell what is wrong with it."""
    now = store.folder.clock() if thing.incomplete else datetime.now(UTC)
    for entry in thing.incomplete:
        age = now - entry.modified
        if age > BEING_WRITTEN:
            hours = age.total_seconds() / 3600
            yield f"{entry.name}: left by a writer that was killed {hours:.0f} h ago"
    if not thing.files:
        return
    room = thing.folder.split("/", 1)[0]
    if room == "evidence":
        yield from _verify_evidence(store, thing)
    elif room == "prepared":
        yield from _verify_prepared(store, thing)
    elif room in SEALED_ROOMS or room == "rates":
        yield from _verify_small(store, thing)


def _verify_small(store: EvidenceStore, thing: StoredThing) -> Iterator[str]:
    for entry in thing.files:
        try:
            with suppress(FileNotFoundError):  # deleted since
                check_small(store, entry.name)
        except RaymiaError as error:
            yield str(error)


def _verify_evidence(store: EvidenceStore, thing: StoredThing) -> Iterator[str]:
    name = f"{thing.folder}/key.json"
    try:
        if digest(parse_json(store.folder.read(name))) != thing.folder.rsplit("/", 1)[1]:
            yield f"{name}: does not give the key that its folder is named by"
    except FileNotFoundError:
        yield f"{name}: is missing, so that nobody can tell what the answers are of"
    except (OSError, ValueError) as error:
        yield f"{name}: no readable JSON: {error}"

    def look(entry: FileEntry) -> tuple[pa.Schema | None, list[str]]:
        try:
            table = store.read_part(entry.name)
        except FileNotFoundError:
            return None, []  # merged since
        except RaymiaError as error:
            return None, [str(error)]
        problems = []
        if part_name(table) != entry.name.rsplit("/", 1)[1]:
            problems.append(f"{entry.name}: holds other rows than it is named by")
        if any(table[column].null_count for column in ROW_KEY):
            problems.append(f"{entry.name}: has rows of no record")
        return table.schema, problems

    first: pa.Schema | None = None
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for entry, (schema, problems) in zip(thing.parts, pool.map(look, thing.parts), strict=True):
            yield from problems
            first = first or schema
            if schema is not None and first is not None and not schema.equals(first):
                yield (
                    f"{entry.name}: has the columns {', '.join(schema.names)}, and parts before it "
                    f"{', '.join(first.names)}, or of other types"
                )


def unproven(store: EvidenceStore, thing: StoredThing) -> int:
    """How many files of a key nothing proves, since an earlier version wrote them or what they were
    merged from, or another program has written them anew.

    A change that leaves such a file readable is not seen.
    """
    if thing.folder.startswith("prepared/"):
        names = {file.name.rsplit("/", 1)[-1] for file in thing.files}
        return 0 if PREPARED_HASHES in names else len(thing.files)
    if thing.folder.startswith(SEALED_ROOMS):
        return sum(not is_sealed(store.folder, file.name) for file in thing.files)
    if not thing.folder.startswith("evidence/"):
        return 0

    def is_sound(entry: FileEntry) -> bool:
        try:
            with store.folder.open(entry.name) as file:
                return is_proven(pq.read_schema(file))
        except (OSError, pa.ArrowException):
            return True  # damaged, which `verify` says; or merged since

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return sum(not sound for sound in pool.map(is_sound, thing.parts))


def _verify_prepared(store: EvidenceStore, thing: StoredThing) -> Iterator[str]:
    names = {file.name.removeprefix(f"{thing.folder}/") for file in thing.files}
    if PREPARED_MARKER not in names:
        if thing.is_older_than(BEING_WRITTEN, store.folder.clock()):
            yield f"{thing.folder}: has no {PREPARED_MARKER}, so it was never finished"
        return
    folder = store.folder.local_copy(thing.folder)
    for name in changed_files(folder):
        yield f"{thing.folder}/{name}: not as it was made; delete the folder to have it made again"
    if PREPARED_HASHES in names:
        return
    for name in sorted(names):
        try:
            if name.endswith(".safetensors"):
                read_header(folder / name, thing.folder)
            elif name.endswith(PART):
                pq.read_metadata(folder / name)
            elif name.endswith(".json"):
                parse_json((folder / name).read_bytes())
        except (OSError, ValueError, RaymiaError) as error:
            yield (
                f"{thing.folder}/{name}: damaged ({error}); delete the folder to have it made again"
            )


# --------------------------------------------------------------------- fewer files


def compact(
    store: EvidenceStore, folder: str, max_parts: int = MAX_PARTS, merged: int = MERGED_BYTES
) -> int:
    """Merge a key's parts where there are too many.

    What they are merged into is written before one is deleted. A kill in between leaves rows twice,
    and reading drops the repetition. Two that merge at once do the same.

    Parameters
    ----------
    max_parts : a key with no more is left alone.
    merged : parts are merged up to this many bytes.

    Returns
    -------
    How many files there are fewer.
    """
    if len(store.folder.names(folder, PART)) <= max_parts:
        return 0
    return sum(_merge(store, folder, group) for group in _groups(_whole(store, folder), merged))


def merge_alike(
    store: EvidenceStore, folder: str, max_alike: int = MAX_PARTS, merged: int = MERGED_BYTES
) -> int:
    """Merge parts of about one size, of which there are too many, while others are written.

    What was merged is larger, and is merged again only with as many of its own size. So a row is
    written a few times however many come after it, and a key has at most ``max_alike`` parts of
    each of a few sizes, beside those that are large enough.

    Parameters
    ----------
    max_alike : parts of one size that are left as they are.
    merged : parts are merged up to this many bytes.

    Returns
    -------
    How many files there are fewer.
    """
    if len(store.folder.names(folder, PART)) <= max_alike:
        return 0
    sizes: dict[int, list[FileEntry]] = {}
    for entry in _whole(store, folder):
        sizes.setdefault(entry.size.bit_length() // max_alike.bit_length(), []).append(entry)
    return sum(
        _merge(store, folder, group)
        for alike in sizes.values()
        if len(alike) > max_alike
        for group in _groups(alike, merged)
    )


def _whole(store: EvidenceStore, folder: str) -> list[FileEntry]:
    return [
        entry
        for entry in store.folder.entries(folder)
        if entry.name.endswith(PART) and not _is_incomplete(entry)
    ]


def _merge(store: EvidenceStore, folder: str, group: Sequence[FileEntry]) -> int:
    """Merge some parts into one; returns how many files there are fewer."""
    try:
        tables = [store.read_part(entry.name) for entry in group]
    except FileNotFoundError:
        return 0  # somebody else merges them
    are_proven = all(is_proven(table.schema) for table in tables)
    bare = [table.replace_schema_metadata(None) for table in tables]
    name = store.write_part(folder, first_of_each(pa.concat_tables(bare)), are_proven)
    others = [entry.name for entry in group if entry.name != f"{folder}/{name}"]
    removed = sum(_remove(store, other) for other in others)
    return max(0, removed - (len(others) == len(group)))


def _groups(entries: Iterable[FileEntry], merged: int) -> Iterator[list[FileEntry]]:
    group: list[FileEntry] = []
    size = 0
    for entry in entries:
        if entry.size > merged // 2:
            continue
        group.append(entry)
        size += entry.size
        if size >= merged:
            yield group
            group, size = [], 0
    if len(group) > 1:
        yield group


# ---------------------------------------------------------------------- less of it


@dataclass(frozen=True)
class Waste:
    """Something that can be deleted, or that is kept although no audit needs it.

    Attributes
    ----------
    kept_because : None where it can go.
    """

    thing: StoredThing
    why: str
    kept_because: str | None = None


def find_waste(store: EvidenceStore, needed: Collection[str] | None) -> Iterator[Waste]:
    """What nobody needs.

    Parameters
    ----------
    needed : folders of what audits need; None leaves everything but what killed writers left.
    """
    now = store.folder.clock()
    for thing in stored_things(store):
        if thing.folder.startswith("training/"):
            made = f"prepared/{thing.folder.partition('/')[2]}"
            why, is_needed = "left by a training that was killed", made in (needed or ())
            if store.is_in_work(thing.folder) or (is_needed and not store.folder.exists(made)):
                continue
            if thing.is_older_than(BEING_WRITTEN, now):
                yield Waste(thing, why)
            continue
        # A folder that is being written is as young as the youngest file in it.
        alone = thing.folder.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)
        left = tuple(
            e
            for e in thing.incomplete
            if now - (thing.modified if alone else e.modified) > BEING_WRITTEN
        )
        if needed is None or thing.folder in needed or not thing.files:
            if left:
                yield Waste(StoredThing(thing.folder, (), left), "left by a writer that was killed")
            continue
        minutes = (now - thing.modified).total_seconds() / 60
        recent = None
        if not thing.is_older_than(BEING_WRITTEN, now):
            recent = f"it was written {minutes:.0f} min ago, perhaps by an audit that is running"
        yield Waste(thing, "no given audit needs it", recent)


def delete(store: EvidenceStore, waste: Waste) -> None:
    """Delete what nobody needs; a prepared model loses what makes it count as finished first."""
    files = sorted(
        (*waste.thing.files, *waste.thing.incomplete),
        key=lambda file: (not file.name.endswith(f"/{PREPARED_MARKER}"), file.name),
    )
    for file in files:
        _remove(store, file.name)
    if store.folder.is_local:
        root = Path(store.folder.path(waste.thing.folder))
        for folder in sorted([root, *root.rglob("*")], key=lambda p: len(p.parts), reverse=True):
            with suppress(OSError):  # not empty, or a file: others are in it
                folder.rmdir()


def _remove(store: EvidenceStore, name: str) -> bool:
    with suppress(FileNotFoundError):
        store.folder.remove(name)
        return True
    return False


def compact_all(
    store: EvidenceStore, folders: Iterable[str], on_merged: Callable[[str, int], None]
) -> None:
    """Compact keys, and tell of each that has become fewer files."""
    for folder in folders:
        fewer = compact(store, folder)
        if fewer > 0:
            on_merged(folder, fewer)
