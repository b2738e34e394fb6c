"""One sweep from the audit file to its page: ask, try, choose, judge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from rich.console import Console

from raymia import __version__
from raymia.engine.base import Start, engine
from raymia.evidence.secret import secret_of
from raymia.evidence.store import EvidenceStore
from raymia.plan.planning import AuditPlan
from raymia.report.files import redraw
from raymia.report.sweep_page import render
from raymia.results.disguise import Disguise
from raymia.run.asking import ask
from raymia.spec import AuditSpec
from raymia.storage.lease import held, new_run_id
from raymia.sweep.evaluate import Evaluated, Setting
from raymia.sweep.places import Places, read_places
from raymia.sweep.plan import SweepPlan, plan_sweep
from raymia.sweep.proposals import Proposed
from raymia.sweep.record import Tried
from raymia.sweep.result import (
    QueryCount,
    Row,
    SweepResult,
    redact_sweep,
    sweep_table,
    write_sweep,
)
from raymia.sweep.space import check_sweep
from raymia.sweep.winners import find_winners
from raymia.sweep.work import STAGE, Terms
from raymia.util.caller import caller_state
from raymia.util.errors import InputError, RaymiaError
from raymia.util.plugins import load_plugins


@caller_state()
def run_sweep(spec: AuditSpec, console: Console) -> SweepResult:
    """Run the sweep of an audit file, and write its table and its page.

    The models are asked once for each setting of the queries, which share the store and all
    answers they have in common. Attacks are then tried on what is stored; no model is asked. What
    was tried before is not tried again, and Ray is started only where there is something to do.

    Returns
    -------
    The result, as it is in the output folder.

    Raises
    ------
    InputError
        For anything wrong in what was given, and for an output folder that another run is writing
        to, before a model is loaded.
    RaymiaError
        For what went wrong on the way; what was answered and tried by then is stored.
    """
    started = time.monotonic()
    plan = plan_sweep(check_sweep(spec), EvidenceStore(spec.store))
    with held(spec.output, new_run_id()) as lease:
        result, rows = _run(plan, spec, console, started)
        table = sweep_table(rows, result.rates, result.objective)
        lease.check()
        write_sweep(spec.output, result, table, render(result, rows))
        with suppress(InputError):  # there is no report, or it is of another version
            redraw(spec.output)  # so that it points to the sweep
    return result


def _run(
    plan: SweepPlan, spec: AuditSpec, console: Console, started: float
) -> tuple[SweepResult, list[Row]]:
    store = EvidenceStore(spec.store)
    with engine(spec.resources, spec.store, console) as start:
        asked, plans, failed = _ask(plan, store, start, console)
        found = read_places(plan, plans, store)
        results, tried_now, settings = _try(plan, spec, found, start)
    rates = swept_rates(spec)
    rows = [
        Row(
            setting,
            results[setting.key],
            found.queries[setting.place],
            asked[setting.place.query],
            found.answers[setting.place.query],
        )
        for setting in settings
    ]
    halves = plan.halves
    winners = find_winners(rows, found.evidence, halves, rates, plan.sweep.spec.objective, spec)
    problems = [*failed.values(), *_problems(rows)]
    result = SweepResult(
        name=spec.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=__version__,
        search=plan.sweep.spec.search,
        seed=plan.sweep.spec.seed,
        objective=plan.sweep.spec.objective,
        rates=list(rates),
        confidence=spec.metrics.confidence,
        halves=halves.sizes,
        queries=[
            QueryCount(
                values=audit.values,
                answers=found.answers[audit.number],
                asked=asked[audit.number],
            )
            for audit in plan.audits
        ],
        settings=len(settings),
        tried_now=tried_now,
        winners=winners,
        problems=problems,
        complete=bool(winners) and not failed,
        seconds=round(time.monotonic() - started, 1),
    )
    if not spec.report.redact:
        return result, rows
    disguise = Disguise.of_audit(secret_of(store.folder), spec.model_dump(mode="json"))
    return redact_sweep(result, rows, disguise)


def swept_rates(spec: AuditSpec) -> tuple[float, ...]:
    """The false-positive rates that settings are tried at."""
    assert spec.sweep is not None
    return tuple(dict.fromkeys((*spec.metrics.fprs, spec.sweep.objective.fpr)))


def _ask(
    plan: SweepPlan, store: EvidenceStore, start: Start, console: Console
) -> tuple[list[int], list[AuditPlan], dict[str, str]]:
    """Ask the models everything that is missing, the setting that asks most first.

    What it asks counts as stored for the others, as the first neighbors of twenty do for ten.

    Returns
    -------
    How many questions were put for each setting; the plan of each as it is then, without targets
    that failed; and why those did, by target.
    """
    asked, plans = [0] * len(plan.audits), list(plan.plans)
    failed: dict[str, str] = {}
    for audit in (plan.audits[number] for number in plan.order):
        before = plans[audit.number].without(failed).as_it_is_now()
        plans[audit.number] = before
        if not before.is_missing_anything:
            continue
        start()
        console.print(f"queries: {audit.title}", highlight=False, markup=False)
        work = ask(before, store, start)
        stages = {stage.name for target in work.after for stage in target.stages}
        asked[audit.number] = sum(line.done for n, line in work.lines.items() if n in stages)
        for target, why in work.failed.items():
            failed[target] = f"target {target} failed and is not swept: {why}"
        plans[audit.number] = left = work.after.without(failed)
        if left.is_missing_anything:
            missing = sum(target.to_ask for target in left)
            raise RaymiaError(f"{audit.title}: {missing} answers are missing; run the sweep again")
    return asked, [made.without(failed) for made in plans], failed


def _try(
    plan: SweepPlan, spec: AuditSpec, found: Places, start: Start
) -> tuple[dict[str, Evaluated], int, list[Setting]]:
    """Try every setting that was not tried before.

    Returns
    -------
    The results by key, how many settings were tried now, and all settings.
    """
    sweep, rates = plan.sweep, swept_rates(spec)
    record = Tried(spec.store, plan.halves, rates)
    known = record.read()
    by_key = {swept.key: swept for swept in sweep.attacks}
    settings = [
        Setting(place, parameters)
        for (_, key), places in found.found.items()
        for place in places
        for parameters in by_key[key].settings
    ]
    pending = {s.key: s for s in settings if s.key not in known}
    proposing = any(not swept.settings for swept in sweep.attacks)
    new: list[str] = []
    if pending or proposing:
        searches = [
            Proposed(
                tuple(places),
                by_key[key].spaces,
                sweep.spec.samples,
                sweep.spec.seed,
            )
            for (_, key), places in found.found.items()
            if not by_key[key].settings
        ]
        terms = Terms(
            spec.store,
            spec.records.kind,
            plan.halves,
            rates,
            sweep.spec.objective,
            load_plugins(spec.plugins),
        )
        executor = start()
        with executor.reporting() as board:
            board.expect(STAGE, len(pending) + sum(search.samples for search in searches))
            trials = executor.try_settings(
                list(pending.values()), searches, found.evidence, terms, board
            )
        settings, new = [*settings, *trials.proposed], trials.new
        known = record.read()
    lost = [setting for setting in settings if setting.key not in known]
    if lost:
        raise RaymiaError(f"{len(lost)} settings have no result; run the sweep again")
    return known, len(set(new)), settings


def _problems(rows: Sequence[Row]) -> list[str]:
    """Why settings could not be measured, each reason once."""
    reasons: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row.found.problem is not None:
            place = row.setting.place.target, row.setting.place.label, row.found.problem
            reasons[place] = reasons.get(place, 0) + 1
    return [
        f"target {target}: {count} settings of {label} could not be measured: {why}"
        for (target, label, why), count in reasons.items()
    ]
