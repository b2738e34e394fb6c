"""Run an audit as a Ray job.

    ray job submit --working-dir . -- python jobs/audit.py audit.yaml

The last line of the output is one JSON object that sums the run up. The exit code is that of
`raymia audit`: 0 when every question was answered, 2 for wrong input, 3 when the run is incomplete
or a checkpoint failed (submit it again to go on), 4 when a condition of `fail_if` or `--fail-if` is
not passed, 6 when conditions are undecided and nothing else closes the gate, 1 for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymia.cli.jobs import ending, read_job_file, run_job
from raymia.cli.main import audit, result_code
from raymia.results.folder import REPORT_FILE
from raymia.results.ranking import rank
from raymia.results.result import RunResult
from raymia.spec import AuditSpec
from raymia.util.credentials import say
from raymia.util.ending import end_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit, print the summary line, and return the exit code."""
    return run_job(run, arguments, audit)


def run(file: Path, **options: Any) -> int:
    """Run `raymia audit` and sum up how it went."""
    spec: AuditSpec | None = None
    result: RunResult | None = None
    with ending() as end:
        spec = read_job_file(file, **options)
        result = audit(file, **options)
        end.problems, end.code = result.problems, result_code(result)
    say(json.dumps(summary(str(file), spec, result, end.problems)))
    return end.code


def summary(
    file: str, spec: AuditSpec | None, result: RunResult | None, problems: list[str]
) -> dict[str, Any]:
    """Sum a run up in a JSON-serializable mapping; a run that did not end has null for the rest."""
    sums: dict[str, Any] = {
        "audit_file": file,
        "name": None if spec is None else spec.name,
        "complete": False,
        "failed": None,
        "records": None,
        "asked": None,
        "stored": None,
        "dropped": None,
        "report": None,
        "best": None,
        "gate": None,
        "problems": problems,
    }
    if spec is None or result is None:
        return sums
    return sums | {
        "complete": result.complete,
        "failed": {one.name: one.reason for one in result.failed},
        "records": result.records.model_dump(),
        "asked": sum(stage.asked for stage in result.stages),
        "stored": sum(stage.stored for stage in result.stages),
        "dropped": result.dropped_total,
        "report": f"{spec.output}/{REPORT_FILE}",
        "best": best_attacks(result),
        "gate": [outcome.model_dump() for outcome in result.gate],
        "problems": problems,
    }


def best_attacks(result: RunResult) -> list[dict[str, Any]]:
    """The first attack on each target by the report's own ranking; TPR is null if unresolvable."""
    best: list[dict[str, Any]] = []
    for ranking in rank(result.metrics):
        if not ranking.measured:
            continue
        attack = ranking.measured[0]
        tpr = {
            f"{point.max_fpr:g}": None if point.estimate is None else point.estimate.value
            for point in attack.tpr
        }
        best.append(
            {
                "target": ranking.target,
                "attack": attack.attack,
                "auc": attack.auc.value,
                "tpr_at_fpr": tpr,
            }
        )
    return best


if __name__ == "__main__":
    end_with(main)
