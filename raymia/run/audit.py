"""One audit from the audit file to the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import TargetPlan, is_missing_anything, plan_audit
from raymia.plan.rates import Rates
from raymia.report.files import write_run
from raymia.results.result import RunResult
from raymia.run.outcome import Run, StageWork, sum_up
from raymia.run.status import EventLog, Watch, recorded
from raymia.scoring.parts import score_parts
from raymia.scoring.reduction import MAX_HERE, count_scores, reduce_audit, score_tables
from raymia.scoring.workers import Here, Workers
from raymia.spec import AuditSpec
from raymia.storage.lease import Lease, held, new_run_id


def run_audit(spec: AuditSpec, console: Console) -> RunResult:
    """Run an audit: ask for what is missing, score, measure, and write the report.

    Where the store has every answer, neither Ray nor a model is started.

    Returns
    -------
    The result, as it is in the output folder. It says whether the run is complete, and which
    targets failed; they have no scores.

    Raises
    ------
    InputError
        For anything wrong in what was given, and for an output folder that another run is writing
        to, before a model is loaded.
    RaymiaError
        For what went wrong while models were asked; what was answered by then is stored.
    """
    started = time.monotonic()
    inputs = resolve_inputs(spec)
    run = new_run_id()
    with (
        held(spec.output, run) as lease,
        recorded(spec.output, run, spec.name, list(inputs.targets)) as log,
    ):
        return _run(inputs, console, started, lease, log)


def _run(
    inputs: Inputs, console: Console, started: float, lease: Lease, log: EventLog
) -> RunResult:
    spec = inputs.spec
    store = EvidenceStore(spec.store)
    before = plan_audit(inputs, store)
    watch = Watch(log, before)
    lines: Mapping[str, StageWork] = {}
    failed: Mapping[str, str] = {}
    if is_missing_anything(before):
        from raymia.engine.on_ray.run import ask_models

        work = ask_models(inputs, store, spec.store, console, watch.look)
        lines, failed = work.lines, work.failed
        Rates(store).keep_run(inputs, before, lines, store)
    after = plan_audit(inputs, store)
    scored = [plan for plan in after if plan.name not in failed]
    with score_parts(spec.store) as scores, _workers(inputs, scored, console) as workers:
        reduction = reduce_audit(inputs, store, scored, scores, workers)
        run = Run(inputs, store, before, after, lines, time.monotonic() - started, failed)
        result = sum_up(run, reduction, scores, workers)
        lease.check()
        write_run(spec.output, result, score_tables(inputs, scored, scores), reduction.curves)
    watch.end(
        {one.name: one.reason for one in result.failed}, {plan.name: plan.to_ask for plan in after}
    )
    return result


@contextmanager
def _workers(inputs: Inputs, scored: Sequence[TargetPlan], console: Console) -> Iterator[Workers]:
    """Where scores are reduced: here, or on Ray where there are many."""
    if count_scores(inputs, scored) <= MAX_HERE:
        yield Here()
        return
    from raymia.engine.on_ray.reduce import tasks_on

    with tasks_on(inputs.spec.resources, inputs.spec.store, console) as tasks:
        yield tasks
