"""Each pool runs on the nodes that its resources ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import ray
from forks.workers import workers_forked
from ray_fixtures import actors_seen, private_folder
from small_audit import Models, console, passages, write_small_audit

from raymia.engine.base import engine
from raymia.engine.on_ray import cluster as cluster_module
from raymia.engine.on_ray.board import started
from raymia.engine.on_ray.cluster import Cluster, check_store_is_shared
from raymia.engine.on_ray.tasks import run_tasks
from raymia.run.audit import run_audit
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.spec.file import load_spec
from raymia.storage.files import Folder
from raymia.util.errors import InputError

pytestmark = pytest.mark.usefixtures("own_ray")

POOLS = ("paraphraser", "target", "reference")
TYPES = {"paraphraser": "T4", "target": "A10G", "reference": "A10G"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """A cluster of a head and one node per pool, of pretended GPU types; node ids by pool."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TMPDIR", str(private_folder()))
    memory = {"object_store_memory": 100 * 2**20}
    cluster = Cluster()
    try:
        ids = {}
        with workers_forked():
            cluster.add_node(num_cpus=1, include_dashboard=False, **memory)
            for pool in POOLS:
                kind = f"accelerator_type:{TYPES[pool]}"
                node = cluster.add_node(
                    num_cpus=1, num_gpus=1, resources={pool: 1, kind: 1},
                    labels={"raymia/pool": pool}, **memory,
                )  # fmt: skip
                ids[pool] = node.node_id
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield ids
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.pop("RAY_ADDRESS", None)
        patch.undo()


def test_each_pool_runs_on_its_own_node_by_gpu_type_label_and_resource(
    nodes: dict[str, str], tmp_path: Path, models: Models
) -> None:
    texts = passages()
    resources: dict[str, Any] = {
        "paraphraser": {"gpus": 1, "accelerator_type": "T4"},
        "target": {
            "actors": 2, "gpus": 0.5, "accelerator_type": "A10G",
            "labels": {"raymia/pool": "in(target, none)"},
        },
        "reference": {"gpus": 0.5, "resources": {"reference": 0.5}},
    }  # fmt: skip
    file = write_small_audit(
        tmp_path, models, engine="ray", self_prompt=True,
        members=texts[:4], non_members=texts[24:28],
        targets=[{"name": "tuned", "model": str(models.target), "dtype": "float32"}],
        resources={**resources, "block_records": 2},
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert result.complete
    assert result.dropped_total == 0
    where: dict[str, list[str]] = {}
    for actor in actors_seen():
        where.setdefault(actor["ActorClassName"], []).append(actor["Address"]["NodeID"])

    def nodes_of(name: str) -> list[str]:
        return [node for kind, found in where.items() if name in kind for node in found]

    assert nodes_of("neighbors") == [nodes["paraphraser"]]
    assert nodes_of("target_tuned") == [nodes["target"]] * 2
    assert nodes_of("reference") == [nodes["reference"]] * 2  # the base and the self-prompt one


def test_a_store_that_workers_do_not_see_is_refused(nodes: dict[str, str], tmp_path: Path) -> None:
    """A folder in memory is each process's own, as a disk is each machine's."""
    assert len(nodes) == len(POOLS)
    check_store_is_shared(str(tmp_path))
    assert list(tmp_path.rglob("*")) == [tmp_path / "seen-by-all"]
    with pytest.raises(
        InputError, match=r"^store: memory://mine is not the same folder on .*s3://"
    ):
        check_store_is_shared("memory://mine")


def test_each_machine_that_cannot_read_the_store_is_named_with_its_reason(
    nodes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a role lets it not, or its image lacks a package."""
    driver = os.getpid()

    class Elsewhere(Folder):
        def exists(self, path: str) -> bool:
            assert os.getpid() != driver
            where = ray.get_runtime_context().get_node_id()
            if where == nodes["target"]:
                raise PermissionError("Access Denied")
            if where == nodes["reference"]:
                raise ModuleNotFoundError("No module named 's3fs'")
            return where != nodes["paraphraser"] and super().exists(path)

    monkeypatch.setattr(cluster_module, "Folder", Elsewhere)
    with pytest.raises(InputError) as refused:
        check_store_is_shared(str(tmp_path))
    host = ray.nodes()[0]["NodeManagerHostname"]  # of all, here
    store = f"store: {tmp_path} "
    assert sorted(refused.value.problems) == [
        f"{store}cannot be read on {host}: a worker failed: ModuleNotFoundError: No module named "
        "'s3fs'",
        f"{store}cannot be read on {host}: a worker failed: PermissionError: Access Denied",
        f"{store}is not the same folder on {host}; on a cluster give a shared folder or object "
        "storage (s3://...)",
    ]
    assert [path.name for path in tmp_path.rglob("*")] == ["seen-by-all"]


@pytest.mark.usefixtures("nodes")
def test_an_output_folder_that_scores_wait_in_is_checked_as_a_store_is(tmp_path: Path) -> None:
    """It takes the place of a complete store that can only be read."""
    below = tmp_path / "file"
    below.touch()
    store = str(below / "store")  # nobody can write there
    with engine(ResourcesSpec(), store, console()) as start:
        executor = start()
        with executor.reporting() as board:
            assert executor.workers(board, str(tmp_path))
            with pytest.raises(InputError, match=r"^output: memory://mine is not the same folder"):
                executor.workers(board, "memory://mine")


@pytest.mark.usefixtures("nodes")
def test_a_task_sees_the_gpus_that_its_pool_is_given_and_no_other() -> None:
    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    for gpus, expected in ((0, ""), (1, "0"), (0.5, "0")):
        pool = PoolSpec(gpus=gpus, labels={"raymia/pool": POOLS[0]})
        assert run_tasks([seen], pool, Cluster(is_local=False)) == [expected]


@pytest.mark.usefixtures("nodes")
def test_boards_lie_on_the_machine_of_the_driver() -> None:
    """Other machines may be lost while the run goes on."""
    own = ray.get_runtime_context().get_node_id()
    with ExitStack() as stack:
        for board in [stack.enter_context(started(console())) for _ in range(6)]:
            assert board.placed() == set()  # once it has its place
        boards = [one for one in actors_seen() if one["Name"].startswith("raymia progress")]
        places = [one["Address"]["NodeID"] for one in boards if one["State"] == "ALIVE"]
    assert places == [own] * 6
