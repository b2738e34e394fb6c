"""Make the references of an audit, and ask nothing, as a Ray job.

    ray job submit --working-dir . -- python jobs/prepare.py audit.yaml

Self-prompt and self-generated references that are in the store already are left as they are; the
audit finds them all there. The last line of the output is one JSON object. The exit code is 0 when
every reference is there, 2 for wrong input, 3 when some could not be made, 1 for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from raymia.cli.audit_file import AuditFile, OnEngine, Plugins
from raymia.cli.jobs import ending, read_job_file, run_job
from raymia.cli.main import EXIT_INCOMPLETE
from raymia.engine.base import engine as engine_of
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import AuditPlan, plan_audit
from raymia.run.asking import make_references
from raymia.util.credentials import say
from raymia.util.ending import end_with
from raymia.util.terminal import terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, print the summary line, and return the exit code."""
    return run_job(run, arguments)


def run(file: AuditFile, plugin: Plugins = None, engine: OnEngine = None) -> int:
    """Make the references of an audit that are missing, and sum up how it went."""
    ready, missing = 0, 0
    with ending() as end:
        spec = read_job_file(file, plugin, engine)
        store = EvidenceStore(spec.store)
        plan = plan_audit(resolve_inputs(spec), store)
        if not all(are_ready(plan)):
            with engine_of(spec.resources, spec.store, terminal()) as start:
                executor = start()
                executor.check(plan)
                with executor.reporting() as board:
                    _, failed = make_references(plan, store, executor, board)
            end.problems = [f"target {name}: {why}" for name, why in failed.items()]
            plan = plan.with_made_references()
        ready = sum(are_ready(plan))
        missing = len(are_ready(plan)) - ready
        end.code = EXIT_INCOMPLETE if missing else 0
    sums = {"audit_file": str(file), "ready": ready, "missing": missing, "problems": end.problems}
    say(json.dumps(sums))
    return end.code


def are_ready(plan: AuditPlan) -> list[bool]:
    """Whether each reference is in the store that targets have a part in."""
    return [preparation.ready for target in plan for preparation in target.preparations]


if __name__ == "__main__":
    end_with(main)
