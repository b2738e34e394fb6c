"""Trying settings with Ray Tune: a few trials, each of which goes through many settings.

A trial costs Tune about a second, and a setting a few milliseconds, so a trial is a worker and not
a setting. Nothing here asks a model, and no Ray Data runs within a trial, which would deadlock.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from raymia.engine.board import Board
from raymia.engine.on_ray.failures import own_error
from raymia.scoring.evidence import TargetEvidence
from raymia.sweep.evaluate import Setting
from raymia.sweep.proposals import Proposed
from raymia.sweep.work import STAGE, Case, Source, Terms, Trials, Worker, shared_out
from raymia.util.caller import silenced
from raymia.util.errors import RaymiaError

MIN_PER_TRIAL = 25
RETRIES = 2
TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table whatever its verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Ctrl-C ends the sweep as it ends an audit; what was tried is kept by the workers.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def try_settings(
    settings: Sequence[Setting],
    proposed: Sequence[Proposed],
    evidence: Mapping[Case, TargetEvidence],
    terms: Terms,
    *,
    cpus: float,
    board: Board,
) -> Trials:
    """See :meth:`raymia.engine.base.Executor.try_settings`.

    Raises
    ------
    RaymiaError
        If a worker failed; what was tried by then is kept.
    """
    listed = max(1, min(int(cpus), -(-len(settings) // MIN_PER_TRIAL)))
    sources: list[Source] = [*proposed]
    if settings:
        sources += shared_out(settings, listed)
    shared = _Shared(
        terms,
        {case: ray.put(known) for case, known in evidence.items()},
        tuple(sources),
    )
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Errors are raised here.
    with silenced("ray.tune"), tempfile.TemporaryDirectory(prefix="raymia-") as folder:
        tuner = tune.Tuner(
            tune.with_parameters(_go_through, shared=shared, board=board),
            param_space={"source": tune.grid_search(list(range(len(sources))))},
            run_config=tune.RunConfig(
                name=STAGE,
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        )
        results = tuner.fit()
    if results.errors:
        first = results.errors[0]
        raise own_error(first) from first
    reports = [result.metrics or {} for result in results]
    if len(reports) < len(sources) or not all("new" in report for report in reports):
        raise RaymiaError("the sweep was stopped before all settings were tried; run it again")
    found: dict[str, Setting] = {}
    for report in reports:
        source = sources[report["config"]["source"]]
        if isinstance(source, Proposed):
            for place, parameters in json.loads(report["given"]):
                setting = Setting(source.places[place], parameters)
                found.setdefault(f"{setting.place.target} {setting.key}", setting)
    return Trials(list(found.values()), [k for r in reports for k in json.loads(r["new"])])


@dataclass(frozen=True)
class _Shared:
    """What every trial is given, through Ray's object store."""

    terms: Terms
    evidence: Mapping[Case, Any]
    sources: tuple[Source, ...]


def _go_through(config: dict[str, Any], shared: _Shared, board: Board) -> None:
    """A trial: go through one source of settings."""

    def report(done: int, failed: int, seconds: float) -> None:
        board.add(STAGE, "settings", done, failed, seconds)

    def evidence(case: Case) -> TargetEvidence:
        found: TargetEvidence = ray.get(shared.evidence[case])
        return found

    source = shared.sources[config["source"]]
    worker = Worker(shared.terms, evidence, report)
    given = worker.go_through(source)
    proposed = []
    if isinstance(source, Proposed):
        proposed = [[source.places.index(s.place), dict(s.parameters)] for s in given]
    # As text, since Tune takes apart what it is told.
    tune.report({"given": json.dumps(proposed), "new": json.dumps(worker.tried_here)})
