"""Trying settings with Ray Tune: a few trials, each of which goes through many settings.

A trial costs Tune about a second, and a setting a few milliseconds, so a trial is a worker and not
a setting. Nothing here asks a model, and no Ray Data runs within a trial, which would deadlock.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray import tune
from rich.console import Console

from raymia.engine.board import started
from raymia.engine.on_ray.cluster import Cluster
from raymia.engine.on_ray.failures import own_error
from raymia.scoring.evidence import TargetEvidence
from raymia.spec import SpaceSpec
from raymia.sweep.evaluate import Place, Setting
from raymia.sweep.work import Case, Source, Terms, Worker, shared_out
from raymia.util.errors import RaymiaError

MIN_PER_TRIAL = 25
STAGE = "sweep"
PLACE = "place"
OBJECTIVE = "objective"
RETRIES = 2
TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table whatever its verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Ctrl-C ends the sweep as it ends an audit; what was tried is kept by the workers.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


@dataclass
class Proposed:
    """Settings of one attack on one target that Optuna proposes, given those before.

    The proposals are a function of the seed and of what earlier ones achieved, so a sweep that was
    interrupted is proposed the same settings again, of which it tries those that are not known.

    Attributes
    ----------
    places : evidence that the attack may be tried on: one more parameter, where there are several.
    """

    places: tuple[Place, ...]
    spaces: Mapping[str, SpaceSpec]
    samples: int
    seed: int
    _told: Callable[[float | None], None] = field(default=lambda _: None, init=False)

    def settings(self) -> Iterator[Setting]:
        domains = {name: _domain(space) for name, space in self.spaces.items()}
        if len(self.places) > 1:
            domains[PLACE] = tune.choice(list(range(len(self.places))))
        search = _searcher(domains, self.seed)
        for number in range(self.samples):
            chosen = search.suggest(str(number))
            place = self.places[chosen.pop(PLACE, 0)]
            self._told = partial(_tell, search, str(number))
            yield Setting(place, chosen)

    def tell(self, objective: float | None) -> None:
        self._told(objective)


def _searcher(domains: dict[str, Any], seed: int) -> Any:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = OptunaSearch.convert_search_space(domains)
    return OptunaSearch(space, metric=OBJECTIVE, mode="max", seed=seed)


def _tell(search: Any, number: str, objective: float | None) -> None:
    result = None if objective is None else {OBJECTIVE: objective}
    search.on_trial_complete(number, result, error=objective is None)


def _domain(space: SpaceSpec) -> Any:
    """A space in Tune's own terms."""
    if space.uniform is not None:
        return tune.uniform(*space.uniform)
    if space.loguniform is not None:
        return tune.loguniform(*space.loguniform)
    if space.integers is not None:
        low, high = space.integers
        return tune.randint(low, high + 1)
    return tune.choice(space.values)


@dataclass(frozen=True)
class Trials:
    """What the workers went through.

    Attributes
    ----------
    proposed : what was proposed, each setting once.
    new : keys of the settings that were tried now.
    """

    proposed: list[Setting]
    new: list[str]


def try_settings(
    settings: Sequence[Setting],
    proposed: Sequence[Proposed],
    evidence: Mapping[Case, TargetEvidence],
    terms: Terms,
    *,
    cluster: Cluster,
    console: Console,
) -> Trials:
    """Go through settings on all CPUs; the results are in the store when this returns.

    Parameters
    ----------
    settings : that are known beforehand, and not tried yet.
    proposed : searches.

    Raises
    ------
    RaymiaError
        If a worker failed; what was tried by then is kept.
    """
    expected = len(settings) + sum(search.samples for search in proposed)
    listed = max(1, min(int(cluster.cpus), -(-len(settings) // MIN_PER_TRIAL)))
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
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # errors are raised here
    with started(console) as board, tempfile.TemporaryDirectory(prefix="raymia-") as folder:
        board.expect.remote(STAGE, expected)
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


def _go_through(config: dict[str, Any], shared: _Shared, board: Any) -> None:
    """A trial: go through one source of settings."""

    def report(done: int, failed: int, seconds: float) -> None:
        board.add.remote(STAGE, "settings", done, failed, seconds)

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
