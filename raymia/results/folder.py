"""A run's folder: the report, the metrics and the scores, local or at any fsspec URL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from raymia.results.curves import CURVES_SCHEMA, AttackCurves, curves_of, curves_table
from raymia.results.disguise import Disguise
from raymia.results.junit import junit_xml
from raymia.results.result import SCHEMA_VERSION, RunResult
from raymia.results.scores import SCORES_SCHEMA, check_scores
from raymia.spec.strict_yaml import parse_yaml
from raymia.storage.files import Folder
from raymia.util.credentials import hidden_in
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.stated import shown
from raymia.util.strict_json import parse_json

REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.parquet"
CURVES_FILE = "curves.parquet"
JUNIT_FILE = "junit.xml"
SWEEP_FILE = "sweep.html"
"""The page of a sweep, which the report points to where there is one."""
ROWS_AT_ONCE = 100_000
MEASURED_METADATA = b"raymia.measured"
"""Key of the Parquet metadata that has a hash of what was measured from the scores."""
RUN_METADATA = b"raymia.run"
"""Key of the Parquet metadata that says which run scores and curves are of."""
OWN_HASH = "content_sha256"
AGAIN = "run the audit again, which asks no model for what the store still has"


def write_folder(
    folder_url: str,
    result: RunResult,
    scores: Iterable[pa.Table],
    curves: Sequence[AttackCurves],
    page: str,
) -> RunResult:
    """Write ``scores.parquet``, ``curves.parquet``, ``report.html`` and ``metrics.json``; with a
    gate ``junit.xml``.

    Each file is seen whole or not at all. The metrics come last, so a folder with new metrics has
    the scores and the report that belong to them.

    Parameters
    ----------
    folder_url : str
        A local path or an fsspec URL; created if need be. Files of an earlier run are replaced.
    result : RunResult
        Lists longer than `raymia.results.result.LONGEST_LIST` are cut in the file, not in the
        report's counts.
    scores : iterable of pyarrow.Table
        Pieces of the table, columns as in `raymia.results.scores.SCORES_SCHEMA`; one is held at a
        time.
    curves : sequence of AttackCurves
        What is drawn, so that a report can be made again without scores.
    page : str
        The report.

    Returns
    -------
    The result, with the hash of its scores.

    Raises
    ------
    ValueError
        If a column of `scores` is missing or of another type.
    """
    folder = Folder(folder_url)
    result = write_scores(folder, result, scores)
    label = {RUN_METADATA: _run_label(result)}
    drawn = [curves_table(curves)]
    _write_table(folder, CURVES_FILE, CURVES_SCHEMA.with_metadata(label), drawn)
    folder.write(REPORT_FILE, page.encode())
    write_junit(folder_url, result)
    write_metrics(folder, result)
    return result


def write_scores(folder: Folder, result: RunResult, scores: Iterable[pa.Table]) -> RunResult:
    """Write ``scores.parquet``, which says what was measured from it; returns the result with its
    hash."""
    label = {RUN_METADATA: _run_label(result), MEASURED_METADATA: _measured(_content(result))}
    schema = SCORES_SCHEMA.with_metadata(label)
    _write_table(folder, SCORES_FILE, schema, map(check_scores, scores))
    return result.model_copy(update={"scores_sha256": _scores_hash(folder)})


def disguise_scores(folder: Folder, result: RunResult, disguise: Disguise) -> RunResult:
    """Write ``scores.parquet`` anew, with other ids of records."""
    with _reading(folder.place(SCORES_FILE), "scores"), _open(folder, SCORES_FILE) as file:
        batches = pq.ParquetFile(file).iter_batches(batch_size=ROWS_AT_ONCE)
        tables = (disguise.scores(pa.Table.from_batches([batch])) for batch in batches)
        return write_scores(folder, result, tables)


def check_fit(folder_url: str) -> str | None:
    """Refuse metrics and scores of which one was changed, or is of another run.

    Returns
    -------
    Why the two could not be compared, as a sentence; None where they were.

    Raises
    ------
    InputError
        Saying which.
    """
    folder = Folder(folder_url)
    if not folder.exists(SCORES_FILE):
        return f"{SCORES_FILE} is not beside {METRICS_FILE}, whose numbers nothing confirms"
    content = folder.read(METRICS_FILE)
    found = parse_json(content)
    expected = found.get("scores_sha256")
    if expected is None:
        return f"{METRICS_FILE} does not say which {SCORES_FILE} it is of: nothing confirms it"
    where = folder.place(SCORES_FILE)
    if _scores_hash(folder) != expected:
        raise InputError(
            f"{where}: not the file that {METRICS_FILE} beside it was measured from; {AGAIN}"
        )
    with _reading(where, "scores"), _open(folder, SCORES_FILE) as file:
        measured = (pq.read_schema(file).metadata or {}).get(MEASURED_METADATA)
    if measured != _measured(content):
        raise InputError(
            f"{folder.place(METRICS_FILE)}: its metrics are not those that were measured from "
            f"{SCORES_FILE} beside it; {AGAIN}"
        )
    if found.get(OWN_HASH) is None:
        return (
            f"{METRICS_FILE} has no hash of its own content: its metrics are confirmed by "
            f"{SCORES_FILE}, and nothing confirms the rest, such as counts and the verdict"
        )
    return None


def settings_of(result: RunResult, folder_url: str) -> dict[str, Any]:
    """The audit file of a stored run, as its metrics hold it.

    Raises
    ------
    InputError
        If it is no YAML that can be taken, or no mapping.
    """
    where = f"{Folder(folder_url).place(METRICS_FILE)}: audit_yaml"
    try:
        content = parse_yaml(result.audit_yaml, where)
    except InputError as error:
        raise InputError(
            f"{error}; an earlier version of raymia may have damaged it where it hid the signature "
            f"of a URL; {AGAIN}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{where} should be a mapping of keys, but is {shown(content)}; {AGAIN}")
    return content


def _scores_hash(folder: Folder) -> str:
    hashed = hashlib.sha256()
    with _open(folder, SCORES_FILE) as file:
        for piece in iter(lambda: file.read(2**20), b""):
            hashed.update(piece)
    return hashed.hexdigest()


def _measured(metrics: bytes) -> bytes:
    """Hash of what a ``metrics.json`` has measured, which a gate or a redaction does not change."""
    content = parse_json(metrics)
    measured = [content["metrics"], content["group_metrics"]]
    if content.get("distinct_metrics"):  # none in earlier runs
        measured.append(content["distinct_metrics"])
    return digest(measured).encode()


def _content(result: RunResult) -> bytes:
    unsigned = result.shortened().model_copy(update={OWN_HASH: None})
    content = hidden_in(parse_json(unsigned.model_dump_json()))
    signed = {**content, OWN_HASH: _own_hash(content)}
    return json.dumps(signed, indent=2, ensure_ascii=False).encode()


def _own_hash(content: dict[str, Any]) -> str:
    """Hash of what a ``metrics.json`` holds, however it is laid out. It tells of accidents, and of
    nobody who hashes anew what he has changed."""
    return digest({key: value for key, value in content.items() if key != OWN_HASH})


def write_metrics(folder: Folder, result: RunResult) -> None:
    """Write ``metrics.json``."""
    folder.write(METRICS_FILE, _content(result))


def write_junit(folder_url: str, result: RunResult) -> None:
    """Write what the release gate decided as ``junit.xml``; remove that of an earlier run."""
    folder = Folder(folder_url)
    if result.gate:
        folder.write(JUNIT_FILE, junit_xml(result))
    elif folder.exists(JUNIT_FILE):
        folder.remove(JUNIT_FILE)


def load_run(folder_url: str) -> tuple[RunResult, pa.Table]:
    """Read the result and the scores that `write_run` wrote, all scores at once.

    Returns
    -------
    result : RunResult
    scores : pyarrow.Table
        With `raymia.results.scores.SCORES_SCHEMA`.

    Raises
    ------
    InputError
        If a file is missing, is of another version of the schema or of another run, or cannot be
        read.
    """
    result = load_result(folder_url)
    return result, load_scores(folder_url, result)


def load_scores(
    folder_url: str, result: RunResult, target: str | None = None, attack: str | None = None
) -> pa.Table:
    """Read the scores of a run, of one target or attack or of all; raises as `load_run` does."""
    names = (("target", target), ("attack", attack))
    wanted = [(column, "==", name) for column, name in names if name is not None]
    folder = Folder(folder_url)
    return _read_table(folder, SCORES_FILE, "scores", result, check_scores, wanted or None)


def scored_attacks(folder_url: str) -> list[tuple[str, str]]:
    """Targets and attacks that a run has scores of, in the order of the table."""
    columns = ["target", "attack"]
    folder = Folder(folder_url)
    with _reading(folder.place(SCORES_FILE), "scores"), _open(folder, SCORES_FILE) as file:
        names = pq.read_table(file, columns=columns, read_dictionary=columns)
    names = names.unify_dictionaries()  # each row group has its own
    pairs = names.group_by(columns, use_threads=False).aggregate([]).to_pylist()
    return [(pair["target"], pair["attack"]) for pair in pairs]


def load_curves(folder_url: str) -> tuple[RunResult, list[AttackCurves]]:
    """Read all that a report is made of, without the scores.

    Raises
    ------
    InputError
        See `load_run`.
    """
    folder = Folder(folder_url)
    result = load_result(folder_url)
    check_fit(folder_url)
    cast = CURVES_SCHEMA
    table = _read_table(folder, CURVES_FILE, "curves", result, lambda found: found.cast(cast))
    return result, curves_of(table)


def load_result(folder_url: str) -> RunResult:
    """Read ``metrics.json`` alone.

    Raises
    ------
    InputError
        If it is missing, is of another version of the schema, cannot be read, or is not what was
        written.
    """
    folder = Folder(folder_url)
    where = folder.place(METRICS_FILE)
    with _open(folder, METRICS_FILE) as file:
        content = file.read()
    try:
        found = parse_json(content)
        version = found.get("schema_version")
        result = RunResult.model_validate_json(content) if version == SCHEMA_VERSION else None
    except (ValueError, AttributeError) as error:
        why = _first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{where}: not the metrics of a run: {why}") from error
    if result is None:
        raise InputError(
            f"{where}: expected schema version {SCHEMA_VERSION}, got {version}: another version of "
            f"raymia wrote it; {AGAIN}"
        )
    if result.content_sha256 not in (None, _own_hash(found)):
        raise InputError(
            f"{where}: its content was changed after the run wrote it, or in part lost; {AGAIN}"
        )
    return result.model_copy(update={OWN_HASH: None})


def _read_table(
    folder: Folder,
    name: str,
    what: str,
    result: RunResult,
    check: Callable[[pa.Table], pa.Table],
    wanted: list[tuple[str, str, str]] | None = None,
) -> pa.Table:
    where = folder.place(name)
    with _reading(where, what):
        with _open(folder, name) as file:
            table = pq.read_table(file, filters=wanted)
        checked = check(table)
    found = (table.schema.metadata or {}).get(RUN_METADATA)
    if found != _run_label(result):
        raise InputError(
            f"{where}: the {what} are of another run than {METRICS_FILE}: "
            f"expected {_run_label(result).decode()}, got {found.decode() if found else 'no run'}"
        )
    return checked.replace_schema_metadata(None)


def _write_table(folder: Folder, name: str, schema: pa.Schema, pieces: Iterable[pa.Table]) -> None:
    """Write pieces as one file, each in row groups of its own."""
    with folder.writing(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for piece in pieces:
            writer.write_table(piece.cast(schema))


@contextmanager
def _reading(where: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, ValueError) as error:  # OSError: damaged pages
        raise InputError(f"{where}: not a table of {what}: {error}") from error


def _open(folder: Folder, name: str) -> IO[bytes]:
    where = folder.place(name)
    try:
        return folder.open(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{where}: no such file; is this a run's folder?") from error
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _run_label(result: RunResult) -> bytes:
    return f"{result.name} {result.created}".encode()
