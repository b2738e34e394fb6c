"""`raymia plan`: what would be asked of which model, and what it will take."""

from __future__ import annotations

from rich.console import Console, RenderableType

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.estimate import estimate
from raymia.plan.planning import plan_audit
from raymia.report.plan_table import plan_table
from raymia.spec import AuditSpec
from raymia.storage.files import check_can_write
from raymia.sweep.plan import plan_sweep
from raymia.sweep.space import check_sweep


def print_plan(spec: AuditSpec, console: Console, calibrate: int | None = None) -> None:
    """Print the plan of an audit, and of its sweep; loads no model but to calibrate.

    Parameters
    ----------
    calibrate : how many records are asked about to measure how long the models take.
    """
    if calibrate is not None:
        from raymia.run.calibrate import calibrate as measure_rates

        measure_rates(resolve_inputs(spec), EvidenceStore(spec.store), calibrate, console)
    console.print(audit_plan(spec))
    if spec.sweep is not None:
        from raymia.report.sweep_table import sweep_plan_table

        sweep = plan_sweep(check_sweep(spec), EvidenceStore(spec.store))
        console.print(sweep_plan_table(spec.name, sweep))


def audit_plan(spec: AuditSpec) -> RenderableType:
    """The plan of an audit as a table for the terminal."""
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    plans = plan_audit(inputs, store)
    if plans.is_missing_anything:
        check_can_write(spec.store, "store")
    return plan_table(inputs, plans, estimate(inputs, plans, store))
