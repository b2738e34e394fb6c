"""The actors of a stream end with it: when it fails, and when its thread is told to end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

from raymia.engine.on_ray.cluster import beside_the_driver
from raymia.engine.on_ray.ray_private import Kill, killer_of_actors
from raymia.engine.on_ray.stopping import stop_requested

POLL_SECONDS = 0.2
ANSWER_SECONDS = 10.0


class Actors:
    """The actors of a stream, which Ray Data keeps to itself.

    Attributes
    ----------
    register : an actor that those of the stream have to report to, where Ray has no way to kill
        all of them at once.
    """

    def __init__(self, context: Any) -> None:
        """Begin with the DataContext of the stream's data set, in the stream's own thread."""
        self.register: Any = None
        self._kill: Kill | None = killer_of_actors(context)
        if self._kill is None:
            self.register = ray.remote(**beside_the_driver())(Register).remote()

    @contextmanager
    def end_with(self) -> Iterator[None]:
        """Kill those that are left when the block ends, and all when this thread is told to end,
        which ends the execution in the block."""
        stop, ended = stop_requested(), threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                if stop.is_set():
                    self.end()

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            self.end()
            if self.register is not None:
                ray.kill(self.register)

    def end(self) -> None:
        """Kill them."""
        with suppress(Exception):  # the cluster may be what ended the stream
            if self._kill is not None:
                self._kill()
                return
            for actor in ray.get(self.register.take.remote(), timeout=ANSWER_SECONDS):
                ray.kill(actor)


class Register:
    """Handles of actors, given by themselves."""

    def __init__(self) -> None:
        self._actors: list[Any] = []

    def add(self, actor: Any) -> None:
        self._actors.append(actor)

    def take(self) -> list[Any]:
        taken, self._actors = self._actors, []
        return taken


def report_to(register: Any) -> None:
    """Call in an actor of a stream, with what :attr:`Actors.register` is."""
    if register is not None:
        register.add.remote(ray.get_runtime_context().current_actor)
