"""Measuring scores that are in Parquet files already, whatever wrote them.

The files have the columns of :data:`raymia.results.scores.SCORES_SCHEMA`; the p-values are not
needed. Rows may stand in any order, in any number of files. A step reads the scores of one attack
on one target alone, of each row a score, a label and a hash of the record's id: 17 bytes, and about
a hundred while it sorts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raymia.metrics.measuring import half_of
from raymia.metrics.roc import FloatArray
from raymia.results.folder import SCORES_FILE
from raymia.scoring.ids import NAMED
from raymia.scoring.judge import Judge, Judged, Labels
from raymia.scoring.workers import Here, Workers
from raymia.spec import MetricsSpec
from raymia.storage.files import open_anywhere
from raymia.storage.remote import filesystem
from raymia.util.errors import InputError
from raymia.util.hashing import Hashes, repeated_hashes, string_hashes

NAMES = ("target", "attack")
COLUMNS = ("record_id", "is_member", "score")
ROWS_AT_ONCE = 2**18
UNKNOWN = 2
"""Label of a candidate, beside 0 and 1."""


@dataclass(frozen=True)
class Piece:
    """Rows of one attack on one target in one row group of a file.

    Attributes
    ----------
    alone : whether the row group has no other rows.
    """

    url: str
    row_group: int
    rows: int
    alone: bool


@dataclass(frozen=True)
class Group:
    """The rows of one attack on one target, and what was made of them.

    Attributes
    ----------
    ids, labels : sums, modulo 2^64, of the hashes of the records' ids, without and with their
        labels: the same for every attack and target of an audit.
    """

    target: str
    attack: str
    rows: int
    ids: int
    labels: int
    judged: Judged


@dataclass(frozen=True)
class StoredReduction:
    """What was made of stored scores.

    Attributes
    ----------
    judged : by target and attack, sorted by name.
    rows : that were read and reduced.
    records : that each attack scored on each target.
    """

    judged: dict[tuple[str, str], Judged]
    rows: int
    records: int


def reduce_scores(
    urls: str | Sequence[str],
    *,
    metrics: MetricsSpec | None = None,
    seed: int = 0,
    workers: Workers | None = None,
) -> StoredReduction:
    """Measure every attack on every target, exactly, one at a time in each process.

    Parameters
    ----------
    urls : Parquet files, folders of them, or folders of runs; local paths or fsspec URLs.
    metrics : what is measured; default: as in an audit file that says nothing of it. Every record
        is a unit of its own: groups are not in the table.
    seed : of the resamples.
    workers : where steps run; default: here.

    Raises
    ------
    InputError
        If there is no score, a column is missing, a record is there twice for one attack and
        target, or not all of them have scored the same records with the same labels: each once,
        with names.
    """
    workers = workers or Here()
    files = [file for url in ([urls] if isinstance(urls, str) else urls) for file in _files(url)]
    groups: dict[tuple[str, str], list[Piece]] = {}
    for found in workers.map("files looked at", _pieces_of, (), [(file,) for file in files]):
        for names, piece in found:
            groups.setdefault(names, []).append(piece)
    if not groups:
        raise InputError(f"no scores in {urls}")
    jobs = [(*names, groups[names]) for names in sorted(groups)]
    reduced = workers.map("attacks measured", _reduce, (metrics or MetricsSpec(), seed), jobs)
    for group in reduced[1:]:
        if (group.rows, group.ids, group.labels) != (
            reduced[0].rows,
            reduced[0].ids,
            reduced[0].labels,
        ):
            first = reduced[0]
            pair = [(g.target, g.attack, groups[g.target, g.attack]) for g in (first, group)]
            raise InputError(workers.map("attacks compared", _difference, (), [tuple(pair)])[0])
    rows = sum(group.rows for group in reduced)
    there = sum(piece.rows for pieces in groups.values() for piece in pieces)
    assert rows == there, f"{there} rows are there, {rows} were reduced"
    return StoredReduction(
        {(group.target, group.attack): group.judged for group in reduced}, rows, reduced[0].rows
    )


def _files(url: str) -> list[str]:
    fs, path = filesystem(url)
    if not fs.isdir(path):
        return [url]
    inside = [str(name) for name in fs.find(path)]
    hidden = (name.removeprefix(path).split("/") for name in inside)
    run = f"{path.rstrip('/')}/{SCORES_FILE}"
    if run in inside:
        return [f"{url.rstrip('/')}/{SCORES_FILE}"]
    found = [
        "/".join(parts)
        for parts in hidden
        if parts[-1].endswith(".parquet") and not any(p.startswith((".", "_")) for p in parts)
    ]
    return [f"{url.rstrip('/')}/{name.lstrip('/')}" for name in sorted(found)]


def _opened(url: str) -> IO[bytes]:
    return open_anywhere(*filesystem(url))


def _pieces_of(shared: tuple[()], url: str) -> list[tuple[tuple[str, str], Piece]]:
    """What a file holds of which attack and target: told by its footer where a row group has one,
    counted where it has several."""
    del shared
    pieces = []
    try:
        with _opened(url) as opened, pq.ParquetFile(opened) as file:
            missing = [n for n in (*NAMES, *COLUMNS) if n not in file.schema_arrow.names]
            if missing:
                raise InputError(
                    f"{url}: no column {', '.join(missing)}; found: "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            for number in range(file.num_row_groups):
                alone = _only_names(file.metadata.row_group(number))
                counts = (
                    [(*alone, file.metadata.row_group(number).num_rows)]
                    if alone
                    else (_counted(file, number, url))
                )
                for target, attack, rows in counts:
                    piece = Piece(url, number, rows, alone=len(counts) == 1)
                    pieces.append(((target, attack), piece))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{url}: not a Parquet file of scores: {error}") from error
    return pieces


def _only_names(row_group: Any) -> tuple[str, str] | None:
    """Target and attack of a row group, where its statistics say that there is one of each."""
    only = {}
    for number in range(row_group.num_columns):
        column = row_group.column(number)
        if column.path_in_schema not in NAMES:
            continue
        found = column.statistics
        if (
            found is None
            or not (found.has_min_max and found.has_null_count)
            or found.null_count
            or found.min != found.max
        ):
            return None
        only[column.path_in_schema] = found.min
    return only["target"], only["attack"]


def _counted(file: Any, number: int, url: str) -> list[tuple[str, str, int]]:
    counts: dict[tuple[str, str], int] = {}
    for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[number], columns=list(NAMES)):
        counted = pa.table(batch).group_by(list(NAMES)).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            if None in (row["target"], row["attack"]):
                raise InputError(f"{url}: rows without a target or an attack")
            names = row["target"], row["attack"]
            counts[names] = counts.get(names, 0) + row["count_all"]
    return [(*names, rows) for names, rows in counts.items()]


def _batches(
    target: str, attack: str, pieces: Sequence[Piece], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """The rows of one attack on one target, a part at a time."""
    for piece in pieces:
        wanted = [*columns] if piece.alone else [*NAMES, *columns]
        with _opened(piece.url) as opened, pq.ParquetFile(opened) as file:
            for batch in file.iter_batches(
                ROWS_AT_ONCE, row_groups=[piece.row_group], columns=wanted, use_threads=False
            ):
                table = pa.table(batch)
                if not piece.alone:
                    own = pc.and_(
                        pc.equal(table["target"], target), pc.equal(table["attack"], attack)
                    )
                    table = table.filter(own)
                if table["record_id"].null_count:
                    raise InputError(f"{piece.url}: rows without a record id")
                yield table


@dataclass
class _Rows:
    """The rows of one attack on one target as arrays.

    Attributes
    ----------
    hashes : uint64 [n], of the records' ids.
    labels : uint8 [n]; 1 for members, 0 for others, `UNKNOWN` for candidates.
    scores : float64 [n]; NaN for none. Empty where they are not wanted.
    """

    hashes: Hashes
    labels: Any
    scores: FloatArray


def _read(target: str, attack: str, pieces: Sequence[Piece], with_scores: bool = True) -> _Rows:
    size = sum(piece.rows for piece in pieces)
    rows = _Rows(np.empty(size, np.uint64), np.empty(size, np.uint8), np.empty(0))
    if with_scores:
        rows.scores = np.empty(size)
    done = 0
    columns = COLUMNS if with_scores else COLUMNS[:2]
    for table in _batches(target, attack, pieces, columns):
        place = slice(done, done + table.num_rows)
        rows.hashes[place] = string_hashes(table["record_id"].cast(pa.string()))
        labels = table["is_member"].cast(pa.bool_()).cast(pa.uint8())
        rows.labels[place] = pc.fill_null(labels, UNKNOWN).to_numpy()
        if with_scores:
            scores = table["score"].cast(pa.float64())
            rows.scores[place] = pc.fill_null(scores, np.nan).to_numpy()
        done += table.num_rows
    assert done == size, f"{target}, {attack}: {size} rows are there, {done} were read"
    return rows


def _reduce(
    shared: tuple[MetricsSpec, int], target: str, attack: str, pieces: list[Piece]
) -> Group:
    """Check that every record is there once, and measure."""
    metrics, seed = shared
    rows = _read(target, attack, pieces)
    suspects = repeated_hashes(rows.hashes)
    if suspects.size:
        _refuse_repeated(target, attack, pieces, suspects)
    ids, labels = _sums(rows)
    known = rows.labels != UNKNOWN
    judge = Judge(
        Labels(known, rows.labels == 1, half_of(rows.hashes), apart=True), None, metrics, seed
    )
    size, scores = rows.hashes.size, rows.scores
    del rows
    return Group(
        target, attack, size, ids, labels, judge.judge(scores, target=target, attack=attack)
    )


def _sums(rows: _Rows) -> tuple[int, int]:
    with_labels = (rows.hashes ^ (rows.hashes >> np.uint64(29))) * (
        rows.labels.astype(np.uint64) * np.uint64(2) + np.uint64(1)
    )
    return int(rows.hashes.sum()), int(with_labels.sum())


def _refuse_repeated(target: str, attack: str, pieces: Sequence[Piece], suspects: Hashes) -> None:
    counts = pc.value_counts(
        pa.array(_ids_with(target, attack, pieces, lambda hashes: np.isin(hashes, suspects)))
    )
    again = sorted(pair["values"] for pair in counts.to_pylist() if pair["counts"] > 1)
    if again:
        raise InputError(
            f"target {target}, attack {attack}: {len(again)} records are there more than once: "
            f"{_named(again)}; expected one score for each record"
        )


def _ids_with(
    target: str, attack: str, pieces: Sequence[Piece], chosen: Callable[[Hashes], Any]
) -> list[str]:
    found: list[str] = []
    for table in _batches(target, attack, pieces, COLUMNS[:1]):
        ids = table["record_id"].cast(pa.string())
        found += ids.filter(pa.array(chosen(string_hashes(ids)))).to_pylist()
    return found


def _difference(
    shared: tuple[()], first: tuple[str, str, list[Piece]], other: tuple[str, str, list[Piece]]
) -> str:
    """Say in what the records of two attacks differ."""
    del shared
    rows = [_read(*group, with_scores=False) for group in (first, other)]
    names = [f"target {target}, attack {attack}" for target, attack, _ in (first, other)]
    for lacking, having in ((1, 0), (0, 1)):
        missing = np.setdiff1d(rows[having].hashes, rows[lacking].hashes)
        if missing.size:
            group = (first, other)[having]
            ids = sorted(_ids_with(*group, lambda hashes: np.isin(hashes, missing)))  # noqa: B023
            return (
                f"{names[lacking]} has {rows[lacking].hashes.size} scores and lacks {len(ids)} "
                f"records that {names[having]} has: {_named(ids)}; expected a score, or an empty "
                "one, for each record"
            )
    ordered = [r.labels[np.argsort(r.hashes)] for r in rows]
    differing = np.sort(rows[0].hashes)[ordered[0] != ordered[1]]
    ids = sorted(_ids_with(*first, lambda hashes: np.isin(hashes, differing)))
    return (
        f"{names[0]} and {names[1]} disagree on whether {len(ids)} records are members: "
        f"{_named(ids)}"
    )


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
