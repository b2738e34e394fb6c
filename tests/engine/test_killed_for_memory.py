"""A task that Ray kills for lack of memory is run again a few times, and then that is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray_fixtures import child_environment, ended

from raymia.engine.on_ray.failures import OUT_OF_MEMORY

PROGRAM = """
import sys, time
from pathlib import Path
from raymia.engine.on_ray.cluster import connected
from raymia.engine.on_ray.tasks import outcomes
from raymia.spec import PoolSpec, ResourcesSpec

def work():
    time.sleep(300)

with connected(ResourcesSpec(engine="ray", cpus=1)) as cluster:
    ((_, outcome),) = outcomes([work], PoolSpec(cpus=1), cluster, 1)
print("OUTCOME:", type(outcome).__name__, outcome)
"""
NO_MEMORY = {
    # As if next to none were left, however much the machine has.
    "RAY_memory_usage_threshold": "0.001",
    "RAY_memory_monitor_refresh_ms": "500",
    "RAY_task_oom_retry_delay_base_ms": "10",
}


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_a_task_that_is_killed_for_memory_each_time_ends_with_a_sentence(tmp_path: Path) -> None:
    environment, mark = child_environment(**NO_MEMORY)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with ended(mark):
        done = subprocess.run(
            [sys.executable, str(program)],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert f"OUTCOME: RaymiaError {OUT_OF_MEMORY}\n" in done.stdout, done
