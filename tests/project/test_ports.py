"""Servers of tests are told ports that nobody else is given before they bind them."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
import ray_fixtures
from ray_fixtures import free_port, ports_of


def test_a_port_is_given_once_and_the_kernel_gives_none_of_them() -> None:
    given = [free_port() for _ in range(20)]
    assert len({*given}) == 20
    assert all(20_000 <= port < 32_000 for port in given)
    with ExitStack() as stack:
        asked = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(200)]
        assert not {server.getsockname()[1] for server in asked} & {*given}


def test_two_processes_of_tests_share_no_port() -> None:
    first, second = ports_of("gw0"), ports_of("gw1")
    assert len(first) == len(second) == 750
    assert not {*first} & {*second}
    assert first != sorted(first)


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(ray_fixtures, "_PORTS", iter([taken, free]))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() == free
    with pytest.raises(AssertionError, match="no port is free"):
        free_port()
