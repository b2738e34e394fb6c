"""The shadows of a training: trained side by side or in turn, and which was trained on what."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from raymia.engine.base import engine
from raymia.engine.board import Board, reporter
from raymia.modalities.texts.shadow_training import FOLDER, shadow_name, shadow_trainings
from raymia.modalities.texts.target_training import ResolvedTraining, resolve_target_training
from raymia.models.source import bring, origins_of
from raymia.prepare.train_target import train_target
from raymia.run.train import VERSION, finished, train_resolved
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.spec.target_training import TargetTrainingSpec
from raymia.storage.files import Folder
from raymia.storage.manifest import SEAL, SHADOWS_KIND, write_manifest
from raymia.util.caller import caller_state
from raymia.util.errors import InputError
from raymia.util.hashing import digest_bytes

MATRIX_FILE = "in_out.parquet"


@caller_state()
def run_shadows(spec: TargetTrainingSpec, console: Console) -> dict[str, Any]:
    """Train the shadows that a training file asks for, and write which was trained on what.

    Those that are finished are left as they are, and one that was stopped goes on.

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
    if spec.shadows is None:
        raise InputError("shadows: the training file asks for none; say `shadows: {count: 8}`")
    trainings = shadow_trainings(resolve_target_training(spec))
    out = Path(spec.output) / FOLDER
    missing = [one for one in trainings if finished(one) is None]
    if missing:
        out.mkdir(parents=True, exist_ok=True)
        pool = PoolSpec(cpus=spec.shadows.cpus, gpus=spec.shadows.gpus)
        resources = ResourcesSpec(engine=spec.shadows.engine, reference=pool)
        with engine(resources, str(out), console) as start:
            executor = start()
            with executor.reporting() as board:
                executor.call([_trainer(one, board) for one in missing], pool)
    return _write(out, trainings)


def _trainer(training: ResolvedTraining, board: Board) -> Callable[[], None]:
    """What trains a shadow on the machine it is called on; its folder is complete when it ends."""
    origins = origins_of([training.plan.base])

    def train() -> None:
        bring(origins)
        progress = reporter(board, f"train {training.spec.name}")
        train_resolved(training, partial(train_target, training.plan, progress))

    train.__name__ = f"train {training.spec.name}"
    return train


def _write(out: Path, trainings: Sequence[ResolvedTraining]) -> dict[str, Any]:
    manifests = [finished(training) for training in trainings]
    matrix = _matrix(trainings)
    file = io.BytesIO()
    pq.write_table(matrix, file)
    Folder(str(out)).write(MATRIX_FILE, file.getvalue())
    shadows = []
    for number, manifest in enumerate(manifests):
        assert manifest is not None, "all are finished"
        name = shadow_name(number)
        shadows.append({
            "folder": name,
            "checkpoint": manifest["checkpoints"][-1]["folder"],
            "members": manifest["split"]["members"],
            SEAL: manifest[SEAL],
        })  # fmt: skip
    content = {
        "version": VERSION,
        "records": matrix.num_rows,
        "matrix": MATRIX_FILE,
        "shadows": shadows,
        "files": {MATRIX_FILE: digest_bytes(file.getvalue())},
    }
    return write_manifest(out, content, SHADOWS_KIND)


def _matrix(trainings: Sequence[ResolvedTraining]) -> pa.Table:
    """One row for each record, in order of the ids, with a column for each shadow: whether it was
    trained on it."""
    split = trainings[0].split
    records = sorted((*split.members, *split.held_out), key=lambda record: record.id)
    inside = [{record.id for record in training.split.members} for training in trainings]
    columns: dict[str, Any] = {
        "record_id": [record.id for record in records],
        "group": pa.array([record.group for record in records], pa.string()),
    }
    columns |= {
        shadow_name(number): [record.id in ids for record in records]
        for number, ids in enumerate(inside)
    }
    return pa.table(columns)
