"""Make the references of an audit, and ask nothing, as a Ray job.

    ray job submit --working-dir . -- python jobs/prepare.py audit.yaml

Self-prompt and self-generated references that are in the store already are left as they are; the
audit finds them all there. The last line of the output is one JSON object. The exit code is 0 when
every reference is there, 2 for wrong input, 3 when some could not be made, 1 for anything else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from raymia.cli.jobs import ending, lost_folders
from raymia.cli.main import EXIT_INCOMPLETE
from raymia.engine.on_ray.run import make_references
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.spec.file import load_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, print the summary line, and return the exit code."""
    parser = argparse.ArgumentParser(description="Make the references of an audit.")
    parser.add_argument("audit_file", metavar="AUDIT.YAML", help="the audit file")
    file: str = parser.parse_args(arguments).audit_file

    ready, missing = 0, 0
    with ending() as end:
        spec = load_spec(file)
        for warning in lost_folders(spec):
            print(f"warning: {warning}", flush=True)
        inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
        if not all(made(inputs, store)):
            failed = make_references(inputs, store, spec.store, Console())
            end.problems = [f"target {name}: {why}" for name, why in failed.items()]
        ready = sum(made(inputs, store))
        missing = len(made(inputs, store)) - ready
        end.code = EXIT_INCOMPLETE if missing else 0
    sums = {"audit_file": file, "ready": ready, "missing": missing, "problems": end.problems}
    print(json.dumps(sums), flush=True)
    return end.code


def made(inputs: Inputs, store: EvidenceStore) -> list[bool]:
    """Whether each reference is in the store that targets have a part in."""
    plans = plan_audit(inputs, store)
    return [preparation.ready for plan in plans for preparation in plan.preparations]


if __name__ == "__main__":
    sys.exit(main())
