"""An audit leaves its caller's process as it was, however it ends."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
import ray.tune
import torch
import transformers.utils.logging
from caller_seen import Seen, seen
from ray_fixtures import child_environment, ended, wait_until
from small_audit import Models, console, passages, write_small_audit
from small_sweep import made_spec, with_evidence
from walking_model import make_walker

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.run.audit import run_audit
from raymia.run.calibrate import calibrate
from raymia.run.sweep import run_sweep
from raymia.spec.file import load_spec
from raymia.util.caller import caller_state
from raymia.util.errors import RaymiaError

LOGGERS = ("ray", "ray.data", "ray.tune", "ray.dashboard", "transformers", "diffusers", "optuna")


def seen_with_ray() -> Seen:
    loggers = {name: logging.getLogger(name) for name in LOGGERS}
    return {
        **seen(),
        **{f"logger {name}": (one.level, one.handlers[:]) for name, one in loggers.items()},
        "context": repr(ray.data.DataContext.get_current()),
        "context's id": id(ray.data.DataContext.get_current()),
        "excepthook": sys.excepthook,
        "folder": Path.cwd(),
    }


@pytest.fixture
def caller(local_ray: None) -> Iterator[Seen]:  # noqa: ARG001
    """Has started Ray itself, and likes it its own way."""
    context = ray.data.DataContext.get_current()
    timeout = context.execution_no_progress_timeout_s
    with caller_state():
        context.execution_no_progress_timeout_s = 77.0
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.INFO)
        logging.getLogger("ray.tune").setLevel(logging.INFO)
        warnings.filterwarnings("ignore", "of the caller")
        transformers.utils.logging.set_verbosity_info()
        signal.signal(signal.SIGTERM, lambda *_: None)
        torch.manual_seed(7)
        yield seen_with_ray()
    context.execution_no_progress_timeout_s = timeout
    context.execution_options.preserve_order = False


def audit(folder: Path, models: Models, **settings: Any) -> Path:
    texts = passages()
    return write_small_audit(
        folder, models, engine="ray", members=texts[:4], non_members=texts[24:28],
        **{"neighbors": None, "references": None, **settings},
    )  # fmt: skip


def test_an_audit_that_succeeds(caller: Seen, tmp_path: Path, models: Models) -> None:
    assert run_audit(load_spec(audit(tmp_path, models)), console()).succeeded
    assert ray.is_initialized()
    assert seen_with_ray() == caller


@pytest.mark.slow
def test_an_audit_that_fails(caller: Seen, tmp_path: Path, models: Models) -> None:
    walker = make_walker(models.target, tmp_path)
    (walker.notes / "refuse").touch()
    base = {"model": str(walker.folder), "trust_remote_code": True}
    with pytest.raises(RaymiaError, match="these weights are not to be had"):
        run_audit(load_spec(audit(tmp_path, models, references={"base": base})), console())
    assert seen_with_ray() == caller


def test_an_audit_that_is_stopped(caller: Seen, tmp_path: Path, models: Models) -> None:
    walker = make_walker(models.target, tmp_path)
    (walker.notes / "stay").touch()
    target = {"name": "stays", "model": str(walker.folder), "trust_remote_code": True}

    def interrupt() -> None:
        wait_until(lambda: walker.has_begun, 240, "the target is being asked")
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_audit(load_spec(audit(tmp_path, models, targets=[target])), console())
    thread.join()
    assert ray.is_initialized()
    assert seen_with_ray() == caller


def test_a_calibration(caller: Seen, tmp_path: Path, models: Models) -> None:
    spec = load_spec(audit(tmp_path, models))
    calibrate(resolve_inputs(spec), EvidenceStore(spec.store), 2, console())
    assert seen_with_ray() == caller


@pytest.mark.usefixtures("caller")
def test_a_sweep(tmp_path: Path) -> None:
    sweep = {"attacks": {"min_k": {"share": {"grid": [0.1, 0.3]}}}}
    spec = made_spec(tmp_path, sweep, engine="ray")
    with_evidence(spec)
    before = seen_with_ray()
    assert run_sweep(spec, console()).tried_now == 2
    assert seen_with_ray() == before


ALONE = """
import logging, os, signal, sys
signal.signal(signal.SIGTERM, handler := lambda *_: None)
import raymia.engine.on_ray.executor
environment = dict(os.environ)
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec
from rich.console import Console
names = ("ray", "ray.data")
levels = [logging.getLogger(name).level for name in names]
assert run_audit(load_spec(sys.argv[1]), Console()).succeeded
import ray
assert not ray.is_initialized()
assert dict(os.environ) == environment, set(os.environ.items()) ^ set(environment.items())
assert signal.getsignal(signal.SIGTERM) is handler
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert [logging.getLogger(name).level for name in names] == levels
print("as it was")
"""


@pytest.mark.usefixtures("own_ray")
@pytest.mark.slow
def test_an_audit_that_starts_ray_itself(tmp_path: Path, models: Models) -> None:
    file = audit(tmp_path, models)
    environment, mark = child_environment()
    with ended(mark):
        done = subprocess.run(
            [sys.executable, "-c", ALONE, str(file)], env=environment, capture_output=True,
            text=True, timeout=240, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("as it was\n")
    assert os.environ.get("RAYMIA_TEST_NEW") is None
