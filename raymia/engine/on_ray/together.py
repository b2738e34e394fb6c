"""Several workers that train one model together, by Ray Train: gloo on CPUs, NCCL on GPUs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from rich.console import Console

from raymia.engine.board import reporter
from raymia.engine.on_ray.board import started
from raymia.engine.on_ray.capacity import Demand, shortages
from raymia.engine.on_ray.cluster import Cluster, check_store_is_shared, connected
from raymia.engine.on_ray.failures import own_error
from raymia.prepare.trainer import Progress
from raymia.spec import ResourcesSpec
from raymia.spec.target_training import WorkersSpec
from raymia.util.caller import silenced
from raymia.util.errors import InputError, RaymiaError

FOLDER = "raymia-ray-train"
"""Ray Train's own, below the folder of the training; it has nothing that is read again. It is
removed, so nobody may have a folder of their own by this name."""

Found = TypeVar("Found")


def run_together(
    train: Callable[[Progress], Found], workers: WorkersSpec, folder: str, console: Console
) -> Found:
    """See :func:`raymia.engine.base.call_together`."""
    own = Path(folder).absolute() / FOLDER
    with connected(ResourcesSpec(engine="ray")) as cluster:
        _refuse_impossible(workers, cluster)
        check_store_is_shared(folder)
        shutil.rmtree(own, ignore_errors=True)  # of a training that was killed
        with started(console) as board:

            def loop() -> Found | None:
                is_first = ray.train.get_context().get_world_rank() == 0
                found = train(reporter(board, train.__name__) if is_first else _tell_nobody)
                return found if is_first else None

            trainer = TorchTrainer(
                loop,
                scaling_config=ScalingConfig(**workers.model_dump()),
                run_config=RunConfig(
                    name=FOLDER,
                    storage_path=str(own),
                    # A worker that is lost ends the training, which goes on when it is run again.
                    failure_config=FailureConfig(max_failures=0),
                ),
            )
            try:
                with silenced("ray.train"):
                    found: Found = trainer.fit().return_value
            except TrainingFailedError as error:
                raise _of_workers(error) from error
            finally:
                shutil.rmtree(own, ignore_errors=True)
    return found


def _refuse_impossible(workers: WorkersSpec, cluster: Cluster) -> None:
    if cluster.startable is None:
        return
    needs = {"GPU" if workers.use_gpu else "CPU": 1.0, **(workers.resources_per_worker or {})}
    count = workers.num_workers
    lacking = shortages([Demand("the training", count, count, needs, {})], cluster.machines)
    if lacking:
        raise InputError(f"resources: {line}" for line in lacking)


def _of_workers(error: TrainingFailedError) -> RaymiaError:
    """What a worker raised; others fail with it, when they no longer hear of it."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = [own_error(getattr(one, "_base_exc", one)) for one in failures]
    if not causes:
        return own_error(error)
    known = (one for one in causes if not str(one).startswith("a worker failed"))
    return next(known, causes[0])


def _tell_nobody(_done: int, _total: int) -> None:
    pass
