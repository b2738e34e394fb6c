"""An autoscaler that starts all of a request or nothing is asked for less where it refuses."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.console import Console

from raymia.engine.on_ray import autoscaler, ray_private
from raymia.engine.on_ray.autoscaler import requested, wait_for
from raymia.engine.on_ray.capacity import Demand, Machine
from raymia.util.errors import InputError

GPU = {"GPU": 1.0}
MINUTE = 60.0


class AllOrNothing:
    """Ray's second autoscaler with so many machines of one kind at most."""

    def __init__(self, most: int, resources: Mapping[str, float] = GPU) -> None:
        self.kind = Machine("m", resources, {"pool": "p"})
        self.most = most
        self.asked: list[list[dict[str, float]]] = []
        self.selectors: list[dict[str, str]] = []

    def request(
        self, bundles: list[dict[str, float]], bundle_label_selectors: list[dict[str, str]]
    ) -> None:
        if bundles not in self.asked[-1:]:
            self.asked.append(bundles)
        self.selectors = bundle_label_selectors

    def is_refused(self, bundles: Sequence[Mapping[str, float]]) -> bool:
        """What it says is always of the latest request."""
        return self.asked[-1:] == [list(bundles)] and not self._holds(bundles)

    def _holds(self, bundles: Sequence[Mapping[str, float]]) -> bool:
        places = [Demand("", 1, 1, bundle, {}) for bundle in bundles]
        return all(map(self.kind.fits, places)) and len(places) <= self.most

    def present(self) -> list[Machine]:
        return [self.kind for _ in self.asked[-1]] if self._holds(self.asked[-1]) else []


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AllOrNothing:
    found = AllOrNothing(*request.param)
    found.asked.append([])
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", found.request)
    for name in ("is_refused", "present"):
        monkeypatch.setattr(autoscaler, name, getattr(found, name))
    for name in ("ASK_AGAIN_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(autoscaler, name, 0.02)
    return found


def wait(*demands: Demand, seconds: float = MINUTE) -> None:
    with requested(demands):
        wait_for(demands, Console(file=io.StringIO()), seconds)


def gpus(name: str, actors: int, most: int) -> Demand:
    return Demand(name, actors, most, GPU, {})


@pytest.mark.parametrize(
    ("cluster", "demand", "asked"),
    [
        ((8,), gpus("target", 2, 16), [16, 8]),
        ((8,), gpus("train", 1, 16), [16, 8]),
        ((3,), gpus("target", 2, 16), [16, 8, 4, 2]),
        ((8,), gpus("target", 2, 8), [8]),
        ((1,), gpus("train", 1, 3), [3, 1]),
    ],
    indirect=["cluster"],
)
def test_a_pool_that_may_grow_beyond_what_can_be_started_begins_with_less(
    cluster: AllOrNothing, demand: Demand, asked: list[int]
) -> None:
    wait(demand)
    assert [len(bundles) for bundles in cluster.asked] == [0, *asked, 0]


@pytest.mark.parametrize("cluster", [(3,)], indirect=True)
def test_where_the_least_is_refused_too_the_run_ends_and_asks_for_nothing_more(
    cluster: AllOrNothing,
) -> None:
    said = (
        "^resources: target needs 1 GPU, and no machine has .*, and the autoscaler can start none$"
    )
    with pytest.raises(InputError, match=said):
        wait(gpus("target", 4, 16))
    assert [len(bundles) for bundles in cluster.asked] == [0, 16, 8, 4, 0]


@pytest.mark.parametrize("cluster", [(8,)], indirect=True)
def test_one_that_asks_beside_others_takes_no_place_that_they_need(cluster: AllOrNothing) -> None:
    """They are asked for together, and what they ask for is their most again when one ends."""
    first, second = gpus("first", 4, 6), gpus("second", 2, 4)
    with requested([first]):
        wait_for([first], Console(file=io.StringIO()), MINUTE)
        assert len(cluster.asked[-1]) == 6
        with requested([second]):
            deadline = time.monotonic() + MINUTE
            while len(cluster.asked[-1]) != 6 or not cluster.present():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert [len(bundles) for bundles in cluster.asked] == [0, 6, 10, 6]


@pytest.mark.parametrize("cluster", [(2, {"CPU": 4.0})], indirect=True)
def test_a_place_that_takes_nothing_is_asked_for_where_it_has_labels(cluster: AllOrNothing) -> None:
    wait(Demand("neighbors", 1, 1, {}, {"pool": "p"}), Demand("anywhere", 1, 1, {}, {}))
    assert cluster.asked == [[], [{"CPU": 0.001}], []]


def test_a_refusal_counts_for_the_request_that_it_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoscaler says for seconds what it thought of an earlier request, or of Ray Data's."""
    from ray.core.generated import autoscaler_pb2

    reply = autoscaler_pb2.GetClusterStatusReply()
    refused = reply.autoscaling_state.infeasible_cluster_resource_constraints.add()
    for bundle, count in ((GPU, 2), ({"CPU": 1.0}, 1)):
        part = refused.resource_requests.add(count=count)
        part.request.resources_bundle.update(bundle)

    class Client:
        def get_cluster_status(self, **_: Any) -> bytes:
            return reply.SerializeToString()

    monkeypatch.setattr(ray_private, "is_second_autoscaler", lambda: True)
    monkeypatch.setattr("ray.experimental.internal_kv.internal_kv_get_gcs_client", Client)
    assert ray_private.is_refused([GPU, {"CPU": 1.0}, GPU])
    assert not ray_private.is_refused([GPU, {"CPU": 1.0}])
    assert not ray_private.is_refused([])
