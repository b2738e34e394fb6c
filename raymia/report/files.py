"""A run's folder: the report, the metrics and the scores, local or at any fsspec URL."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from raymia.errors import InputError
from raymia.files import Folder
from raymia.report.html import render
from raymia.report.result import SCHEMA_VERSION, RunResult
from raymia.report.scores import SCORES_SCHEMA, check_scores

REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.parquet"
RUN_METADATA = b"raymia.run"
"""Key of the Parquet metadata that says which run the scores are of."""


def write_run(folder_url: str, result: RunResult, scores: pa.Table) -> None:
    """Write ``scores.parquet``, ``report.html`` and ``metrics.json``.

    Each file is seen whole or not at all. The metrics come last, so a folder with new metrics has
    the scores and the report that belong to them.

    Parameters
    ----------
    folder_url : str
        A local path or an fsspec URL; created if need be. Files of an earlier run are replaced.
    result : RunResult
        Lists longer than `raymia.report.result.LONGEST_LIST` are cut in the file, not in the
        report's counts.
    scores : pyarrow.Table
        Columns as in `raymia.report.scores.SCORES_SCHEMA`.

    Raises
    ------
    ValueError
        If a column of `scores` is missing or of another type.
    """
    scores = check_scores(scores)
    report = render(result, scores)
    folder = Folder(folder_url)
    folder.write(SCORES_FILE, _parquet(scores, result))
    folder.write(REPORT_FILE, report.encode())
    folder.write(METRICS_FILE, result.shortened().model_dump_json(indent=2).encode())


def load_run(folder_url: str) -> tuple[RunResult, pa.Table]:
    """Read what `write_run` wrote.

    Returns
    -------
    result : RunResult
    scores : pyarrow.Table
        With `raymia.report.scores.SCORES_SCHEMA`.

    Raises
    ------
    InputError
        If a file is missing, is of another version of the schema or of another run, or cannot be
        read.
    """
    folder = Folder(folder_url)
    result = _load_result(folder)
    where = folder.path(SCORES_FILE)
    try:
        table = pq.read_table(pa.BufferReader(_read(folder, SCORES_FILE)))
        scores = check_scores(table)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{where}: not a table of scores: {error}") from error
    found = (table.schema.metadata or {}).get(RUN_METADATA)
    if found != _run_label(result):
        raise InputError(
            f"{where}: the scores are of another run than {METRICS_FILE}: "
            f"expected {_run_label(result).decode()}, got {found.decode() if found else 'no run'}"
        )
    return result, scores.replace_schema_metadata(None)


def _load_result(folder: Folder) -> RunResult:
    where = folder.path(METRICS_FILE)
    content = _read(folder, METRICS_FILE)
    try:
        version = json.loads(content).get("schema_version")
        if version == SCHEMA_VERSION:
            return RunResult.model_validate_json(content)
    except (ValueError, AttributeError) as error:
        why = _first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{where}: not the metrics of a run: {why}") from error
    raise InputError(f"{where}: expected schema version {SCHEMA_VERSION}, got {version}")


def _read(folder: Folder, name: str) -> bytes:
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise InputError(f"{folder.path(name)}: no such file; is this a run's folder?") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _run_label(result: RunResult) -> bytes:
    return f"{result.name} {result.created}".encode()


def _parquet(scores: pa.Table, result: RunResult) -> bytes:
    sink = pa.BufferOutputStream()
    schema = SCORES_SCHEMA.with_metadata({RUN_METADATA: _run_label(result)})
    pq.write_table(scores.cast(schema), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content
