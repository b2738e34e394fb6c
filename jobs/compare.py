"""Compare two runs as a Ray job, where they lie on storage that only the cluster sees.

    ray job submit --working-dir . -- python jobs/compare.py s3://bucket/run-1 s3://bucket/run-2

The last line of the output is one JSON object that sums the comparison up. The exit code is that of
`raymia compare`: 0, 2 for wrong input, 1 for anything else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from raymia.cli.jobs import ending
from raymia.report.comparison_table import print_comparison
from raymia.results.compare import compare_runs, parse_pairs
from raymia.results.comparison_result import RunComparison
from raymia.results.runs import StoredRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs, print the summary line, and return the exit code."""
    parser = argparse.ArgumentParser(description="Compare two runs as a Ray job.")
    parser.add_argument("a", metavar="RUN_A", help="folder of the earlier run")
    parser.add_argument("b", metavar="RUN_B", help="folder of the later run")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="A=B",
        help="targets whose names differ; may be repeated",
    )
    given = parser.parse_args(arguments)
    comparison: RunComparison | None = None
    with ending() as end:
        comparison = compare_runs(
            StoredRun.open(given.a), StoredRun.open(given.b), parse_pairs(given.target)
        )
        print_comparison(comparison, Console())
    print(json.dumps(summary(comparison, end.problems)), flush=True)
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
    sys.exit(main())
