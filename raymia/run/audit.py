"""One audit from the audit file to the report: resolve, plan, ask, score, measure, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from raymia.engine.base import Start, engine
from raymia.evidence.secret import secret_of
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import AuditPlan, plan_audit
from raymia.plan.rates import Rates
from raymia.plan.stages import TargetPlan
from raymia.report.files import write_run
from raymia.results.disguise import Disguise
from raymia.results.events import redacted
from raymia.results.result import RunResult
from raymia.run.asking import AskOutcome, ask, in_turn
from raymia.run.outcome import Run, disguise_of, sum_up
from raymia.run.status import Event, Watch, last_run, recorded
from raymia.scoring.parts import score_parts
from raymia.scoring.reduction import MAX_HERE, count_scores, reduce_audit, score_tables
from raymia.scoring.workers import Here, Workers
from raymia.spec import AuditSpec
from raymia.storage.files import can_write
from raymia.storage.lease import Lease, held, new_run_id
from raymia.util.caller import caller_state


@caller_state()
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
    run = new_run_id(last_run(spec.output))
    with (
        held(spec.output, run) as lease,
        recorded(spec.output, run, spec.name, list(inputs.targets), _event_redactor(inputs)) as log,
        engine(spec.resources, spec.store, console) as start,
    ):
        store = EvidenceStore(spec.store)
        with in_turn(plan_audit(inputs, store), store, console) as plan:
            watch = Watch(log, plan)
            outcome = ask(plan, store, start, watch.look, leave_out=True)
        Rates(store).keep_run(inputs, plan, outcome.lines, store)
        result = _score_and_write(plan, outcome, store, start, started, lease)
        watch.end(
            {target.name: target.reason for target in result.failed},
            {target.name: target.to_ask for target in outcome.after},
        )
        return result


def _event_redactor(inputs: Inputs) -> Callable[[Event], Event]:
    """What events are written by: of an audit that is redacted, redacted too."""
    if not inputs.spec.report.redact:
        return dict
    store = EvidenceStore(inputs.spec.store)  # whose secret may be drawn while the run goes on
    return lambda event: redacted(event, disguise_of(inputs, store))


def _score_and_write(
    plan: AuditPlan,
    outcome: AskOutcome,
    store: EvidenceStore,
    start: Start,
    started: float,
    lease: Lease,
) -> RunResult:
    """Score, measure and write what was asked."""
    inputs, spec = outcome.after.inputs, plan.inputs.spec

    scored = [target for target in outcome.after if target.name not in outcome.failed]
    room = spec.store if can_write(spec.store) else spec.output
    with score_parts(room) as scores, _workers(inputs, scored, start, room) as workers:
        reduction = reduce_audit(inputs, store, scored, scores, workers)
        seconds = time.monotonic() - started
        run = Run(inputs, store, plan, outcome.after, outcome.lines, seconds, outcome.failed)
        result = sum_up(run, reduction, scores, workers)
        lease.check()
        tables = score_tables(inputs, scored, scores)
        if result.redacted:
            tables = map(Disguise(secret_of(store.folder)).scores, tables)
        return write_run(spec.output, result, tables, reduction.curves)


@contextmanager
def _workers(
    inputs: Inputs, scored: Sequence[TargetPlan], start: Start, room: str
) -> Iterator[Workers]:
    """Where scores are reduced: here, or by the engine where there are many."""
    if count_scores(inputs, scored) <= MAX_HERE:
        yield Here()
        return
    executor = start()
    with executor.reporting() as board:
        yield executor.workers(board, room)
