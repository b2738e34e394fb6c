"""Compare two runs as a Ray job, where they lie on storage that only the cluster sees.

    ray job submit --working-dir . -- python jobs/compare.py s3://bucket/run-1 s3://bucket/run-2

The last line of the output is one JSON object that sums the comparison up. The exit code is that of
`raymia compare`: 0, 2 for wrong input, 1 for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from raymia.cli.jobs import ending, run_job
from raymia.cli.main import compare
from raymia.results.comparison_result import RunComparison
from raymia.util.credentials import say
from raymia.util.ending import end_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs, print the summary line, and return the exit code."""
    return run_job(run, arguments, compare)


def run(**given: Any) -> int:
    """Run `raymia compare` and sum up what it found."""
    comparison: RunComparison | None = None
    with ending() as end:
        comparison = compare(**given)
    say(json.dumps(summary(comparison, end.problems)))
    return end.code


def summary(comparison: RunComparison | None, problems: list[str]) -> dict[str, Any]:
    """Sum a comparison up in a JSON-serializable mapping; null where there is none."""
    if comparison is None:
        return {"records": None, "targets": None, "cautions": None, "problems": problems}
    return {
        "records": comparison.records.model_dump(exclude={"examples"}),
        "targets": [
            target.model_dump(include={"a", "b", "finding", "sentence"})
            for target in comparison.targets
        ],
        "cautions": comparison.cautions,
        "problems": problems,
    }


if __name__ == "__main__":
    end_with(main)
