"""Break audits in every way, run them again, and hold the end to an undisturbed run.

    python tools/chaos.py --out chaos --runs 200 --page docs/scaling.md

Small audits run on a Ray cluster of three raylets on this machine. In each run something is broken
at a random moment (see tools/faults/strikes.py), or the disk fills up (a small tmpfs; needs root),
or an S3 server fails (needs `moto[server]` and `s3fs`). Then the audit is run again until it is
complete. Its scores must equal those of the undisturbed run bit for bit, every record must be there
once, and what a later run asks must be just what no file held. The exit code is 1 if one run fails.

Each outcome is a line of OUT/outcomes.jsonl. The same command goes on after the last of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from faults.audits import BLOCK, Audit, Scores
from faults.machines import FAILED_REQUESTS, MARK, Machines, machines, s3_server
from faults.strikes import STRIKES, Moment

from raymia.storage.files import Folder

PLACES = ("disk_full", "s3")
KINDS = (*STRIKES, *PLACES)
TRAINED = ("self_prompt", "self_generated")
"""Audits that are killed while they train, in turn."""
ASKED_TWICE = ("second_audit", "frozen_actor", "frozen_raylet", "part_deleted", "part_cut")
"""Where more than what was in flight may be asked again."""
MAX_RERUNS = 5
START, END = "<!-- made by tools/chaos.py -->", "<!-- end -->"


@dataclass
class Outcome:
    """What became of one disturbed audit."""

    kind: str
    hit: bool = False
    exits: list[int] = field(default_factory=list)
    again: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Undisturbed:
    """What a variant of the audit comes to, and how long it takes."""

    scores: Scores
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    log = given.out / "outcomes.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    with ExitStack() as stack:
        flaky = random.Random(given.seed)
        endpoint = stack.enter_context(s3_server(flaky)) if "s3" in given.kinds else ""
        os.environ |= {
            MARK: uuid.uuid4().hex, "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        cluster = stack.enter_context(machines())
        undisturbed: dict[str, Undisturbed] = {}
        for number in range(len(outcomes), given.runs):
            kind = given.kinds[number % len(given.kinds)]
            round_number = number // len(given.kinds)
            variant = TRAINED[round_number % 2] if kind == "training" else "texts"
            if variant not in undisturbed:
                undisturbed[variant] = run_undisturbed(given.out, cluster, variant)
            audit = Audit(given.out / f"{number:03}-{kind}", cluster.address, variant)
            draws = random.Random(f"{given.seed} {number}")
            outcome = disturb(kind, audit, cluster, draws, undisturbed[variant])
            outcomes.append(outcome)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            print(f"{number + 1} of {given.runs}: {outcome}", flush=True)
            if not outcome.wrong:
                shutil.rmtree(audit.folder)
        for variant, one in undisturbed.items():
            print(f"undisturbed {variant}: {one.seconds:.0f} s")
    table = summary(outcomes)
    print(table)
    if given.page:
        before, _, rest = given.page.read_text(encoding="utf-8").partition(START)
        page = f"{before}{START}\n\n{table}\n{END}{rest.partition(END)[2]}"
        given.page.write_text(page, encoding="utf-8")
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def run_undisturbed(out: Path, cluster: Machines, variant: str) -> Undisturbed:
    started = time.monotonic()
    audit = Audit(out / f"undisturbed-{variant}", cluster.address, variant)
    if audit.start().wait() != 0:
        raise SystemExit(f"the undisturbed audit failed:\n{audit.log()}")
    found = Undisturbed(audit.scores(), time.monotonic() - started)
    print(
        f"undisturbed: {variant}, {len(found.scores)} scores in {found.seconds:.0f} s", flush=True
    )
    return found


def disturb(
    kind: str, audit: Audit, cluster: Machines, draws: random.Random, undisturbed: Undisturbed
) -> Outcome:
    """Run an audit that is disturbed, run it again until it is complete, and compare."""
    outcome = Outcome(kind)
    with place_of(kind, audit, outcome) as repair:
        moment = Moment(audit, audit.start(), cluster, draws, undisturbed.seconds, outcome.wrong)
        if kind in STRIKES:
            outcome.hit = STRIKES[kind](moment)
        outcome.exits.append(moment.process.wait())
        repair()
        for mend in moment.repair:
            mend()
        cluster.mend()
        audit.address = cluster.address
        outcome.hit = outcome.hit or outcome.exits[0] != 0
        while outcome.exits[-1] != 0 and len(outcome.exits) <= MAX_RERUNS:
            missing = audit.missing()
            outcome.exits.append(audit.start().wait())
            if outcome.exits[-1] == 0 and missing is not None and audit.asked() != missing:
                outcome.wrong.append(f"{missing} answers were missing, {audit.asked()} were asked")
        if outcome.exits[-1] != 0:
            outcome.wrong.append(f"not complete after {len(outcome.exits)} runs")
            return outcome
        found = audit.scores()
        if found != undisturbed.scores:
            different = [k for k, score in undisturbed.scores.items() if found.get(k) != score]
            outcome.wrong.append(f"{len(different)} scores differ or are missing: {different[:3]}")
        outcome.again = audit.rows_twice()
        # Two actors and the paraphraser, each with a block at work; two neighbors a record.
        if outcome.again > 3 * BLOCK * 3 and kind not in ASKED_TWICE:
            outcome.wrong.append(f"{outcome.again} answers were given twice")
    return outcome


@contextmanager
def place_of(kind: str, audit: Audit, outcome: Outcome) -> Iterator[Callable[[], object]]:
    """Where the audit's store lies; gives what mends it before the audit is run again."""
    if kind == "disk_full":
        disk = audit.folder / "store"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)], check=True)
        try:
            yield lambda: _run("mount", "-o", "remount,size=64m", str(disk))
        finally:
            _run("umount", "-l", str(disk))
        return
    if kind == "s3":
        audit.write({**audit.content, "store": f"s3://raymia/{audit.folder.name}"})
        Folder("s3://raymia").fs.makedirs("raymia", exist_ok=True)
        before = len(FAILED_REQUESTS)
        yield lambda: None
        outcome.hit = len(FAILED_REQUESTS) > before
        return
    yield lambda: None


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line for each kind of disturbance."""
    lines = [
        "Hit: the audit was still at work.",
        "",
        "| what | runs | hit | complete without another run | further runs | answers given twice "
        "| failures |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        reruns = Counter(len(outcome.exits) - 1 for outcome in own)
        lines.append(
            f"| {kind} | {len(own)} | {sum(o.hit for o in own)} | {reruns[0]} | "
            f"{sum(n * times for n, times in reruns.items())} | {sum(o.again for o in own)} | "
            f"{sum(bool(o.wrong) for o in own)} |"
        )
    wrong = [f"- {o.kind}: {'; '.join(o.wrong)}" for o in outcomes if o.wrong]
    counts = json.dumps({"runs": len(outcomes), "failures": len(wrong)})
    return "\n".join([*lines, "", *wrong, counts, ""])


if __name__ == "__main__":
    sys.exit(main())
