"""Run a sweep as a Ray job.

    ray job submit --working-dir . -- python jobs/sweep.py audit.yaml

The last line of the output is one JSON object that sums the sweep up. The exit code is that of
`raymia sweep`: 0 when every target was swept, 3 when one failed or no setting could be measured, 2
for wrong input, 1 for anything else. A sweep that was interrupted goes on where it was when it is
submitted again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymia.cli.jobs import ending, read_job_file, run_job
from raymia.cli.main import sweep, sweep_code
from raymia.results.folder import SWEEP_FILE
from raymia.sweep.result import SweepResult
from raymia.util.credentials import say
from raymia.util.ending import end_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep, print the summary line, and return the exit code."""
    return run_job(run, arguments, sweep)


def run(file: Path, **options: Any) -> int:
    """Run `raymia sweep` and sum up how it went."""
    result: SweepResult | None = None
    page: str | None = None
    with ending() as end:
        spec = read_job_file(file, **options)
        result = sweep(file, **options)
        end.problems, page = result.problems, f"{spec.output}/{SWEEP_FILE}"
        end.code = sweep_code(result)
    say(json.dumps(summary(str(file), result, page, end.problems)))
    return end.code


def summary(
    file: str, result: SweepResult | None, page: str | None, problems: list[str]
) -> dict[str, Any]:
    """Sum a sweep up in a JSON-serializable mapping; one that did not end has null for the rest."""
    sums: dict[str, Any] = {
        "audit_file": file,
        "name": None,
        "settings": None,
        "tried_now": None,
        "asked": None,
        "best": None,
        "page": page,
        "problems": problems,
    }
    if result is None:
        return sums
    return sums | {
        "name": result.name,
        "settings": result.settings,
        "tried_now": result.tried_now,
        "asked": result.asked,
        "best": [
            {
                "target": winner.target,
                "attack": winner.label,
                "parameters": winner.parameters,
                "queries": winner.queries,
                "calibration": _value(winner.objective("calibration", result)),
                "evaluation": _value(winner.objective("evaluation", result)),
            }
            for winner in result.winners
        ],
    }


def _value(estimate: Any) -> float | None:
    return None if estimate is None else estimate.value


if __name__ == "__main__":
    end_with(main)
