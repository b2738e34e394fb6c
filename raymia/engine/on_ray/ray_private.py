"""All that raymia uses of Ray and that Ray does not promise to keep; nothing else may name it.

Each function looks for its names when it is called. Where one is gone, takes other parameters, or
belongs to a version of Ray that was never tried, the function does without, by Ray's public
interface alone: an audit then gives the same answers, if more slowly, and the log says so once.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import ray

LOGGER = logging.getLogger(__name__)
TRIED = (2, 60), (2, 64)
"""The first version of Ray that was tried, and the first that was not; as in pyproject.toml."""
PACKAGING_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that say what is packed, where it is put, and how a connection was closed."""
UNAUTHENTICATED = "unauthenticated"
CONSTANTS = "ray._private.ray_constants"
HEAD = "node:__internal_head__"
OPTION = "--autoscaling-config="
POLL_SECONDS = 1.0
STATUS_SECONDS = 15.0
"""How long a head that has just started may take to say whether it has an autoscaler."""

P = ParamSpec("P")
Found = TypeVar("Found")
Kill = Callable[[], None]


class GoneError(Exception):
    """What Ray no longer has, as the end of a sentence that begins with its name and version."""


class AddressUnknownError(Exception):
    """It cannot be told whether a Ray runs on this machine."""


def _otherwise(
    fallback: Callable[..., Any], consequence: str
) -> Callable[[Callable[P, Found]], Callable[P, Found]]:
    """Call `fallback` where what a function uses of Ray is gone or is of another shape."""

    def with_fallback(function: Callable[P, Found]) -> Callable[P, Found]:
        @wraps(function)
        def guarded(*arguments: P.args, **named: P.kwargs) -> Found:
            try:
                return function(*arguments, **named)
            except GoneError as gone:
                what = str(gone)
            except (AttributeError, ImportError, TypeError) as error:
                what = f"answers in another way than it did ({error})"
            _warn(f"Ray {ray.__version__} {what}: {consequence}")
            found: Found = fallback(*arguments, **named)
            return found

        return guarded

    return with_fallback


@cache
def _warn(sentence: str) -> None:
    LOGGER.warning("%s", sentence)


def _find(path: str, takes: tuple[str, ...] | None = None) -> Any:
    """What Ray has at ``module:name.name``.

    Parameters
    ----------
    takes : the parameters that it is called with; None for what is not called.

    Raises
    ------
    GoneError
    """
    first, end = TRIED
    if not first <= tuple(int(part) for part in ray.__version__.split(".")[:2]) < end:
        versions = f"{first[0]}.{first[1]} to {end[0]}.{end[1] - 1}"
        raise GoneError(f"is none of the versions that raymia was tried with ({versions})")
    module, _, names = path.partition(":")
    shown = path.replace(":", ".")
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        raise GoneError(f"has no {shown}") from None
    if takes is not None:
        try:
            inspect.signature(found).bind(**dict.fromkeys(takes))
        except TypeError as error:
            raise GoneError(f"wants {shown} called in another way ({error})") from None
        except ValueError:  # compiled, without a signature
            pass
    return found


# ------------------------------------------------------------------- the execution of a data set

_killer: ContextVar[_Killer] = ContextVar("killer")


class _Killer:
    """Ends an execution and kills all its actors, also those that have no place yet."""

    def __init__(self) -> None:
        self.executors: list[Any] = []

    def __call__(self) -> None:
        while self.executors:
            self.executors.pop().shutdown(force=True)


class _Hooks:
    """What Ray Data calls about an execution; it makes one in the thread that asks for it."""

    def __init__(self) -> None:
        self._killer = _killer.get(None)

    def before_execution_starts(self, executor: Any) -> None:
        """By itself an execution that fails lets its actors finish what they are at, and keeps them
        as long as anybody keeps the error."""
        shutdown = executor.shutdown

        def kill(force: bool, exception: BaseException | None = None) -> None:
            shutdown(force or exception is not None, exception)

        executor.shutdown = kill
        if self._killer is not None:
            self._killer.executors.append(executor)

    def on_execution_step(self, executor: Any) -> None:
        pass

    def after_execution_succeeds(self, executor: Any) -> None:
        pass

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        pass


@_otherwise(
    lambda _: None, "actors of a run that stops or fails are killed one by one once they are placed"
)
def killer_of_actors(context: Any) -> Kill | None:
    """What kills the actors of the execution that this thread will start next.

    Parameters
    ----------
    context : the DataContext of the data set.

    Returns
    -------
    To be called from any thread, as often as one likes; None where Ray has no way to it.
    """
    base = _find("ray.data._internal.execution.execution_callback:ExecutionCallback")
    _find(
        "ray.data._internal.execution.streaming_executor:StreamingExecutor.shutdown",
        ("self", "force", "exception"),
    )
    unknown = _hooks_of(base) ^ _hooks_of(_Hooks)
    if unknown:
        raise GoneError(f"has other hooks of an execution ({', '.join(sorted(unknown))})")
    classes = context.custom_execution_callback_classes
    context.custom_execution_callback_classes = [*classes, _Hooks]
    killer = _Killer()
    _killer.set(killer)
    return killer


def _hooks_of(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


OPTIONS: dict[str, tuple[Any, str]] = {
    "enable_progress_bars": (False, "Ray's own progress may be printed beside raymia's"),
    "print_on_execution_start": (False, "Ray's own progress may be printed beside raymia's"),
    # Wrapped in Ray Data's own exception, the error of a worker would not reach the driver.
    "raise_original_map_exception": (True, "the error of a worker is read from its traceback"),
    "max_errored_blocks": (0, "blocks that fail may be left out, which ends a run at its end"),
}
TIMEOUT = "execution_no_progress_timeout_s"


def set_options(context: Any, timeout_seconds: float) -> None:
    """Set what a stream needs of a DataContext, which must be the data set's own.

    Parameters
    ----------
    timeout_seconds : how long nothing may be answered before that is taken for a stall.
    """
    options = OPTIONS | {TIMEOUT: (timeout_seconds, "how long Ray waits for answers is its own")}
    for name, (value, consequence) in options.items():
        _set_option(context, name, value, consequence)
    context.execution_options.preserve_order = False


def _set_option(context: Any, name: str, value: Any, consequence: str) -> None:
    if hasattr(context, name):
        setattr(context, name, value)
    else:
        _warn(f"Ray {ray.__version__} has no DataContext.{name}: {consequence}")


# ----------------------------------------------------------------------------------- autoscalers


@_otherwise(
    lambda: None, "what an autoscaler may start is not known, and machines are waited for instead"
)
def is_second_autoscaler() -> bool | None:
    """Whether the cluster has Ray's second autoscaler, as ``ray up`` starts it since Ray 2.50, and
    KubeRay where it is told to. It knows labels, and says what it cannot start, but not what it
    can.

    Returns
    -------
    None where Ray does not say.
    """
    ask = _find("ray.autoscaler.v2.utils:is_autoscaler_v2", ("fetch_from_server",))
    return bool(ask(fetch_from_server=True))


@_otherwise(
    lambda: None, "what an autoscaler may start is not known, and machines are waited for instead"
)
def autoscaler_config() -> dict[str, Any] | None:
    """What the file of Ray's first autoscaler says of the machines that it may start. ``ray up``
    has it where ``RAY_UP_enable_autoscaler_v2=0`` is set.

    Returns
    -------
    Empty where there is no autoscaler; None where it does not say.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    key = _find(f"{CONSTANTS}:DEBUG_AUTOSCALING_STATUS")
    read = _find("ray.experimental.internal_kv:_internal_kv_get", ("key",))
    deadline = time.monotonic() + STATUS_SECONDS
    while not (status := read(key)):
        if time.monotonic() > deadline:
            return {}
        time.sleep(POLL_SECONDS)
    monitor = json.loads(status).get("monitor_pid")
    head = next((n["NodeID"] for n in ray.nodes() if n["Alive"] and HEAD in n["Resources"]), None)
    if monitor is None or head is None:
        return {}
    config: dict[str, Any] | None = ray.get(
        ray.remote(num_cpus=0)(_config_of)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=False))
        .remote(monitor)
    )
    return config


def _config_of(monitor: int) -> dict[str, Any] | None:
    """The autoscaler's file, read where it lies; empty where it has none."""
    import yaml

    try:
        arguments = Path(f"/proc/{monitor}/cmdline").read_text().split("\0")
        named = [a.removeprefix(OPTION) for a in arguments if a.startswith(OPTION)]
        if not named:
            return {}
        content = yaml.safe_load(Path(named[0]).expanduser().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return {key: content.get(key) for key in ("available_node_types", "max_workers")}


@_otherwise(
    lambda _: False,
    "machines that can never come are waited for until resources.wait_minutes are over",
)
def is_refused(bundles: Sequence[Mapping[str, float]]) -> bool:
    """Whether Ray's second autoscaler says that it cannot start a request, and not another one that
    it had before.

    Parameters
    ----------
    bundles : the resources of each place that was asked for.
    """
    if not is_second_autoscaler():
        return False
    reply = _find("ray.core.generated.autoscaler_pb2:GetClusterStatusReply")()
    client = _find("ray.experimental.internal_kv:internal_kv_get_gcs_client", ())()
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    asked = Counter(frozenset(bundle.items()) for bundle in bundles)
    refused = reply.autoscaling_state.infeasible_cluster_resource_constraints
    return any(_bundles_of(constraint) == asked for constraint in refused)


def _bundles_of(constraint: Any) -> Counter[frozenset[tuple[str, float]]]:
    found = Counter[frozenset[tuple[str, float]]]()
    for part in constraint.resource_requests:
        found[frozenset(part.request.resources_bundle.items())] += part.count
    return found


# -------------------------------------------------------------------------------- what is not held


@_otherwise(dict, "tasks are sized as if nothing else ran on the machines")
def free_cpus() -> dict[str, float]:
    """CPUs of each machine that no task and no actor holds, by Ray's name of the machine; one that
    Ray does not speak of is left out."""
    free = _find("ray._private.state:available_resources_per_node", ())()
    return {node: float(resources.get("CPU", 0.0)) for node, resources in free.items()}


# -------------------------------------------------------------------------- a cluster's addresses

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Has Ray's processes take 127.0.0.1 for the address of their machine, as they do by themselves on
Windows and macOS, and listen there alone."""


@_otherwise(nullcontext, "a Ray that is started here can be reached from other machines")
def on_loopback() -> AbstractContextManager[None]:
    """Let a Ray that is started in the block listen on this machine's own address alone, unless the
    environment says whether it may be reached."""
    if any(name in os.environ for name in LOOPBACK):
        return nullcontext()
    _find(f"{CONSTANTS}:ENABLE_RAY_CLUSTER")
    return _as_if_alone(_find("ray._private:ray_constants"))


@contextmanager
def _as_if_alone(constants: Any) -> Iterator[None]:
    before = constants.ENABLE_RAY_CLUSTER  # was read from the environment with the first import
    constants.ENABLE_RAY_CLUSTER = False
    os.environ.update(LOOPBACK)  # of the processes that are started
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        for name in LOOPBACK:
            del os.environ[name]


def _parsed(address: str) -> str | None:
    parts = urlsplit(f"//{address}")
    if address == "auto":
        raise AddressUnknownError
    if parts.hostname is None or parts.port is None:
        raise ValueError(address)
    return address


@_otherwise(_parsed, "whether a Ray runs on this machine is found out by joining it")
def head_address(address: str) -> str | None:
    """The host and port of a head.

    Parameters
    ----------
    address : HOST:PORT, or ``auto`` for the Ray of this machine.

    Returns
    -------
    None where no Ray runs on this machine.

    Raises
    ------
    AddressUnknownError
        Where only joining tells.
    Exception
        Of several kinds, for what is no address.
    """
    found: str | None = _find("ray._private.services:canonicalize_bootstrap_address", ("addr",))(
        address
    )
    return found


@_otherwise(lambda: False, "a missing token is found out by joining the cluster")
def lacks_token() -> bool:
    """Whether a token has to be shown to clusters, and there is none."""
    module = "ray._private.authentication.authentication_utils"
    if not _find(f"{module}:is_token_auth_enabled", ())():
        return False
    instance = _find("ray._raylet:AuthenticationTokenLoader.instance", ())
    try:
        return not instance().has_token()
    except ray.exceptions.AuthenticationError:
        return True


def _why_closed(address: str, seconds: float) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError as error:
        return str(error.strerror or error).lower()
    return None


@_otherwise(_why_closed, "whether a cluster takes the token is found out by joining it")
def why_no_answer(address: str, seconds: float) -> str | None:
    """Ask the head at an address who it is.

    Returns
    -------
    None where it answers; else why it does not: :data:`UNAUTHENTICATED` where it does not take the
    token.
    """
    import grpc

    request = _find("ray.core.generated.gcs_service_pb2:GetClusterIdRequest")
    stub = _find("ray.core.generated.gcs_service_pb2_grpc:NodeInfoGcsServiceStub", ("channel",))
    with _find("ray._private.grpc_utils:init_grpc_channel", ("address",))(address) as channel:
        try:
            stub(channel).GetClusterId(request(), timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code().name.lower())
    return None
