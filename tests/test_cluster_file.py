"""cluster.yaml is one that Ray accepts, and keeps what docs promise of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER_FILE = Path(__file__).parents[1] / "cluster.yaml"


@pytest.fixture
def cluster() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(CLUSTER_FILE.read_text(encoding="utf-8"))
    return content


def check_with_ray(content: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(content))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    assert set(check_with_ray(cluster)["available_node_types"]) == {"head", "cpu", "a10g", "t4"}


def test_ray_would_refuse_a_key_it_does_not_know(cluster: dict[str, Any]) -> None:
    cluster["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        check_with_ray(cluster)


def test_the_head_takes_no_tasks_and_is_not_a_spot_machine(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_ray_starts_with_token_authentication_and_a_dashboard_on_loopback(
    cluster: dict[str, Any],
) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in cluster[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_gpu_machines_come_and_go(cluster: dict[str, Any]) -> None:
    for name in ("a10g", "t4"):
        kind = cluster["available_node_types"][name]
        assert kind["min_workers"] == 0 < kind["max_workers"]
