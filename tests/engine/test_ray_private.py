"""Where Ray has no longer what it never promised to keep, an audit gives the same answers."""

from __future__ import annotations

import _thread
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from cluster_head import Head
from ray_fixtures import actors_seen, free_port, wait_until
from small_audit import Models, console, passages, scores_by_row, write_small_audit
from small_numbers import write_number_audit
from walking_model import Walker, make_walker

from raymia.engine.on_ray import ray_private
from raymia.engine.on_ray.autoscaler import startable
from raymia.engine.on_ray.reachable import check_answers
from raymia.run.audit import run_audit
from raymia.spec import with_engine
from raymia.spec.file import load_spec
from raymia.util.errors import InputError, RaymiaError

NEVER_TRIED = ((1, 0), (1, 1))
REFUSAL = "cannot be loaded as a causal language model: these weights are not to be had"
EXECUTOR = "ray.data._internal.execution.streaming_executor"
HOOKS = "ray.data._internal.execution.execution_callback"
V2 = "ray.autoscaler.v2.utils"
VALUES = "ray.experimental.internal_kv"
CONSTANTS = "ray._private.ray_constants"
REPLIES = "ray.core.generated.autoscaler_pb2"
SERVICES = "ray._private.services"
STATE = "ray._private.state"
AUTHENTICATION = "ray._private.authentication.authentication_utils"
LIBRARY = "ray._raylet"
CHANNELS = "ray._private.grpc_utils"
REQUESTS = "ray.core.generated.gcs_service_pb2"
STUBS = "ray.core.generated.gcs_service_pb2_grpc"


@pytest.fixture(autouse=True)
def _say_again() -> Iterator[None]:
    """What is said once is said once in each test."""
    ray_private._warn.cache_clear()
    yield
    ray_private._warn.cache_clear()


def said_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What raymia logged; threads of Ray that outlive an earlier test log at any time."""
    return [r.getMessage() for r in caplog.records if r.name == ray_private.LOGGER.name]


@pytest.fixture
def without_private_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a version of Ray that nobody tried raymia with."""
    monkeypatch.setattr(ray_private, "TRIED", NEVER_TRIED)


def other_call(_another_parameter: Any) -> None:
    raise AssertionError("called although it takes other parameters")


def other_shape(*_: Any, **__: Any) -> object:
    return object()


# ------------------------------------------------------------------------------ each name by itself


def killer_is_none() -> bool:
    context = ray.data.DataContext()
    return ray_private.killer_of_actors(context) is None and not (
        context.custom_execution_callback_classes
    )


def address_is_taken_as_it_is() -> bool:
    return ray_private.head_address("127.0.0.1:6379") == "127.0.0.1:6379"


def port_alone_is_tried() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        return ray_private.why_no_answer(place, 5.0) is None


def no_token_is_missed() -> bool:
    return ray_private.lacks_token() is False


def no_token_is_missed_where_one_is_asked_for() -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{AUTHENTICATION}.is_token_auth_enabled", lambda: True)
        return ray_private.lacks_token() is False


def nothing_is_said_of_the_second() -> bool:
    return ray_private.is_second_autoscaler() is None and startable() is None


def nothing_is_said_of_the_first() -> bool:
    return ray_private.autoscaler_config() is None


def all_count_as_free() -> bool:
    return ray_private.free_cpus() == {}


def nothing_is_refused() -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_private, "is_second_autoscaler", lambda: True)
        return ray_private.is_refused([{"CPU": 1.0}]) is False


def it_starts_as_ray_has_it() -> bool:
    with ray_private.on_loopback():
        return not ray_private.LOOPBACK.keys() & os.environ


NAMES = [
    (HOOKS, "ExecutionCallback", killer_is_none),
    (EXECUTOR, "StreamingExecutor", killer_is_none),
    (SERVICES, "canonicalize_bootstrap_address", address_is_taken_as_it_is),
    (AUTHENTICATION, "is_token_auth_enabled", no_token_is_missed),
    (LIBRARY, "AuthenticationTokenLoader", no_token_is_missed_where_one_is_asked_for),
    (CHANNELS, "init_grpc_channel", port_alone_is_tried),
    (REQUESTS, "GetClusterIdRequest", port_alone_is_tried),
    (STUBS, "NodeInfoGcsServiceStub", port_alone_is_tried),
    (V2, "is_autoscaler_v2", nothing_is_said_of_the_second),
    (VALUES, "_internal_kv_get", nothing_is_said_of_the_first),
    (CONSTANTS, "ENABLE_RAY_CLUSTER", it_starts_as_ray_has_it),
    (CONSTANTS, "DEBUG_AUTOSCALING_STATUS", nothing_is_said_of_the_first),
    (STATE, "available_resources_per_node", all_count_as_free),
    (REPLIES, "GetClusterStatusReply", nothing_is_refused),
    (VALUES, "internal_kv_get_gcs_client", nothing_is_refused),
]


@pytest.mark.parametrize("gone", ["module", "name"])
@pytest.mark.parametrize(("module", "name", "holds"), NAMES, ids=[n for _, n, _ in NAMES])
def test_a_name_that_is_gone_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gone: str,
    module: str,
    name: str,
    holds: Callable[[], bool],
) -> None:
    __import__(module)
    if gone == "module":
        monkeypatch.setitem(sys.modules, module, None)
    else:
        monkeypatch.delattr(sys.modules[module], name)
    assert holds()
    assert holds()
    (said,) = said_in(caplog)
    assert said.startswith(f"Ray {ray.__version__} has no {module}.{name}")


@pytest.mark.parametrize(
    ("module", "name", "holds"),
    [
        (f"{EXECUTOR}.StreamingExecutor", "shutdown", killer_is_none),
        (SERVICES, "canonicalize_bootstrap_address", address_is_taken_as_it_is),
        (AUTHENTICATION, "is_token_auth_enabled", no_token_is_missed),
        (CHANNELS, "init_grpc_channel", port_alone_is_tried),
        (V2, "is_autoscaler_v2", nothing_is_said_of_the_second),
        (VALUES, "_internal_kv_get", nothing_is_said_of_the_first),
        (STATE, "available_resources_per_node", all_count_as_free),
    ],
)
def test_what_takes_other_parameters_is_not_called(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    name: str,
    holds: Callable[[], bool],
) -> None:
    monkeypatch.setattr(f"{module}.{name}", other_call)
    assert holds()
    assert f"wants {module}.{name} called in another way" in caplog.text


def test_an_execution_with_other_hooks_is_not_hooked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    monkeypatch.setattr(ExecutionCallback, "on_pause", other_shape, raising=False)
    assert killer_is_none()
    assert "has other hooks of an execution (on_pause): actors of a run" in caplog.text


def test_a_context_without_a_place_for_hooks_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert ray_private.killer_of_actors(SimpleNamespace()) is None
    assert "custom_execution_callback_classes" in caplog.text


def test_an_answer_of_another_shape_is_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the second autoscaler cannot start is no longer among its answers."""
    monkeypatch.setattr(ray_private, "is_second_autoscaler", lambda: True)
    monkeypatch.setattr(f"{REPLIES}.GetClusterStatusReply", other_shape)
    assert not ray_private.is_refused([{"CPU": 1.0}])
    assert "answers in another way than it did" in caplog.text
    assert "machines that can never come are waited for" in caplog.text


@pytest.mark.usefixtures("without_private_ray")
def test_a_version_that_was_never_tried_is_used_by_its_public_interface_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert killer_is_none()
    assert said_in(caplog) == [
        f"Ray {ray.__version__} is none of the versions that raymia was tried with (1.0 to 1.0): "
        "actors of a run that stops or fails are killed one by one once they are placed"
    ]


def test_options_that_are_gone_are_not_set(caplog: pytest.LogCaptureFixture) -> None:
    context = SimpleNamespace(
        enable_progress_bars=True, execution_options=SimpleNamespace(preserve_order=True)
    )
    ray_private.set_options(context, 60)
    assert vars(context) == {
        "enable_progress_bars": False,
        "execution_options": SimpleNamespace(preserve_order=False),
    }
    assert (
        f"Ray {ray.__version__} has no DataContext.raise_original_map_exception: the error of a "
        "worker is read from its traceback" in said_in(caplog)
    )
    assert len(said_in(caplog)) == 4
    ours, untouched = ray.data.DataContext(), ray.data.DataContext()
    ray_private.set_options(ours, 60)
    assert ours != untouched
    assert len(said_in(caplog)) == 4  # Ray has all of them


# -------------------------------------------------------------------------------- addresses


@pytest.mark.usefixtures("without_private_ray")
def test_addresses_are_refused_within_seconds_where_nobody_listens() -> None:
    place = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(InputError, match=f"no Ray answers at {place} .connection refused.; is the"):
        check_answers(place)
    assert time.monotonic() - started < 20
    with pytest.raises(InputError, match="nowhere is no address of a cluster; give HOST:PORT"):
        check_answers("nowhere")
    check_answers("auto")  # only joining it tells


# ------------------------------------------------------------------------------------ whole audits


def audit(folder: Path, models: Models, **settings: Any) -> Path:
    texts = passages()
    return write_small_audit(
        folder, models, engine="ray", members=texts[:3], non_members=texts[24:27],
        **{"neighbors": None, "resources": {"block_records": 2}, **settings},
    )  # fmt: skip


@pytest.fixture
def walker(tmp_path: Path, models: Models) -> Walker:
    return make_walker(models.target, tmp_path)


def walks(walker: Walker) -> dict[str, Any]:
    return {"model": str(walker.folder), "trust_remote_code": True}


def actors_of(pool: str) -> set[str]:
    return {a["State"] for a in actors_seen() if pool in a["ActorClassName"]}


@pytest.mark.usefixtures("local_ray")
def test_an_audit_gives_the_same_answers_without_private_ray_as_in_one_process(
    tmp_path: Path,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    neighbors = {"kind": "substitute", "count": 2}
    here = audit(tmp_path / "here", models, neighbors=neighbors)
    assert run_audit(with_engine(load_spec(here), "local"), console()).succeeded
    assert said_in(caplog) == []
    monkeypatch.setattr(ray_private, "TRIED", NEVER_TRIED)
    without = audit(tmp_path / "without", models, neighbors=neighbors)
    assert run_audit(load_spec(without), console()).succeeded
    scores = scores_by_row(tmp_path / "here" / "run")
    assert len(scores) > 50
    assert scores == scores_by_row(tmp_path / "without" / "run")
    assert len(said_in(caplog)) == 1


@pytest.mark.usefixtures("local_ray", "without_private_ray")
def test_a_run_that_is_stopped_ends_at_once_with_its_actors(
    tmp_path: Path,
    models: Models,
    walker: Walker,
) -> None:
    (walker.notes / "stay").touch()
    name = f"stopped-{len(actors_seen())}"
    file = audit(tmp_path, models, targets=[{"name": name, **walks(walker)}], references=None)

    def interrupt() -> None:
        wait_until(lambda: walker.has_begun, 240, "the target is being asked")
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_audit(load_spec(file), console())
    thread.join()
    pool = f"target_{name}".replace("-", "_")
    wait_until(lambda: actors_of(pool) == {"DEAD"}, 30, "the actors go")
    (walker.notes / "stay").unlink()
    assert run_audit(load_spec(file), console()).succeeded


@pytest.mark.usefixtures("local_ray", "without_private_ray")
def test_a_run_that_fails_says_why_and_ends_with_its_actors(
    tmp_path: Path,
    models: Models,
    walker: Walker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read from the traceback is what is had from the error itself."""
    monkeypatch.setitem(ray_private.OPTIONS, "raise_original_map_exception", (False, ""))
    (walker.notes / "refuse").touch()
    name = f"failing-{len(actors_seen())}"
    file = audit(
        tmp_path, models, targets=[{"name": name, "model": str(models.target)}],
        references={"base": walks(walker)},
    )  # fmt: skip
    with pytest.raises(RaymiaError) as caught:
        run_audit(load_spec(file), console())
    assert str(caught.value) == f"{walker.folder}: {REFUSAL}"
    pool = f"target_{name}".replace("-", "_")
    wait_until(lambda: actors_of(pool) == {"DEAD"}, 30, "the actors go")


JOINING = """
import sys
from raymia.engine.on_ray import ray_private
ray_private.TRIED = ((1, 0), (1, 1))
from raymia.cli.main import main
main()
"""


@pytest.mark.usefixtures("own_ray")
def test_a_cluster_is_joined_without_private_ray(head: Head, tmp_path: Path) -> None:
    file = write_number_audit(
        tmp_path, plugins=["number_modality"], resources={"engine": "ray"}, shift={"enabled": False}
    )
    done = subprocess.run(
        [sys.executable, "-c", JOINING, "audit", str(file)],
        env=head.environment | {"RAY_ADDRESS": head.joining},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for consequence in ("one by one once they are placed", "found out by joining it"):
        assert consequence in done.stderr
