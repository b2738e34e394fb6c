"""Break audits in every way, run them again, and hold the end to an undisturbed run.

    python tools/chaos.py --out chaos --runs 200 --page docs/scaling.md

Small audits run on a Ray cluster of three raylets on this machine. In each run something is broken
at a random moment (see tools/faults/strikes.py), or the disk fills up (a small tmpfs; needs root),
or an S3 server fails (needs `moto[server]` and `s3fs`). Then the audit is run again until it is
complete. Its scores must equal those of the undisturbed run bit for bit, every record must be there
once, and what a later run asks must be just what no file held. The exit code is 1 if one run fails.

Each outcome is a line of OUT/outcomes.jsonl, with the commit that was run. The same command goes on
after the last of them, however it was ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from faults.audits import BLOCK, Audit, Scores, Undisturbed
from faults.machines import FAILED_REQUESTS, Machines, machines, s3_server
from faults.strikes import STRIKES, Moment
from forks import programs

from raymia.storage.files import Folder

PLACES = ("disk_full", "s3")
KINDS = (*STRIKES, *PLACES)
TRAINED = ("self_prompt", "self_generated")
"""Audits that are killed while they train, in turn."""
ASKED_TWICE = ("second_audit", "frozen_actor", "frozen_raylet", "part_deleted", "part_cut")
"""Where more than what was in flight may be asked again."""
DRIVER = [
    "faults.strikes", "raymia.cli.jobs", "raymia.engine.on_ray.executor",
    "raymia.engine.on_ray.stream", "raymia.models.paraphrasers.mask_filler",
    "raymia.prepare.train_target", "transformers.models.t5.modeling_t5",
    "diffusers.models.unets.unet_2d",
]  # fmt: skip
"""What drivers import."""
MAX_RERUNS = 5
PATIENCE = 900.0
"""Seconds after which a run is taken to hang."""
OUTCOMES = "outcomes.jsonl"
START, END = "<!-- made by tools/chaos.py -->", "<!-- end -->"


@dataclass
class Outcome:
    """What became of one disturbed audit.

    Attributes
    ----------
    stored : share of the files of evidence that were there when it was time to strike.
    exits : codes of the first run and of those after it.
    again : answers that were asked for a second time.
    lost, doubled, different : scores that are missing, are there more than once, or are not those
        of the undisturbed run to the bit.
    """

    kind: str
    commit: str
    seconds: float = 0.0
    hit: bool = False
    stored: float | None = None
    exits: list[int] = field(default_factory=list)
    again: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    given.out.mkdir(parents=True, exist_ok=True)
    for left in given.out.glob("*/store"):
        if left.is_mount():
            _run("umount", "-l", str(left))
    outcomes = read(given.out)
    if len(outcomes) < given.runs:
        go_on(outcomes, given.out, given.runs, given.kinds, given.seed)
    table = summary(outcomes)
    print(table)
    if given.page:
        before, _, rest = given.page.read_text(encoding="utf-8").partition(START)
        page = f"{before}{START}\n\n{table}\n{END}{rest.partition(END)[2]}"
        given.page.write_text(page, encoding="utf-8")
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def read(out: Path) -> list[Outcome]:
    log = out / OUTCOMES
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def keep(outcomes: Sequence[Outcome], out: Path) -> None:
    lines = [json.dumps(asdict(one)) for one in outcomes]
    Folder(str(out)).write(OUTCOMES, "\n".join([*lines, ""]).encode())


def go_on(outcomes: list[Outcome], out: Path, runs: int, kinds: Sequence[str], seed: int) -> None:
    """Break audits until there are so many outcomes; each is kept as soon as it is known."""
    commit = commit_here()
    programs.IMPORTED += DRIVER
    with ExitStack() as stack:
        flaky = random.Random(seed)
        endpoint = stack.enter_context(s3_server(flaky)) if "s3" in kinds else ""
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        cluster = stack.enter_context(machines())
        undisturbed: dict[str, Undisturbed] = {}
        for number in range(len(outcomes), runs):
            kind = kinds[number % len(kinds)]
            round_number = number // len(kinds)
            variant = TRAINED[round_number % 2] if kind == "training" else "texts"
            if variant not in undisturbed:
                undisturbed[variant] = run_undisturbed(out, cluster, variant)
            audit = Audit(out / f"{number:03}-{kind}", cluster.address, variant)
            outcome = Outcome(kind, commit)
            began = time.monotonic()
            draws = random.Random(f"{seed} {number}")
            try:
                disturb(audit, cluster, draws, undisturbed[variant], outcome)
            except TimeoutError as error:
                outcome.wrong.append(f"a run did not end {error}")
            outcome.seconds = round(time.monotonic() - began, 1)
            outcomes.append(outcome)
            keep(outcomes, out)
            print(f"{number + 1} of {runs}: {outcome}", flush=True)
            if outcome.wrong:
                (audit.folder / "log.txt").write_text(audit.log(), encoding="utf-8")
            else:
                shutil.rmtree(audit.folder)


def commit_here() -> str:
    """The commit of this checkout, and whether something in it is not committed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    described = subprocess.run(
        [*git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    )
    return described.stdout.strip()


def run_undisturbed(out: Path, cluster: Machines, variant: str) -> Undisturbed:
    started = time.monotonic()
    audit = Audit(out / f"undisturbed-{variant}", cluster.address, variant)
    process = audit.start()
    first, most = 0.0, 0
    while not process.has_ended:
        most = max(most, len(audit.parts()))
        first = first or (time.monotonic() - started if most else 0.0)
        time.sleep(0.01)
    if process.returncode != 0:
        raise SystemExit(f"the undisturbed audit failed:\n{audit.log()}")
    found = Undisturbed(audit.scores(), time.monotonic() - started, first, most)
    print(
        f"undisturbed: {variant}, {len(found.scores)} scores in {found.seconds:.0f} s, the first "
        f"of {most} files of evidence after {first:.0f} s",
        flush=True,
    )
    return found


def disturb(
    audit: Audit, cluster: Machines, draws: random.Random, undisturbed: Undisturbed,
    outcome: Outcome,
) -> None:  # fmt: skip
    """Run an audit that is disturbed, run it again until it is complete, and compare."""
    with place_of(outcome.kind, audit, outcome) as repair:
        moment = Moment(audit, audit.start(), cluster, draws, undisturbed, wrong=outcome.wrong)
        if outcome.kind in STRIKES:
            outcome.hit = STRIKES[outcome.kind](moment)
        outcome.stored = moment.stored
        outcome.exits.append(moment.process.wait(PATIENCE).returncode)
        repair()
        for mend in moment.repair:
            mend()
        cluster.mend()
        audit.address = cluster.address
        outcome.hit = outcome.hit or outcome.exits[0] != 0
        while outcome.exits[-1] != 0 and len(outcome.exits) <= MAX_RERUNS:
            missing = audit.missing()
            outcome.exits.append(audit.start().wait(PATIENCE).returncode)
            if outcome.exits[-1] == 0 and missing is not None and audit.asked() != missing:
                outcome.wrong.append(f"{missing} answers were missing, {audit.asked()} were asked")
        if outcome.exits[-1] != 0:
            outcome.wrong.append(f"not complete after {len(outcome.exits)} runs")
            return
        compare(audit.scores(), undisturbed.scores, outcome)
        outcome.again = audit.rows_twice()
        # Two actors and the paraphraser, each with a block at work; two neighbors a record.
        if outcome.again > 3 * BLOCK * 3 and outcome.kind not in ASKED_TWICE:
            outcome.wrong.append(f"{outcome.again} answers were given twice")


def compare(found: Scores, expected: Scores, outcome: Outcome) -> None:
    """Note what scores differ in."""
    by_key = dict(found)
    outcome.lost = sum(key not in by_key for key, _ in expected)
    outcome.different = sum(by_key.get(key, bits) != bits for key, bits in expected)
    outcome.doubled = len(found) - len(by_key)
    if found != expected:
        outcome.wrong.append(
            f"{outcome.lost} scores are lost, {outcome.doubled} are there twice, "
            f"{outcome.different} differ"
        )


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
        "Hit: the audit was still at work, or was ended by it.",
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
    lost, doubled, different = (
        sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("lost", "doubled", "different")
    )
    total = (
        f"{len(outcomes)} disturbed audits, {sum(o.hit for o in outcomes)} of them hit, at "
        f"{', '.join(dict.fromkeys(o.commit for o in outcomes))}: {lost} scores lost, {doubled} "
        f"there twice, {different} not equal to the bit, {len(wrong)} failures. In the median an "
        f"audit with all its further runs took {median(o.seconds for o in outcomes):.0f} s."
    )
    return "\n".join([*lines, "", total, *(["", *wrong] if wrong else []), ""])


if __name__ == "__main__":
    sys.exit(main())
