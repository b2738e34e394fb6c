"""The shadows of a training: trained side by side or in turn, and which was trained on what."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from raymia.prepare.image_shadows import TrainedOnImages
from raymia.prepare.text_split import TextSplit
from raymia.prepare.train_target import train_target
from raymia.prepare.trainer import Progress
from raymia.run.train import VERSION, finished, train_resolved
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.spec.target_training import ShadowsSpec, TargetTrainingSpec
from raymia.storage.files import Folder
from raymia.storage.lease import held, new_run_id
from raymia.storage.manifest import SEAL, SHADOWS_KIND, write_manifest
from raymia.util.caller import caller_state
from raymia.util.errors import InputError
from raymia.util.hashing import digest_bytes

MATRIX_FILE = "in_out.parquet"


@dataclass(frozen=True)
class Shadow:
    """A training that is to be done.

    Attributes
    ----------
    name : of the training.
    half : which records are trained on, and which are held out.
    train : does it on the machine that it is called on; its folder is complete when it ends.
    finished : says its manifest; None where it is not finished.
    """

    name: str
    half: TextSplit
    train: Callable[[Progress], None]
    finished: Callable[[], dict[str, Any] | None]


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
    shadows = [
        Shadow(one.spec.name, one.split, _of_texts(one), partial(finished, one))
        for one in trainings
    ]
    return _make(Path(spec.output) / FOLDER, shadows, spec.shadows, console)


@caller_state()
def run_image_shadows(manifest: Path, spec: ShadowsSpec, console: Console) -> dict[str, Any]:
    """Train shadows of a target of images, and write which was trained on what.

    Parameters
    ----------
    manifest : of the target, which says how it was trained.

    Returns, Raises
    ---------------
    As :func:`run_shadows`.
    """
    target = TrainedOnImages(manifest)
    out = target.folder / FOLDER
    shadows = []
    for number, half in enumerate(target.halves(spec.count)):
        name = shadow_name(number)
        own = out / name
        shadows.append(
            Shadow(
                name,
                half,
                partial(_train_on_images, manifest.resolve(), own, number, half),
                partial(target.finished, own, number, half),
            )
        )
    return _make(out, shadows, spec, console)


def _of_texts(training: ResolvedTraining) -> Callable[[Progress], None]:
    origins = origins_of([training.plan.base])

    def train(progress: Progress) -> None:
        bring(origins)
        train_resolved(training, partial(train_target, training.plan, progress))

    return train


def _train_on_images(
    manifest: Path, out: Path, number: int, half: TextSplit, progress: Progress
) -> None:
    with held(str(out), new_run_id()):
        TrainedOnImages(manifest).train(out, number, half, progress)


def _make(
    out: Path, shadows: Sequence[Shadow], spec: ShadowsSpec, console: Console
) -> dict[str, Any]:
    """Train what is missing, and write the matrix and the manifest."""
    missing = [shadow for shadow in shadows if shadow.finished() is None]
    if missing:
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
    return write_manifest(out, content, SHADOWS_KIND)


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
