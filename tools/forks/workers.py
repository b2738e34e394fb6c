"""Starts a worker of Ray as a fork of a process that has imported what workers need.

The imports of a model take a worker five seconds, and tests start a hundred of them. Ray runs this
file in place of its ``setup_worker.py`` (:func:`workers_forked`). The first worker of a Ray starts
the process that forks, which ends with Ray, unless it is there already. What Ray has started lives
as long as its fork. A worker's own variables come after its imports; with more of its own it starts
as Ray has it.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    "raymia.engine.on_ray.stream",
    "raymia.models.causal.family",
    "raymia.models.paraphrasers.mask_filler",
    "raymia.prepare.train_target",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.t5.modeling_t5",
    "diffusers.models.unets.unet_2d",
    "peft",
    "ray.train.torch",
)
"""What takes the workers of most tests long."""
SET_UP = ("--language=", "--serialized-runtime-env-context=")
"""Options that are for Ray's ``setup_worker.py`` and not for the worker."""
LOOK_SECONDS = 1.0
BIND_SECONDS = 60.0


@contextmanager
def workers_forked() -> Iterator[None]:
    """Have the Rays that this process starts in the block fork their workers."""
    from ray._private import ray_constants

    rays_own = ray_constants.SETUP_WORKER_FILENAME
    ray_constants.SETUP_WORKER_FILENAME = __file__
    try:
        yield
    finally:
        ray_constants.SETUP_WORKER_FILENAME = rays_own


def place_of(temporary: Path) -> Path:
    """Where the process listens that forks for Rays of a folder for temporary files."""
    return temporary / "forks"


def main(arguments: list[str]) -> None:
    worker = [one for one in arguments if not one.startswith(SET_UP)]
    folder, own = option(worker, "--temp-dir="), own_variables(arguments)
    if not folder or own is None:
        start_as_ray_does(worker[0], arguments)
    try:
        fork = ask_for_fork(place_of(Path(folder)), worker, {**os.environ, **own})
    except OSError:
        start_as_ray_does(worker[0], arguments)
    fork.recv(1)  # nothing comes, and that when the fork has ended


def option(arguments: list[str], name: str, default: str = "") -> str:
    return next((one.removeprefix(name) for one in arguments if one.startswith(name)), default)


def own_variables(arguments: list[str]) -> dict[str, str] | None:
    """Environment variables of a worker alone; None for one that has more of its own than these, or
    is none of Python."""
    own = json.loads(option(arguments, SET_UP[1]) or "{}")
    variables: dict[str, str] = own.pop("env_vars", None) or {}
    is_other = own.pop("py_executable", sys.executable) != sys.executable or any(own.values())
    is_other |= "PYTHONPATH" in variables or any("$" in value for value in variables.values())
    if option(arguments, SET_UP[0]) != "PYTHON" or is_other:
        return None
    return variables


def start_as_ray_does(worker: str, arguments: list[str]) -> NoReturn:
    set_up = str(Path(worker).with_name("setup_worker.py"))
    os.execv(sys.executable, [sys.executable, set_up, *arguments])


def ask_for_fork(place: Path, worker: list[str], environment: dict[str, str]) -> socket.socket:
    """A connection that is open while the worker lives."""
    connection = socket.socket(socket.AF_UNIX)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            start_forking(place, int(os.environ["RAY_RAYLET_PID"]))
    connection.connect(str(place))
    order = json.dumps([worker, str(Path.cwd()), environment]).encode()
    socket.send_fds(connection, [len(order).to_bytes(8)], [0, 1, 2])
    connection.sendall(order)
    if not connection.recv(1):
        raise ConnectionError("the process that forks has ended")
    return connection


def start_forking(place: Path, user: int, imported: Sequence[str] = IMPORTED) -> None:
    """Start the process that forks.

    Parameters
    ----------
    user : a process; the one that forks ends when this has.
    imported : without Ray, forks serve several machines and jobs: when it is imported, Ray notes
        whose worker a process is.
    """
    output = place.with_suffix(".txt").open("wb")
    subprocess.Popen(
        [sys.executable, __file__, str(place), str(user), ",".join(imported)],
        start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as Ray has it for a worker
    )  # fmt: skip
    deadline = time.monotonic() + BIND_SECONDS
    while not place.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens at {place}")
        time.sleep(0.01)


def forked(place: Path, user: int, imported: Sequence[str]) -> list[str]:
    """Fork for whoever asks; returns in each fork, which has become what it is asked for, the
    command line of a worker. It ends when its user has."""
    listener = socket.socket(socket.AF_UNIX)
    unfinished = place.with_suffix(".new")
    listener.bind(str(unfinished))
    listener.listen(64)
    listener.settimeout(LOOK_SECONDS)
    unfinished.rename(place)
    for name in imported:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork that has ended stays as a zombie
    while True:
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os.setpgid(0, 0)  # Ray kills a worker with all of its group
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return become_what_is_asked(connection)
            connection.close()
        with suppress(ProcessLookupError):
            os.kill(user, 0)
            continue
        sys.exit()


def become_what_is_asked(connection: socket.socket) -> list[str]:
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        worker, folder, environment = json.loads(file.read(int.from_bytes(length)))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    connection.sendall(b".")
    connection.detach()  # it is open as long as this process is there
    found: list[str] = worker
    return found


if __name__ == "__main__":
    if len(sys.argv) == 4:  # see start_forking
        sys.argv = forked(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(","))
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        main(sys.argv[1:])
