"""OpenMP keeps threads for each thread that computes, so an actor has one that does."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from small_inputs import audit
from tiny_models import BASE

from raymia.engine import stage as stage_module
from raymia.engine.blocks import make_blocks
from raymia.engine.board import Counts
from raymia.engine.on_ray.board import RemoteBoard
from raymia.engine.on_ray.source import wrapped
from raymia.engine.on_ray.stream import PoolActor
from raymia.engine.stage import PoolConfig, Task
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit

pytestmark = pytest.mark.usefixtures("local_ray")


def test_a_model_is_loaded_and_asked_in_one_thread_whoever_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = audit(tmp_path, BASE, None, references=None, neighbors=None, attacks=["loss"])
    inputs = resolve_inputs(given)
    store = EvidenceStore(str(tmp_path / "store"))
    (plan,) = plan_audit(inputs, store)
    stage = plan.target
    (planned,) = stage.questions
    seen: list[tuple[str, int]] = []

    def noting(name, function):
        def noted(*arguments):
            seen.append((name, threading.get_ident()))
            return function(*arguments)

        return noted

    monkeypatch.setattr(stage_module, "load_together", noting("load", stage_module.load_together))
    monkeypatch.setattr(type(planned.question), "ask", noting("ask", type(planned.question).ask))
    config = PoolConfig(
        key="target",
        tasks=(Task(stage.name, stage.loader, ((planned.label, planned.question, planned.key),)),),
        store_url=str(tmp_path / "store"),
        passes_on=("record_id",),
    )
    actor = PoolActor(
        config,
        RemoteBoard(ray.remote(Counts).remote()),
        None,
        threads=1,
        register=None,
        on_gpu=True,
    )
    blocks = list(make_blocks([stage], inputs.records.table, [], 2))
    assert len(blocks) > 1
    for block in blocks:
        with ThreadPoolExecutor(1) as caller:
            caller.submit(actor, wrapped(0, block)).result()
    assert [name for name, _ in seen] == ["load"] + ["ask"] * len(blocks)
    assert len({thread for _, thread in seen}) == 1


@pytest.mark.parametrize(("on_gpu", "sees"), [(True, "0"), (False, "")])
def test_an_actor_that_is_given_no_gpu_sees_none(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, sees: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    board = RemoteBoard(ray.remote(Counts).remote())
    config = PoolConfig(key="target", tasks=(), store_url="memory://unused", passes_on=())
    PoolActor(config, board, None, threads=None, register=None, on_gpu=on_gpu)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == sees
