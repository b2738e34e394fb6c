"""Promise 3: workers are killed in mid-run; no record is lost and none appears twice."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from ray_fixtures import actors_seen, wait_until
from small_audit import NEIGHBORS, Models, console, parts, passages, raw_rows, write_small_audit

from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

pytestmark = pytest.mark.usefixtures("local_ray")

EACH = 12
PER_RECORD = 2 + NEIGHBORS  # itself, in lower case, and the neighbors
TOTAL = 2 * EACH * PER_RECORD


def audit_with_a_kill(
    folder: Path, models: Models, victims: list[str]
) -> tuple[RunResult, list[int]]:
    """Run an audit and kill the actors whose class names contain the victims, in their order."""
    texts = passages()
    file = write_small_audit(
        folder, models, engine="ray", members=texts[:EACH], non_members=texts[EACH : 2 * EACH],
        references=None, resources={"block_records": 1},
    )  # fmt: skip
    dead: list[int] = []
    earlier = {actor["ActorID"] for actor in actors_seen()}

    def kill() -> None:
        for number, victim in enumerate(victims, start=1):
            kind = "neighbors.mask_fill" if victim == "neighbors" else "text.tokens"
            wait_until(
                lambda kind=kind, enough=6 * number: len(parts(folder / "store", kind)) >= enough,
                120, "some records are answered",
            )  # fmt: skip
            living = [
                actor
                for actor in actors_seen()
                if victim in actor["ActorClassName"]
                and actor["ActorID"] not in earlier
                and actor["State"] == "ALIVE"
            ]
            dead.append(living[0]["Pid"])
            os.kill(dead[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = run_audit(load_spec(file), console())
    finally:
        killer.join(timeout=120)
    assert len(dead) == len(victims)
    return result, dead


def assert_whole(folder: Path) -> None:
    for kind, per_record in (("text.tokens", 1), ("text.neighbors", 3), ("neighbors.mask_fill", 3)):
        rows = [(row["record_id"], row["neighbor"]) for row in raw_rows(folder / "store", kind)]
        assert len(rows) == len(set(rows)) == 2 * EACH * per_record


def test_killed_actors_are_replaced_and_only_their_block_is_asked_again(
    tmp_path: Path, models: Models
) -> None:
    result, _ = audit_with_a_kill(tmp_path, models, ["neighbors", "target"])
    assert result.complete
    assert_whole(tmp_path)
    asked = {stage.name: stage.asked for stage in result.stages}
    # What was in flight: the block that was being answered, and one that waited for its actor.
    assert TOTAL <= asked["target:tuned"] <= TOTAL + 2 * PER_RECORD
    made = 2 * EACH * NEIGHBORS
    assert made <= asked["neighbors"] <= made + 2 * NEIGHBORS


@pytest.mark.slow
def test_the_run_survives_the_death_of_the_progress_board(tmp_path: Path, models: Models) -> None:
    result, _ = audit_with_a_kill(tmp_path, models, ["Counts"])
    assert result.complete
    assert_whole(tmp_path)
