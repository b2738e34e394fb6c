"""Train a language model whose members are known, as a target to audit.

    python jobs/train_lm.py training.yaml

`raymia train` as a job: the folder that the file names as `output` then has `checkpoint-STEP/`,
`members.jsonl`, `non_members.jsonl` and `manifest.json`, which `raymia audit` takes by itself. A
run that was interrupted goes on when it is started again. The last line of the output is one JSON
object. The exit code is 0, 2 for wrong input, and 1 for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymia.cli.jobs import ending, run_job
from raymia.cli.train import train
from raymia.util.credentials import say
from raymia.util.ending import end_with


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the summary line, and return the exit code."""
    return run_job(run, arguments, train)


def run(file: Path, plugin: list[str] | None = None) -> int:
    """Run `raymia train` and sum up what it made."""
    manifest: dict[str, Any] = {}
    with ending() as end:
        manifest = train(file, plugin)
    sums = {key: manifest.get(key) for key in ("name", "steps", "stopped_early", "checkpoints")}
    say(json.dumps({"training_file": str(file), **sums, "problems": end.problems}))
    return end.code


if __name__ == "__main__":
    end_with(main)
