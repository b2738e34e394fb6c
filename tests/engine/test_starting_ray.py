"""A machine that is too busy for Ray's own patience is tried once more; a cluster is not."""

from __future__ import annotations

from typing import Any

import pytest

from raymia.engine.on_ray import cluster
from raymia.spec import ResourcesSpec
from raymia.util.errors import RaymiaError

SLOW = "The current node timed out during startup."


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray was started with, each time."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "check_answers", lambda _: None)
    return seen


def slow(seen: list[dict[str, Any]], times: int) -> Any:
    def init(**options: Any) -> None:
        seen.append(options)
        if len(seen) <= times:
            raise Exception(SLOW)  # as Ray does

    return init


def test_a_slow_start_is_tried_again(
    starts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.ray, "init", slow(starts, 1))
    cluster._begin(ResourcesSpec(), cluster.LOCAL, {})
    assert len(starts) == 2
    assert starts[0] == starts[1]


@pytest.mark.parametrize(("address", "tries"), [(cluster.LOCAL, 2), ("127.0.0.1:6379", 1)])
def test_what_never_starts_is_said(
    starts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str, tries: int
) -> None:
    monkeypatch.setattr(cluster.ray, "init", slow(starts, 9))
    with pytest.raises(RaymiaError, match="timed out during startup"):
        cluster._begin(ResourcesSpec(), address, {})
    assert len(starts) == tries
