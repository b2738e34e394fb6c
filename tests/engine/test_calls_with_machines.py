"""What is called on Ray, such as the training of shadows, gets machines or is refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import ray
from rich.console import Console

from raymia.engine.board import Board
from raymia.engine.on_ray import cluster as cluster_module
from raymia.engine.on_ray import executor as executor_module
from raymia.engine.on_ray.autoscaler import GROUP_LABEL
from raymia.engine.on_ray.capacity import Demand, Machine
from raymia.engine.on_ray.cluster import Cluster, pool_options
from raymia.engine.on_ray.executor import RayExecutor
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.sweep.work import Trials
from raymia.util.errors import InputError, RaymiaError

HEAD = Machine("head", {"CPU": 0.0}, {})
SMALL, LARGE = Machine("small", {"CPU": 4.0}, {}), Machine("large", {"CPU": 64.0}, {"pool": "l"})


def train() -> None:
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Demand]:
    """What machines are asked for; nothing is run."""
    demands: list[Demand] = []

    def machines_for(some: Sequence[Demand], *_: object) -> nullcontext[None]:
        demands.extend(some)
        return nullcontext()

    monkeypatch.setattr(executor_module, "machines_for", machines_for)
    monkeypatch.setattr(executor_module, "check_store_is_shared", lambda _: None)
    monkeypatch.setattr(executor_module, "run_tasks", lambda functions, *_: [None] * len(functions))
    return demands


def called(cluster: Cluster, pool: PoolSpec, count: int = 3) -> None:
    executor = RayExecutor(cluster, ResourcesSpec(), "store", Console(file=io.StringIO()))
    assert executor.call([train] * count, pool) == [None] * count


def test_what_no_machine_can_hold_is_refused(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "present", lambda: [SMALL])
    said = "^resources: train needs 1 GPU, and no machine has more than 0 GPU$"
    with pytest.raises(InputError, match=said):
        called(Cluster(is_local=True), PoolSpec(gpus=1))
    with pytest.raises(InputError, match="train needs 5 CPU, and no machine has more than 4"):
        called(Cluster(is_local=True), PoolSpec(cpus=5))
    assert asked == []


def test_machines_are_asked_for_all_of_them_and_one_will_do(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "present", lambda: [HEAD])
    startable = (Machine("gpu", {"CPU": 8.0, "GPU": 1.0}, {}, 4),)
    called(Cluster(is_local=False, startable=startable), PoolSpec(gpus=1))
    assert asked == [Demand("train", 1, 3, {"GPU": 1.0}, {})]


@pytest.mark.parametrize(
    ("machines", "pool", "cpus"),
    [
        ([HEAD, SMALL], PoolSpec(), 4),
        ([HEAD, SMALL, LARGE], PoolSpec(), 8),  # it trains on no more, and not on the small one
        ([HEAD, SMALL, LARGE], PoolSpec(labels={"pool": "l"}), 8),
        ([HEAD, SMALL], PoolSpec(cpus=0.5), 0.5),
    ],
)
def test_each_has_all_cpus_of_a_machine_unless_it_says_how_many(
    asked: list[Demand],
    monkeypatch: pytest.MonkeyPatch,
    machines: list[Machine],
    pool: PoolSpec,
    cpus: float,
) -> None:
    monkeypatch.setattr(cluster_module, "present", lambda: machines)
    monkeypatch.setattr(cluster_module, "present_and_free", lambda: machines)
    called(Cluster(is_local=True), pool)
    assert asked[0].resources == {"CPU": cpus}


@pytest.mark.parametrize(("held", "cpus"), [(0.0, 4), (0.5, 3), (1.0, 3), (4.0, 1)])
def test_none_asks_for_what_something_holds_all_along(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch, held: float, cpus: float
) -> None:
    busy = {"NodeID": "b", "NodeManagerHostname": "busy", "Resources": {"CPU": 4.0}, "Alive": True}
    monkeypatch.setattr(ray, "nodes", lambda: [busy])
    free = {"memory": 1.0} if held == 4.0 else {"CPU": 4.0 - held}  # Ray leaves out what is 0
    state = "ray._private.state.available_resources_per_node"
    monkeypatch.setattr(state, lambda: {"b": free})
    called(Cluster(is_local=False), PoolSpec())
    assert asked[0].resources == {"CPU": cpus}


@pytest.mark.parametrize(("most", "cpus"), [(1, 2), (2, 8)])
def test_a_machine_that_may_still_be_started_has_all_of_its_cpus(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch, most: int, cpus: float
) -> None:
    labels = {GROUP_LABEL: "kind"}
    monkeypatch.setattr(cluster_module, "present", lambda: [Machine("m", {"CPU": 8.0}, labels)])
    free = [Machine("m", {"CPU": 2.0}, labels)]
    monkeypatch.setattr(cluster_module, "present_and_free", lambda: free)
    kind = Machine("kind", {"CPU": 8.0}, {}, most)
    called(Cluster(is_local=False, startable=(kind,)), PoolSpec())
    assert asked[0].resources == {"CPU": cpus}


@pytest.mark.parametrize(("machines", "cpus"), [([HEAD], 8), ([HEAD, SMALL], 4)])
def test_a_cluster_whose_machines_are_still_to_start_has_the_cpus_of_one(
    monkeypatch: pytest.MonkeyPatch, machines: list[Machine], cpus: float
) -> None:
    monkeypatch.setattr(cluster_module, "present", lambda: machines)
    kinds = (Machine("c", {"CPU": 8.0}, {}, 5), Machine("g", {"CPU": 4.0, "GPU": 1.0}, {}, 5))
    assert Cluster(is_local=False, startable=kinds).cpus == cpus
    assert Cluster(is_local=False, startable=None).cpus == (0 if machines == [HEAD] else cpus)


@pytest.mark.parametrize("labels", [{}, {"pool": "l"}])
@pytest.mark.parametrize("there", [[HEAD], [HEAD, SMALL]])
def test_a_pool_asks_for_a_cpu_of_each_where_no_machine_for_it_is_known(
    monkeypatch: pytest.MonkeyPatch, labels: dict[str, str], there: list[Machine]
) -> None:
    """Without, all of its actors would lie on the head, or no machine be asked for."""
    monkeypatch.setattr(cluster_module, "present", lambda: there)
    pool, grown = PoolSpec(actors=2, labels=labels), Cluster(is_local=False, startable=None)
    known = there == [HEAD, SMALL] and not labels
    share = pool_options(pool, 6, grown)["num_cpus"]
    assert share == (0.5 if known else 1)
    assert pool_options(pool, 6, Cluster(is_local=False))["num_cpus"] == (0.5 if known else 0)
    for given in PoolSpec(cpus=0.25), PoolSpec(gpus=1):
        options = pool_options(given, 6, Cluster(is_local=False, startable=None))
        assert options["num_cpus"] == (given.cpus or 0)


def test_how_many_cpus_a_machine_has_is_seen_when_the_first_is_up(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("present", "present_and_free"):
        monkeypatch.setattr(cluster_module, name, lambda: [HEAD, LARGE] if asked else [HEAD])
    called(Cluster(is_local=False, startable=None), PoolSpec())
    assert asked == [Demand("train", 1, most, {"CPU": cpus}, {}) for most, cpus in ((1, 1), (3, 8))]


def test_gpus_that_come_up_and_are_given_to_no_pool_are_told_of_once(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Machine("gpu", {"CPU": 6.0, "GPU": 1.0}, {})
    for name in ("present", "present_and_free"):
        monkeypatch.setattr(cluster_module, name, lambda: [HEAD, gpu] if asked else [HEAD])
    console, grown = Console(file=io.StringIO(), width=200), Cluster(is_local=False, startable=None)
    RayExecutor(grown, ResourcesSpec(), "store", console).call([train], PoolSpec())
    said = "this cluster has 1 GPU and the audit file gives its pools none"
    assert console.file.getvalue().count(said) == 1  # type: ignore[attr-defined]


def test_a_sweep_waits_for_a_machine_and_has_the_cpus_of_what_came(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(*_: object, cpus: float, board: Board) -> Trials:
        assert board
        seen.append(cpus)
        return Trials([], [])

    seen: list[float] = []
    monkeypatch.setattr(cluster_module, "present", lambda: [HEAD, LARGE] if asked else [HEAD])
    monkeypatch.setattr("raymia.engine.on_ray.sweep.try_settings", tried)
    executor = RayExecutor(Cluster(False, None), ResourcesSpec(), "store", Console())
    executor.try_settings([], [], {}, Mock(), Mock())
    assert asked == [Demand("sweep", 1, 1, {"CPU": 1.0}, {})]
    assert seen == [64]


def test_a_step_of_the_reduction_ends_where_no_machine_comes_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(some: Sequence[Demand], *_: object) -> nullcontext[None]:
        assert [(demand.actors, demand.resources) for demand in some] == [(1, {"CPU": 1.0})]
        raise RaymiaError(f"no machine came up for {some[0].name}")

    monkeypatch.setattr(executor_module, "machines_for", none)
    executor = RayExecutor(Cluster(False, None), ResourcesSpec(), "store", Console())
    with pytest.raises(RaymiaError, match=r"^no machine came up for score tuned$"):
        executor.workers(Mock(), "store").map("score tuned", print, (), [(1,)])


@pytest.mark.parametrize("startable", [None, (LARGE,)])
def test_machines_that_came_up_are_asked_whether_they_see_the_store(
    asked: list[Demand], monkeypatch: pytest.MonkeyPatch, startable: tuple[Machine, ...] | None
) -> None:
    def refuse(url: str) -> None:
        assert asked, "machines were waited for"
        raise InputError(f"store: {url} is not the same folder on other")

    monkeypatch.setattr(cluster_module, "present", lambda: [HEAD])
    monkeypatch.setattr(cluster_module, "present_and_free", lambda: [HEAD])
    monkeypatch.setattr(executor_module, "check_store_is_shared", refuse)
    with pytest.raises(InputError, match=r"^store: store is not the same folder on other$"):
        called(Cluster(is_local=False, startable=startable), PoolSpec())
    monkeypatch.setattr(cluster_module, "present", lambda: [SMALL])
    called(Cluster(is_local=True), PoolSpec())  # where none can come, the start has checked it
