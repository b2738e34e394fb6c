"""The report of a run, written with the rest of its folder or anew."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from raymia.evidence.secret import secret_of
from raymia.report.html import render
from raymia.results.curves import AttackCurves
from raymia.results.disguise import Disguise
from raymia.results.events import redact_events
from raymia.results.folder import (
    REPORT_FILE,
    SCORES_FILE,
    SWEEP_FILE,
    disguise_scores,
    load_curves,
    load_result,
    settings_of,
    write_folder,
    write_junit,
    write_metrics,
)
from raymia.results.redaction import redact
from raymia.results.result import RunResult
from raymia.storage.files import Folder
from raymia.storage.lease import held, new_run_id
from raymia.sweep.result import RESULT_FILE as SWEEP_RESULT_FILE
from raymia.sweep.result import TABLE_FILE as SWEEP_TABLE_FILE
from raymia.sweep.result import is_redacted


def write_run(
    folder_url: str,
    result: RunResult,
    scores: Iterable[pa.Table],
    curves: Sequence[AttackCurves],
) -> RunResult:
    """Draw the report, and write a run's folder; see :func:`raymia.results.folder.write_folder`."""
    page = render(result, curves, _sweep(Folder(folder_url), result))
    return write_folder(folder_url, result, scores, curves, page)


def write_report(folder_url: str, *, redacted: bool = False) -> str:
    """Write the report of a stored run anew, and return where it is.

    Parameters
    ----------
    redacted : leave the content of records out of the report, and for good out of the metrics,
        ``junit.xml`` and the events of runs; and call records and files by other names, in the
        scores too.

    Raises
    ------
    InputError
        As `load_curves` does, and while a run is writing to the folder.
    """
    load_result(folder_url)  # a folder of no run is refused before a lease is put into it
    folder = Folder(folder_url)
    with held(folder_url, new_run_id()):
        result, curves = load_curves(folder_url)
        if redacted:
            disguise = _disguise(folder, result)
            redact_events(folder, disguise)
            if not result.redacted:
                result = _redacted(folder, result, disguise)
                write_metrics(folder, result)
            write_junit(folder_url, result)
        _write_page(folder, result, curves)
    return folder.place(REPORT_FILE)


def redraw(folder_url: str) -> None:
    """Write the report of a stored run anew as one who holds its folder; see
    :func:`raymia.storage.lease.held`.

    Raises
    ------
    InputError
        As `load_curves` does.
    """
    result, curves = load_curves(folder_url)
    _write_page(Folder(folder_url), result, curves)


def write_gate(folder_url: str, decide: Callable[[RunResult], RunResult]) -> None:
    """Decide the gate of a stored run, and write what was decided into all files that tell of it:
    the report, ``junit.xml`` and the metrics.

    Raises
    ------
    InputError
        As `load_curves` does, and while a run is writing to the folder.
    """
    folder = Folder(folder_url)
    with held(folder_url, new_run_id()):
        result, curves = load_curves(folder_url)
        result = decide(result)
        _write_page(folder, result, curves)
        write_junit(folder_url, result)
        write_metrics(folder, result)


def _write_page(folder: Folder, result: RunResult, curves: Sequence[AttackCurves]) -> None:
    folder.write(REPORT_FILE, render(result, curves, _sweep(folder, result)).encode())


def _disguise(folder: Folder, result: RunResult) -> Disguise:
    """What a stored run's records and files are called where it is redacted."""
    settings = settings_of(result, folder.url)
    store = settings.get("store")
    secret = secrets.token_bytes() if store is None else secret_of(Folder(store))
    return Disguise.of_audit(secret, settings)


def _redacted(folder: Folder, result: RunResult, disguise: Disguise) -> RunResult:
    """A stored run's result, redacted; its scores are written anew."""
    result = redact(result, disguise)
    if not folder.exists(SCORES_FILE):
        return result
    return disguise_scores(folder, result, disguise)


def _sweep(folder: Folder, result: RunResult) -> str | None:
    """The page of a sweep that the report points to: a redacted report to a redacted one alone."""
    if not folder.exists(SWEEP_FILE) or (result.redacted and not is_redacted(folder)):
        return None
    return SWEEP_FILE


def unredacted_sweep(folder_url: str) -> str | None:
    """What is said of the files of a sweep that a redacted report would not be passed on with."""
    folder = Folder(folder_url)
    if not folder.exists(SWEEP_FILE) or is_redacted(folder):
        return None
    return (
        f"not redacted: the files of the sweep in that folder, {SWEEP_FILE}, {SWEEP_RESULT_FILE} "
        f"and {SWEEP_TABLE_FILE}, may name files and quote records; pass them on only after "
        "`raymia sweep` has written them anew with `report: {redact: true}`, for which it asks no "
        "model"
    )
