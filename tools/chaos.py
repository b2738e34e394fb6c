"""Break audits in every way, run them again, and hold the end to an undisturbed run.

    python tools/chaos.py --out chaos --runs 60 --page docs/scaling.md

A small audit of the demo's model runs on a Ray cluster of three raylets on this machine. In each
run something is destroyed at a random moment: an actor, a raylet, the driver, the driver and all
actors while a file is being written, the disk (a small tmpfs that fills up; needs root), or the
answers of an S3 server (needs `moto[server]` and `s3fs`). Then the audit is run again until it is
complete. Its scores must equal those of the undisturbed run bit for bit, every record must be there
once, and what a later run asks must be just what no file held. The exit code is 1 if one run fails.
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
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import raymia
from raymia.demo.text import audit_passages, copy_asset, write_jsonl
from raymia.evidence.store import EvidenceStore, row_keys
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.spec.file import load_spec
from raymia.storage.files import TEMPORARY_PREFIX, Folder

MARK = "RAYMIA_CHAOS_MARK"
KINDS = ("actor", "raylet", "driver", "mid_write", "disk_full", "s3")
EACH = 24
BLOCK = 2
MAX_RERUNS = 5
S3_FAILURES = 0.1
"""Share of requests that the S3 server answers with an error."""
START, END = "<!-- made by tools/chaos.py -->", "<!-- end -->"

Scores = dict[tuple[str, str, str], str]


@dataclass
class Outcome:
    """What became of one disturbed audit."""

    kind: str
    hit: bool = False
    exits: list[int] = field(default_factory=list)
    again: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the table into this page")
    given = parser.parse_args()
    draws = random.Random(given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        endpoint = stack.enter_context(s3_server(draws)) if "s3" in given.kinds else ""
        os.environ |= {
            MARK: uuid.uuid4().hex, "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        cluster = stack.enter_context(three_raylets())
        started = time.monotonic()
        first = Audit(given.out / "undisturbed", cluster.address)
        if first.run() != 0:
            print(first.log())
            return 1
        seconds, expected = time.monotonic() - started, first.scores()
        print(f"undisturbed: {len(expected)} scores in {seconds:.0f} s", flush=True)
        outcomes = []
        for number in range(given.runs):
            kind = given.kinds[number % len(given.kinds)]
            audit = Audit(given.out / f"{number:03}-{kind}", cluster.address)
            outcomes.append(disturb(kind, audit, cluster, draws, seconds, expected))
            print(f"{number + 1} of {given.runs}: {outcomes[-1]}", flush=True)
            if not outcomes[-1].wrong:
                shutil.rmtree(audit.folder)
    table = summary(outcomes, seconds)
    print(table)
    if given.page:
        before, _, rest = given.page.read_text(encoding="utf-8").partition(START)
        page = f"{before}{START}\n\n{table}\n{END}{rest.partition(END)[2]}"
        given.page.write_text(page, encoding="utf-8")
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


class Audit:
    """One audit in a folder of its own, run by a process that joins the cluster."""

    def __init__(self, folder: Path, address: str, store: str = "store") -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.address = folder, address
        texts = audit_passages()
        for model in ("base", "paraphraser"):
            copy_asset(f"models/{model}", folder / model)
        write_jsonl(folder / "members.jsonl", texts[:EACH])
        write_jsonl(folder / "non_members.jsonl", texts[EACH : 2 * EACH])
        self.file = folder / "audit.yaml"
        content = {
            "name": folder.name, "output": "run", "store": store,
            "records": {"members": "members.jsonl", "non_members": "non_members.jsonl"},
            "targets": [{"name": "target", "model": "base"}],
            "neighbors": {"model": "paraphraser", "count": 2},
            "attacks": ["loss", "min_k", "neighbor"],
            "resources": {"block_records": BLOCK, "target": {"actors": 2, "cpus": 0.5},
                          "paraphraser": {"cpus": 0.5}},
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(content), encoding="utf-8")

    def start(self) -> subprocess.Popen[bytes]:
        script = Path(__file__).parents[1] / "jobs" / "audit.py"
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(script), str(self.file)],
                env={**os.environ, "RAY_ADDRESS": self.address}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def run(self) -> int:
        return self.start().wait()

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def scores(self) -> Scores:
        """Scores as they are in binary, by target, attack and record."""
        rows = raymia.load_run(self.folder / "run").scores().to_pylist()
        found = {
            (row["target"], row["attack"], row["record_id"]): float.hex(row["score"])
            for row in rows
        }
        if len(found) < len(rows):
            raise AssertionError(f"{len(rows) - len(found)} rows of scores are there twice")
        return found

    def missing(self) -> int:
        """What the planner finds that no file answers."""
        spec = load_spec(self.file)
        return sum(p.to_ask for p in plan_audit(resolve_inputs(spec), EvidenceStore(spec.store)))

    def asked(self) -> int:
        return sum(s.asked for s in raymia.load_run(self.folder / "run").result.stages)

    def rows_twice(self) -> int:
        """Answers that lie in more than one file."""
        spec = load_spec(self.file)
        store, twice = EvidenceStore(spec.store), 0
        for plan in plan_audit(resolve_inputs(spec), store):
            for key in (p.key for stage in plan.stages for p in stage.probes):
                names = store.folder.names(key.folder, ".parquet")
                parts = [store.read_part(f"{key.folder}/{name}") for name in names]
                keys = [pair for part in parts for pair in row_keys(part)]
                twice += len(keys) - len(set(keys))
        return twice


def disturb(
    kind: str, audit: Audit, cluster: Any, draws: random.Random, seconds: float, expected: Scores
) -> Outcome:
    """Run an audit that is disturbed, run it again until it is complete, and compare."""
    outcome = Outcome(kind)
    with place_of(kind, audit, outcome) as repair:
        process = audit.start()
        if kind in STRIKES:
            time.sleep(draws.uniform(0.2, 0.9) * seconds)
            outcome.hit = STRIKES[kind](Moment(audit, process, cluster, draws))
        outcome.exits.append(process.wait())
        repair()
        outcome.hit = outcome.hit or outcome.exits[0] != 0
        while outcome.exits[-1] != 0 and len(outcome.exits) <= MAX_RERUNS:
            missing = audit.missing()
            outcome.exits.append(audit.run())
            if outcome.exits[-1] == 0 and audit.asked() != missing:
                outcome.wrong.append(f"{missing} answers were missing, {audit.asked()} were asked")
        if outcome.exits[-1] != 0:
            outcome.wrong.append(f"not complete after {len(outcome.exits)} runs")
            return outcome
        found = audit.scores()
        if found != expected:
            different = [key for key in expected if found.get(key) != expected[key]]
            outcome.wrong.append(f"{len(different)} scores differ or are missing: {different[:3]}")
        outcome.again = audit.rows_twice()
        # Two actors and the paraphraser, each with a block at work; two neighbors a record.
        if outcome.again > 3 * BLOCK * 3:
            outcome.wrong.append(f"{outcome.again} answers were given twice")
    return outcome


@dataclass(frozen=True)
class Moment:
    """What there is to destroy while an audit runs."""

    audit: Audit
    process: subprocess.Popen[bytes]
    cluster: Any
    draws: random.Random

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None


def strike_actor(at: Moment) -> bool:
    victims = workers()
    if not victims or not at.is_running:
        return False
    os.kill(at.draws.choice(victims), signal.SIGKILL)
    return True


def strike_raylet(at: Moment) -> bool:
    node = at.draws.choice(sorted(at.cluster.worker_nodes, key=lambda node: str(node.node_id)))
    was_running = at.is_running
    at.cluster.remove_node(node, allow_graceful=False)
    at.cluster.add_node(num_cpus=1)
    return was_running


def strike_driver(at: Moment) -> bool:
    was_running = at.is_running
    at.process.kill()
    return was_running


def strike_mid_write(at: Moment) -> bool:
    """Kill the actors and the driver while a file with a temporary name is there."""
    store = at.audit.folder / "store"
    while at.is_running:
        names = (name for _, _, names in os.walk(store) for name in names)
        if any(name.startswith(TEMPORARY_PREFIX) for name in names):
            for victim in workers():
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            at.process.kill()
            return True
    return False


STRIKES: dict[str, Callable[[Moment], bool]] = {
    "actor": strike_actor,
    "raylet": strike_raylet,
    "driver": strike_driver,
    "mid_write": strike_mid_write,
}


@contextmanager
def place_of(kind: str, audit: Audit, outcome: Outcome) -> Iterator[Callable[[], None]]:
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
        spec = yaml.safe_load(audit.file.read_text(encoding="utf-8"))
        spec["store"] = f"s3://raymia/{audit.folder.name}"
        audit.file.write_text(yaml.safe_dump(spec), encoding="utf-8")
        Folder("s3://raymia").fs.makedirs("raymia", exist_ok=True)
        before = len(FAILED_REQUESTS)
        yield lambda: None
        outcome.hit = len(FAILED_REQUESTS) > before
        return
    yield lambda: None


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def workers() -> list[int]:
    """Processes of the campaign's cluster that are an actor of a pool."""
    found, mark = [], f"{MARK}={os.environ[MARK]}".encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if not entry.name.isdigit():
                continue
            is_actor = (entry / "cmdline").read_bytes().startswith(b"ray::MapWorker")
            if is_actor and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return sorted(found)


@contextmanager
def three_raylets() -> Iterator[Any]:
    """A head that drives, and two machines with a CPU each, all on this one."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        ray.shutdown()


FAILED_REQUESTS: list[str] = []


@contextmanager
def s3_server(draws: random.Random) -> Iterator[str]:
    """An S3 server on loopback that answers a share of its requests with an error."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    served = DomainDispatcherApplication(create_backend_app)

    def flaky(environ: Any, respond: Any) -> Any:
        if draws.random() < S3_FAILURES:
            FAILED_REQUESTS.append(environ["PATH_INFO"])
            respond("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"Slow down"]
        return served(environ, respond)

    server = make_server("127.0.0.1", 0, flaky, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """A line for each kind of disturbance."""
    lines = [
        f"An undisturbed run takes {seconds:.0f} s. Hit: the audit was still at work.",
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
