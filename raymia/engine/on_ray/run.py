"""Asking the models for everything that a plan misses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console

from raymia.engine.board import Line, OnLines, started
from raymia.engine.on_ray.cluster import Cluster, check_store_is_shared, connected, is_given
from raymia.engine.on_ray.machines import Machines, machines_for, max_blocks, refuse_impossible
from raymia.engine.on_ray.prepare import run_preparation
from raymia.engine.on_ray.side_by_side import Stream, run_streams
from raymia.engine.on_ray.stream import run_stream
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.plan.planning import failed_with, plan_audit
from raymia.plan.pools import in_loading_order, streams_of
from raymia.util.errors import RaymiaError


@dataclass(frozen=True)
class Work:
    """What was done.

    Attributes
    ----------
    lines : what each stage did, by stage name.
    failed : targets that could not be asked everything, and why.
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def ask_models(
    inputs: Inputs,
    store: EvidenceStore,
    store_url: str,
    console: Console,
    on_lines: OnLines | None = None,
) -> Work:
    """Prepare references, then stream records through the models.

    Targets whose models share their bases go through one stream, wherever they stand in the audit
    file; several streams run at the same time where the cluster has room for them
    (:mod:`raymia.engine.on_ray.side_by_side`), and one after another where it has not. A target
    that fails does not stop the others.

    Parameters
    ----------
    on_lines : see :func:`raymia.engine.board.started`.

    Raises
    ------
    RaymiaError
        If something fails that targets share, or if every target fails.
    """
    import ray

    resources = inputs.spec.resources
    with _at_work(inputs, store, store_url, console, on_lines) as (cluster, machines, board):
        failed = prepare_references(inputs, store, store_url, cluster, machines, board)

        def run(stream: Stream) -> dict[str, str]:
            return run_stream(
                stream,
                inputs.payloads,
                store_url=store_url,
                block_records=resources.block_records,
                cluster=cluster,
                machines=machines,
                wait_minutes=resources.wait_minutes,
                board=board,
            )

        failed |= run_streams(
            streams_of(in_loading_order(inputs.without(failed), store)),
            run,
            blocks=max_blocks(inputs),
            cluster=cluster,
            board=board,
        )
        lines: dict[str, Line] = ray.get(board.snapshot.remote())
    if failed:
        failed |= failed_with(plan_audit(inputs, store), failed)
        refuse_if_all_failed(inputs, failed)
    return Work(lines, failed)


def make_references(
    inputs: Inputs, store: EvidenceStore, store_url: str, console: Console
) -> dict[str, str]:
    """Make the references that are missing, and ask nothing.

    Returns
    -------
    The targets of which one could not be made, and why.

    Raises
    ------
    RaymiaError
        As :func:`ask_models`.
    """
    with _at_work(inputs, store, store_url, console) as (cluster, machines, board):
        return prepare_references(inputs, store, store_url, cluster, machines, board)


@contextmanager
def _at_work(
    inputs: Inputs,
    store: EvidenceStore,
    store_url: str,
    console: Console,
    on_lines: OnLines | None = None,
) -> Iterator[tuple[Cluster, Machines, Any]]:
    """Ray with what an audit needs of it, checked; what starts its machines; and the board."""
    import ray

    resources = inputs.spec.resources
    if not ray.is_initialized():
        console.print(f"{'joining' if is_given() else 'starting'} Ray ...", highlight=False)
    with connected(resources) as cluster:
        if cluster.gpus and not any(
            pool.gpus for pool in (resources.paraphraser, resources.target, resources.reference)
        ):
            console.print(
                f"this cluster has {cluster.gpus:g} GPU and the audit file gives its pools none: "
                "set gpus under resources.paraphraser, target and reference"
            )
        check_store_is_shared(store_url)
        refuse_impossible(in_loading_order(inputs, store), inputs, cluster)
        machines = partial(
            machines_for, cluster=cluster, console=console, wait_minutes=resources.wait_minutes
        )
        with started(console, on_lines) as board:
            yield cluster, machines, board


def prepare_references(
    inputs: Inputs,
    store: EvidenceStore,
    store_url: str,
    cluster: Cluster,
    machines: Machines,
    board: Any,
) -> dict[str, str]:
    """Make the references that are missing.

    Returns
    -------
    The targets of which one could not be made, and why.
    """
    pool, failed = inputs.spec.resources.reference, dict[str, str]()
    for plan in plan_audit(inputs, store):
        for preparation in plan.preparations:
            # Another target of the same content may have made it in the meantime.
            if store.prepared_facts(preparation.recipe.key) is not None:
                continue
            try:
                run_preparation(
                    preparation,
                    plan.name,
                    pool,
                    store_url=store_url,
                    cluster=cluster,
                    machines=machines,
                    board=board,
                )
            except RaymiaError as error:
                if len(inputs.targets) == 1:
                    raise
                store.check()  # a store that is full or gone is no failure of the target
                failed[plan.name] = f"reference {preparation.reference}: {error}"
                board.fail.remote(plan.target.name, failed[plan.name])
                break
    return failed


def refuse_if_all_failed(inputs: Inputs, failed: Mapping[str, str]) -> None:
    """Raise why targets failed, if none is left to report on."""
    if len(failed) < len(inputs.targets):
        return
    one = len(failed) == 1
    raise RaymiaError(
        "\n".join(why if one else f"target {name} failed: {why}" for name, why in failed.items())
    )
