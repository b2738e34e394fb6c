"""Train shadows for LiRA: models trained as a target is, each on a random half of its records.

    python jobs/train_shadows.py training.yaml
    python jobs/train_shadows.py targets/ddpm/manifest.json --count 16

A training file of texts says how many as `shadows`. The second is of a target of images that was
trained before, whose manifest says how. The folder `shadows` of the training then has a
training for each, `in_out.parquet`, which says which was trained on what, and `manifest.json`,
which the references of an audit name. A run that was interrupted goes on when it is started again.
The last line of the output is one JSON object. The exit code is 0, 2 for wrong input, and 1 for
anything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymia.cli.jobs import ending, run_job
from raymia.cli.train import train_shadows
from raymia.util.credentials import say
from raymia.util.ending import end_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the summary line, and return the exit code."""
    return run_job(run, arguments, train_shadows)


def run(file: Path, **options: Any) -> int:
    """Train the shadows and sum up what was made."""
    manifest: dict[str, Any] = {}
    with ending() as end:
        manifest = train_shadows(file, **options)
    sums = {key: manifest.get(key) for key in ("records", "matrix", "shadows")}
    say(json.dumps({"training_file": str(file), **sums, "problems": end.problems}))
    return end.code


if __name__ == "__main__":
    end_with(main)
