"""Workers of the tests' Ray are forks, which spares each its imports, and workers all the same."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from forks import workers
from ray_fixtures import LOCAL_CPUS, wait_until

pytestmark = pytest.mark.usefixtures("local_ray")


def looking(**options: Any) -> Any:
    """An actor that says what its process is."""

    class Looking:  # which travels whole: workers find no module of tests
        def process(self) -> tuple[int, str]:
            """Its number, and the first argument of its parent."""
            parent = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8")
            return os.getpid(), parent.split("\0")[1]

        def variable(self) -> str | None:
            return os.environ.get("RAYMIA_TEST")

        def imported(self) -> set[str]:
            return {*workers.IMPORTED} & {*sys.modules}

    return ray.remote(num_cpus=0)(Looking).options(**options).remote()


def test_a_worker_is_a_fork_that_has_imported_what_it_needs() -> None:
    actor = looking(max_restarts=1, max_task_retries=1)
    assert ray.get(actor.imported.remote()) == {*workers.IMPORTED}
    process, first = ray.get(actor.process.remote())
    os.kill(process, signal.SIGKILL)
    again, parent = ray.get(actor.process.remote())
    assert again != process
    ray.kill(actor)
    wait_until(lambda: not Path(f"/proc/{again}").exists(), 10, "it ends, and is no zombie")
    more = [looking() for _ in range(LOCAL_CPUS + 1)]  # than Ray keeps ready
    others = ray.get([one.process.remote() for one in more])
    assert {first, parent, *(of_other for _, of_other in others)} == {workers.__file__}


def test_a_worker_has_the_variables_that_it_is_given() -> None:
    actor = looking(runtime_env={"env_vars": {"RAYMIA_TEST": "its own"}})
    assert ray.get(actor.variable.remote()) == "its own"
    _, parent = ray.get(actor.process.remote())
    assert parent == workers.__file__


def test_a_worker_with_another_python_starts_as_ray_has_it() -> None:
    actor = looking(runtime_env={"py_executable": f"{sys.executable} -B"})
    _, parent = ray.get(actor.process.remote())
    assert parent != workers.__file__
    assert ray.get(actor.imported.remote()) == set()
