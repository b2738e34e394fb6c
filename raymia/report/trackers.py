"""A run in an experiment tracker: numbers with their limits, parameters, and the report.

Where it is sent to, and by which account, the tracker's own environment says
(`MLFLOW_TRACKING_URI`, `WANDB_MODE`). No text or picture of a record is sent, whatever the audit
file asks of the report, and no credentials of URLs.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raymia.report.html import render
from raymia.results.flat import every_row
from raymia.results.folder import REPORT_FILE, load_curves
from raymia.results.gate import gate_line, is_open
from raymia.results.ranking import of_distinct_of, of_groups_of
from raymia.results.redaction import without_content, without_quotes
from raymia.results.result import RunResult
from raymia.results.settings import by_path
from raymia.results.verdict import verdict_of
from raymia.util.credentials import hidden
from raymia.util.errors import RaymiaError, first_line
from raymia.util.optional import require

EXPERIMENT = "raymia"
"""The experiment, or project, where the environment names none."""
MLFLOW_METRICS, MLFLOW_PARAMETERS = 1_000, 100
"""Most of them that MLflow takes at once."""
LONGEST_TEXT = 500
"""Characters of a parameter and of a tag; the report has the whole audit file."""
_WRITTEN = {"@": "_at_", "%": "pct"}
_IN_NO_NAME = re.compile(r"[^A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class Logged:
    """What a tracker is told of a run; all names are such as every tracker takes.

    Attributes
    ----------
    metrics : by ``target/attack/number``, as ``tuned/loss/auc_low``; those of distinct records as
        ``tuned_distinct_records/loss/auc_low``, of groups as ``tuned_by_group/loss/auc_low``.
    parameters : the audit file's settings by their paths, and what the run was made with.
    tags : what the run came to.
    """

    name: str
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]


def logged(result: RunResult) -> Logged:
    """What a tracker is told of a run."""
    return Logged(
        result.name,
        _renamed(_metrics(result)),
        _renamed((name, _short(text)) for name, text in _parameters(result)),
        _renamed((name, _short(text)) for name, text in _tags(result)),
    )


def log_run(output: str, tracker: str) -> str:
    """Send the run in a folder to a tracker, and say where it is there.

    Parameters
    ----------
    tracker : one of `TRACKERS`.

    Raises
    ------
    RaymiaError
        Where the tracker does not take it; the run in its folder is as it was.
    """
    result, curves = load_curves(output)
    result = without_quotes(without_content(result, texts=False, pictures=False))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / REPORT_FILE
        page.write_text(render(result, curves), encoding="utf-8")
        try:
            return TRACKERS[tracker](logged(result), page)
        except Exception as error:  # of the tracker and of the network, of many kinds
            raise RaymiaError(
                f"the run is complete in {output}, but {tracker} did not take it "
                f"({type(error).__name__}: {hidden(first_line(error))}); to log it again, run the "
                "same audit again: no model is asked"
            ) from error


def check_tracker(tracker: str) -> None:
    """Refuse a tracker that is not installed, before an audit begins.

    Raises
    ------
    InputError
    """
    require(tracker, f"runs that are logged to {tracker}", "--log-to")


def _metrics(result: RunResult) -> Iterator[tuple[str, float]]:
    headed = {"distinct": of_distinct_of, "groups": of_groups_of}
    for row in every_row(result).to_pylist():
        target, of = row["target"], row["of"]
        place = f"{headed[of](target) if of in headed else target}/{row['attack']}"
        for name, value in row.items():
            if isinstance(value, int | float):
                yield f"{place}/{name}", float(value)


def _parameters(result: RunResult) -> Iterator[tuple[str, str]]:
    yield from by_path(yaml.safe_load(result.audit_yaml)).items()
    for kind, number in result.records.model_dump().items():
        yield f"number_of/{kind}", str(number)
    for name, version in result.versions.items():
        yield f"version/{name}", version


def _tags(result: RunResult) -> Iterator[tuple[str, str]]:
    verdict = verdict_of(result)
    yield "verdict", verdict.finding
    yield "verdict_sentence", verdict.sentence
    yield "complete", str(result.complete).lower()
    for entry in verdict.targets:
        yield f"finding/{entry.target}", entry.finding
    if result.gate:
        yield "gate", "open" if is_open(result.gate, result.undecided) else "closed"
        yield "gate_line", gate_line(result)


def _short(text: str) -> str:
    return hidden(text)[:LONGEST_TEXT]


def _renamed(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The same by names of letters, digits and ``_./-``; names that become one get a number."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        for sign, written in _WRITTEN.items():
            name = name.replace(sign, written)
        name = first = _IN_NO_NAME.sub("_", name).strip("_/")
        number = 1
        while name in found:
            number += 1
            name = f"{first}_{number}"
        found[name] = value
    return found


def _to_mlflow(log: Logged, page: Path) -> str:
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    place = client.create_experiment(name) if experiment is None else experiment.experiment_id
    run = client.create_run(place, run_name=log.name, tags=dict(log.tags))
    run_id: str = run.info.run_id
    start = run.info.start_time
    metrics = [Metric(name, value, start, 0) for name, value in log.metrics.items()]
    parameters = [Param(name, value) for name, value in log.parameters.items()]
    note = [RunTag("mlflow.note.content", log.tags["verdict_sentence"])]
    client.log_batch(run_id, tags=note)
    for begin in range(0, len(metrics), MLFLOW_METRICS):
        client.log_batch(run_id, metrics=metrics[begin : begin + MLFLOW_METRICS])
    for begin in range(0, len(parameters), MLFLOW_PARAMETERS):
        client.log_batch(run_id, params=parameters[begin : begin + MLFLOW_PARAMETERS])
    client.log_artifact(run_id, str(page))
    client.set_terminated(run_id)
    return f"{hidden(mlflow.get_tracking_uri())}, experiment {name}, run {run_id}"


def _to_wandb(log: Logged, page: Path) -> str:
    import wandb

    quiet = wandb.Settings(  # which would send the command line, the machine, the code
        console="off", disable_git=True, save_code=False, silent=True, x_disable_meta=True,
        x_disable_stats=True,
    )  # fmt: skip
    project = os.environ.get("WANDB_PROJECT", EXPERIMENT)
    with wandb.init(
        project=project,
        name=log.name,
        config=dict(log.parameters),
        settings=quiet,
    ) as run:
        run.summary.update({**log.metrics, **log.tags})
        report = wandb.Artifact(f"report-{run.id}", type="report")
        report.add_file(str(page))
        run.log_artifact(report)
        return str(run.url or run.dir)


TRACKERS: Mapping[str, Callable[[Logged, Path], str]] = {"mlflow": _to_mlflow, "wandb": _to_wandb}
