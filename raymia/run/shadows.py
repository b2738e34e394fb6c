"""The shadows of a training: trained side by side or in turn, and which was trained on what."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

import raymia.modalities  # noqa: F401 (registers the kinds of records)
from raymia.engine.base import engine
from raymia.engine.board import Board, reporter
from raymia.modalities.trainings import modality_trained, modality_trained_by
from raymia.prepare.shadows import FOLDER, Shadow, shadow_name
from raymia.spec import PoolSpec, ResourcesSpec, TrainingFile
from raymia.spec.target_training import ShadowsSpec
from raymia.storage.files import Folder
from raymia.storage.manifest import OF_SHADOWS, SEAL, write_manifest
from raymia.util.caller import caller_state
from raymia.util.hashing import digest_bytes

MATRIX_FILE = "in_out.parquet"
VERSION = 1
"""Version of the manifest."""


@caller_state()
def run_shadows(
    training: TrainingFile, console: Console, where: str = "the training file"
) -> dict[str, Any]:
    """Train the shadows that a training file asks for, and write which was trained on what.

    Those that are finished are left as they are, and one that was stopped goes on.

    Parameters
    ----------
    where : stands before messages about the file.

    Returns
    -------
    The manifest of the shadows: folders and seals of theirs, and the hash of the matrix.

    Raises
    ------
    InputError
        For anything wrong in what was given, before a model is loaded.
    RaymiaError
        If a training comes apart, or a machine fails.
    """
    shadows = modality_trained_by(training).shadows(training, where)
    asked = training.asked_shadows()
    assert asked is not None, "refused where there are none"
    return _make(Path(training.output) / FOLDER, shadows, asked, console)


@caller_state()
def run_shadows_of(manifest: Path, asked: ShadowsSpec, console: Console) -> dict[str, Any]:
    """Train shadows of a target that is trained, and write which was trained on what.

    Parameters
    ----------
    manifest : of the target, which says how it was trained.

    Returns, Raises
    ---------------
    As :func:`run_shadows`.
    """
    path = manifest.resolve()
    shadows = modality_trained(path, "shadows").shadows_of(manifest, asked.count)
    return _make(path.parent / FOLDER, shadows, asked, console)


def _make(
    out: Path, shadows: Sequence[Shadow], spec: ShadowsSpec, console: Console
) -> dict[str, Any]:
    """Train what is missing, and write the matrix and the manifest."""
    missing = [shadow for shadow in shadows if shadow.finished() is None]
    if missing:
        for note in dict.fromkeys(note for shadow in missing for note in shadow.notes):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        out.mkdir(parents=True, exist_ok=True)
        pool = PoolSpec(cpus=spec.cpus, gpus=spec.gpus)
        resources = ResourcesSpec(engine=spec.engine, reference=pool)
        with engine(resources, str(out), console) as start:
            executor = start()
            with executor.reporting() as board:
                executor.call([_job(shadow, board) for shadow in missing], pool)
    return _write(out, shadows)


def _job(shadow: Shadow, board: Board) -> Callable[[], None]:
    name, train = f"train {shadow.name}", shadow.train

    def job() -> None:
        train(reporter(board, name))

    job.__name__ = name
    return job


def _write(out: Path, shadows: Sequence[Shadow]) -> dict[str, Any]:
    matrix = _matrix(shadows)
    file = io.BytesIO()
    pq.write_table(matrix, file)
    Folder(str(out)).write(MATRIX_FILE, file.getvalue())
    listed = []
    for number, shadow in enumerate(shadows):
        manifest = shadow.finished()
        assert manifest is not None, "all are finished"
        listed.append({
            "folder": shadow_name(number),
            "checkpoint": manifest["checkpoints"][-1]["folder"],
            "members": len(shadow.half.members),
            SEAL: manifest[SEAL],
        })  # fmt: skip
    content = {
        "version": VERSION,
        "records": matrix.num_rows,
        "matrix": MATRIX_FILE,
        "shadows": listed,
        "files": {MATRIX_FILE: digest_bytes(file.getvalue())},
    }
    return write_manifest(out, content, OF_SHADOWS)


def _matrix(shadows: Sequence[Shadow]) -> pa.Table:
    """One row for each record, in order of the ids, with a column for each shadow: whether it was
    trained on it."""
    first = shadows[0].half
    records = sorted((*first.members, *first.held_out), key=lambda record: record.id)
    inside = [{record.id for record in shadow.half.members} for shadow in shadows]
    columns: dict[str, Any] = {
        "record_id": [record.id for record in records],
        "group": pa.array([record.group for record in records], pa.string()),
    }
    columns |= {
        shadow_name(number): [record.id in ids for record in records]
        for number, ids in enumerate(inside)
    }
    return pa.table(columns)
