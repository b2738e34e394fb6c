"""Promise 3: the driver is killed in mid-scoring; the next run asks only for what is missing."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from ray_fixtures import child_environment, ended, start, wait_until, workers_of
from small_audit import (
    ALL_ATTACKS,
    BASE,
    NEIGHBORS,
    Models,
    console,
    evidence,
    parts,
    passages,
    raw_rows,
    scores_by_row,
    write_small_audit,
)

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.run.status import read_status
from raymia.spec.file import load_spec

pytestmark = pytest.mark.usefixtures("local_ray")

EACH = 10  # members, and as many non-members
BLOCK = 1
ENOUGH = 5  # answered by the target when the driver is killed
DRIVER = """
from forks.workers import workers_forked
from raymia.cli.main import main
with workers_forked():
    main()
"""


def make(folder: Path, models: Models, engine: str) -> Path:
    texts = passages()
    return write_small_audit(
        folder, models, engine=engine, members=texts[:EACH], non_members=texts[EACH : 2 * EACH],
        references={"base": {"model": str(BASE)}}, resources={"block_records": BLOCK},
        neighbors={"kind": "substitute", "count": NEIGHBORS},
    )  # fmt: skip


def stored(file: Path) -> dict[str, int]:
    """What the planner finds in the store, by stage."""
    spec = load_spec(file)
    plans = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    return {stage.name: stage.stored for plan in plans for stage in plan.stages}


def by_name(result: RunResult, what: str) -> dict[str, int]:
    return {stage.name: getattr(stage, what) for stage in result.stages}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """An audit whose driver was killed with SIGKILL, and nothing of it lives any more."""
    folder = tmp_path_factory.mktemp("killed")
    file = make(folder, models, "ray")
    environment, mark = child_environment()
    command = [sys.executable, "-c", DRIVER, "audit", str(file)]
    target = load_target_key(file)
    with ended(mark):
        driver = start(command, environment, folder / "output.txt")

        def enough() -> bool:
            assert driver.poll() is None, (folder / "output.txt").read_text()
            answered = [p for p in parts(folder / "store", "text.tokens") if target in p.parts]
            return len(answered) >= ENOUGH

        wait_until(enough, 120, "the target has answered some records")
        driver.kill()
        driver.wait(30)
        # Ray's own processes follow their driver; what they commit until then is kept.
        wait_until(lambda: not workers_of(mark), 30, "no worker outlives its driver")
    return file


def load_target_key(file: Path) -> str:
    spec = load_spec(file)
    plan = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))[0]
    (tokens,) = (p for p in plan.target.questions if p.label == "tokens")
    return tokens.key.hash


def test_nothing_half_written_is_seen_and_no_report_pretends(killed: Path) -> None:
    left = {path.name for path in (killed.parent / "run").iterdir()}
    assert left.isdisjoint({"report.html", "metrics.json", "scores.parquet"})
    status = read_status(str(killed.parent / "run"))
    assert status.is_dead
    assert status.targets["tuned"].state == "scoring"
    assert status.targets["tuned"].total == 2 * EACH * (2 + NEIGHBORS)
    assert len(evidence(killed.parent / "store", "neighbors.substitute")) >= ENOUGH * NEIGHBORS


def test_the_next_run_asks_only_what_is_missing_and_scores_the_same(
    killed: Path, tmp_path: Path, models: Models
) -> None:
    before = stored(killed)
    records = 2 * EACH
    total = {
        "neighbors": records * NEIGHBORS,
        "target:tuned": records * (2 + NEIGHBORS),  # and in lower case
        "reference:base": records * (1 + NEIGHBORS),
    }
    assert 0 < before["target:tuned"] < total["target:tuned"], "the kill came too early or too late"

    resumed = run_audit(load_spec(killed), console())
    assert resumed.complete
    assert by_name(resumed, "stored") == before
    assert by_name(resumed, "asked") == {name: total[name] - before[name] for name in total}
    for kind in ("text.tokens", "text.neighbors", "neighbors.substitute"):
        count = Counter(
            (file.parent.name, row["record_id"], row["neighbor"])
            for file in parts(killed.parent / "store", kind)
            for row in rows_of(file)
        )
        models_asked = 1 if kind == "neighbors.substitute" else 2
        per_record = 1 if kind == "text.tokens" else NEIGHBORS
        assert len(count) == records * per_record * models_asked
        assert set(count.values()) == {1}

    undisturbed = make(tmp_path, models, "local")
    run_audit(load_spec(undisturbed), console())
    scores, expected = scores_by_row(killed.parent / "run"), scores_by_row(tmp_path / "run")
    assert scores.keys() == expected.keys()
    attacks = {attack for attack in ALL_ATTACKS if "@self_prompt" not in attack}
    assert len(scores) == records * (len(attacks) + 1)
    for row, score in expected.items():
        assert scores[row] == pytest.approx(score, abs=1e-6)
    texts = [
        {(r["record_id"], r["neighbor"]): r["payload"] for r in raw_rows(s, "neighbors.substitute")}
        for s in (killed.parent / "store", tmp_path / "store")
    ]
    assert texts[0] == texts[1]


def rows_of(file: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, object]] = pq.read_table(
        file, columns=["record_id", "neighbor"]
    ).to_pylist()
    return rows
