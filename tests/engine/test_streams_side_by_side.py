"""Targets that share no base are asked at the same time where the cluster has room for them."""

from __future__ import annotations

import _thread
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from forks.workers import workers_forked
from ray_fixtures import actors_seen, private_folder, wait_until
from small_audit import (
    PARAPHRASER,
    Models,
    console,
    passages,
    reweigh,
    scores_by_row,
    write_small_audit,
)

from raymia.engine.on_ray.board import started
from raymia.engine.on_ray.cluster import Cluster
from raymia.engine.on_ray.side_by_side import _Room, may_share
from raymia.engine.stream import Stream
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.run.audit import run_audit
from raymia.run.status import read_status
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec
from raymia.util.errors import RaymiaError

pytestmark = pytest.mark.usefixtures("own_ray")

ANY_GPU: dict[str, Any] = {"gpus": 1}
FIRST_GPU: dict[str, Any] = {"gpus": 1, "labels": {"raymia/pool": "one"}}
REFUSAL = "these weights are not to be had"
WALKS = """
import time
from pathlib import Path
from transformers import GPT2LMHeadModel

LOADING = 4  # passes of a model that is loaded: two for its head, two that see that it is causal

def steps(file):
    return file.stat().st_size if file.exists() else 0

class Walks(GPT2LMHeadModel):
    def __init__(self, config):
        super().__init__(config)
        self.transformer.register_forward_pre_hook(lambda *_: self.step())
        if Path(config.folder, "refuse").exists():
            self.wait_for(lambda: steps(Path(config.folder, config.other)))
            raise ValueError("these weights are not to be had")

    def wait_for(self, condition):
        deadline = time.monotonic() + 240
        while not condition():
            if time.monotonic() > deadline:
                raise ValueError("waited in vain for the other target")
            time.sleep(0.02)

    def step(self):
        folder = Path(self.config.folder)
        own, other = folder / self.config.own, folder / self.config.other
        with own.open("ab") as file:
            file.write(b".")
        if (folder / "together").exists():
            self.wait_for(lambda: steps(other) >= steps(own) - LOADING)
        if (folder / f"stay-{self.config.own}").exists():
            self.wait_for(lambda: False)
"""


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A cluster of a head and two nodes with a pretended GPU each, of which one has a label."""
    from ray.cluster_utils import Cluster as Nodes

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TMPDIR", str(private_folder()))
    memory = {"object_store_memory": 100 * 2**20}
    nodes = Nodes()
    try:
        with workers_forked():
            nodes.add_node(num_cpus=1, include_dashboard=False, **memory)
            for name in ("one", "two"):
                nodes.add_node(num_cpus=1, num_gpus=1, labels={"raymia/pool": name}, **memory)
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()
        os.environ.pop("RAY_ADDRESS", None)
        patch.undo()


@pytest.fixture
def walkers(tmp_path: Path, models: Models) -> dict[str, Path]:
    """Two checkpoints that note every forward pass, and wait for each other where a file
    "together" is beside their notes, or stay where they are where "stay-NAME" is; and a third that
    refuses to be loaded once the second is being asked."""
    found = {}
    for own, other, by in (("a", "b", 0.98), ("b", "a", 0.96), ("c", "b", 0.94)):
        folder = found[own] = tmp_path / f"model-{own}"
        reweigh(models.target, folder, lambda tensor, by=by: tensor * by)
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "auto_map": {"AutoModelForCausalLM": "walks.Walks"},
            "folder": str(tmp_path), "own": own, "other": other,
        }  # fmt: skip
        if own == "c":
            (tmp_path / "refusing").mkdir()
            config["folder"] = str(tmp_path / "refusing")
            (tmp_path / "refusing" / "refuse").touch()
            (tmp_path / "refusing" / "b").symlink_to(tmp_path / "b")
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "walks.py").write_text(WALKS)
    return found


def audit(folder: Path, models: Models, walkers: dict[str, Path], names: str, **more: Any) -> Path:
    texts = passages()
    targets = [
        {"name": name, "model": str(walkers[name]), "trust_remote_code": True} for name in names
    ]
    settings = {"references": None, "neighbors": None, **more}
    resources = {"block_records": 2, "target": ANY_GPU, **settings.pop("resources", {})}
    return write_small_audit(
        folder, models, engine="ray", members=texts[:3], non_members=texts[24:27], targets=targets,
        resources=resources, **settings,
    )  # fmt: skip


def commits(spec: AuditSpec) -> dict[str, tuple[float, float]]:
    """When the first and the last answers of each target were stored."""
    store = EvidenceStore(spec.store)
    found = {}
    for plan in plan_audit(resolve_inputs(spec), store):
        folders = [Path(spec.store, planned.key.folder) for planned in plan.target.questions]
        times = [f.stat().st_mtime for folder in folders for f in folder.glob("*.parquet")]
        found[plan.name] = min(times), max(times)
    return found


def actors_of(name: str) -> list[str]:
    """States of the actors of a pool, with those of earlier tests."""
    return [a["State"] for a in actors_seen() if name in a["ActorClassName"]]


@pytest.mark.usefixtures("two_gpus")
def test_two_targets_are_asked_at_once_on_two_gpus_and_in_turn_on_one(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    """On two, each step of one waits for the other's, so neither could end before the other
    began."""
    (tmp_path / "together").touch()
    both = audit(tmp_path / "both", models, walkers, "ab")
    result = run_audit(load_spec(both), console())
    assert result.succeeded
    found = commits(load_spec(both))
    assert found["a"][0] < found["b"][1]
    assert found["b"][0] < found["a"][1]
    states = read_status(str(tmp_path / "both" / "run")).targets
    assert {name: progress.state for name, progress in states.items()} == {"a": "done", "b": "done"}
    for name in "ab":
        wait_until(lambda n=name: set(actors_of(f"target_{n}")) == {"DEAD"}, 30, f"{name}'s go")

    (tmp_path / "together").unlink()
    turns = audit(tmp_path / "turns", models, walkers, "ab", resources={"target": FIRST_GPU})
    assert run_audit(load_spec(turns), console()).succeeded
    found = commits(load_spec(turns))
    assert found["a"][1] < found["b"][0]
    scores = scores_by_row(tmp_path / "both" / "run")
    assert scores
    assert scores == scores_by_row(tmp_path / "turns" / "run")


@pytest.mark.usefixtures("two_gpus")
def test_a_target_that_fails_beside_another_leaves_it_alone(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    """It fails once the other is being asked."""
    result = run_audit(load_spec(audit(tmp_path, models, walkers, "cb")), console())
    ((name, reason),) = ((one.name, one.reason) for one in result.failed)
    assert name == "c"
    assert reason.endswith(REFUSAL)
    assert {stage.name: stage.asked for stage in result.stages} == {"target:c": 0, "target:b": 12}


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_what_targets_share_ends_all_of_them_when_it_fails(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    """The reference fails while the second target is being asked, which would last."""
    (tmp_path / "stay-b").touch()
    half = {"gpus": 0.5}
    file = audit(
        tmp_path, models, walkers, "ab",
        references={"base": {"model": str(walkers["c"]), "trust_remote_code": True}},
        resources={"target": half, "reference": half},
    )  # fmt: skip
    with pytest.raises(RaymiaError, match=REFUSAL):
        run_audit(load_spec(file), console())
    assert read_status(str(tmp_path / "run")).why.endswith(REFUSAL)
    for name in ("target_a", "target_b", "reference_base"):
        wait_until(lambda n=name: set(actors_of(n)) == {"DEAD"}, 60, f"the actors of {name} go")


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_ctrl_c_ends_all_streams_and_the_next_run_goes_on(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    for name in "ab":
        (tmp_path / f"stay-{name}").touch()
    file = audit(tmp_path, models, walkers, "ab")

    def interrupt() -> None:
        for name in "ab":
            wait_until((tmp_path / name).exists, 240, f"{name} is being asked")
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_audit(load_spec(file), console())
    thread.join()
    for name in "ab":
        wait_until(
            lambda n=name: set(actors_of(f"target_{n}")) == {"DEAD"}, 60, f"the actors of {name} go"
        )
        (tmp_path / f"stay-{name}").unlink()
    result = run_audit(load_spec(file), console())
    assert result.succeeded
    assert {stage.name: stage.asked for stage in result.stages} == {"target:a": 12, "target:b": 12}


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_a_target_waits_for_the_neighbors_that_another_ones_stream_makes(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    share = {"gpus": 0.5}
    file = audit(
        tmp_path, models, walkers, "ab", neighbors={"model": str(PARAPHRASER), "count": 2},
        resources={"paraphraser": share, "target": share},
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert result.succeeded
    assert result.dropped_total == 0
    found = commits(load_spec(file))
    assert found["a"][1] < found["b"][0]


@pytest.mark.usefixtures("two_gpus")
def test_a_place_that_is_free_is_found_within_a_few_looks(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    first, second = streams(audit(tmp_path, models, walkers, "ab"))
    with started(console()) as board, _Room(3, Cluster(is_local=False), board) as room:
        for pool in first.pools:
            board.place(first.key(pool))
        for _ in range(6):
            wait_until(lambda: ray.available_resources().get("GPU") == 2.0, 60, "GPUs are free")
            assert any(room.is_there_for(second, [first]) for _ in range(3))


# ------------------------------------------------------------------------ which may go together


def streams(file: Path) -> list[Stream]:
    spec = load_spec(file)
    plan = plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))
    return [Stream(number, stages) for number, stages in enumerate(plan.streams)]


def test_who_makes_neighbors_is_waited_for_by_who_asks_about_them(
    tmp_path: Path, models: Models, walkers: dict[str, Path]
) -> None:
    first, second = streams(audit(tmp_path / "without", models, walkers, "ab"))
    assert not second.waits_for(first)
    neighbors = {"kind": "substitute", "count": 2}
    first, second = streams(audit(tmp_path / "with", models, walkers, "ab", neighbors=neighbors))
    assert second.waits_for(first)
    assert not first.waits_for(second)


@pytest.mark.parametrize(
    ("target", "on_cluster", "here"),
    [
        ({}, False, False),
        ({"cpus": 1}, True, False),
        ({"gpus": 0.5}, True, True),
        ({"gpus": 1, "actors": 2, "max_actors": 2}, True, True),
        ({"gpus": 1, "max_actors": 2}, False, False),
    ],
    ids=["a share of the CPUs", "CPUs", "GPUs", "a size", "growing"],
)
def test_pools_that_do_not_say_what_they_take_have_the_cluster_to_themselves(
    tmp_path: Path,
    models: Models,
    walkers: dict[str, Path],
    target: dict[str, Any],
    on_cluster: bool,
    here: bool,
) -> None:
    file = audit(tmp_path, models, walkers, "ab", resources={"target": target})
    for stream in streams(file):
        assert may_share(stream, Cluster(is_local=False)) is on_cluster
        assert may_share(stream, Cluster(is_local=True)) is here
