"""Asking the models for everything that a plan misses."""

from __future__ import annotations

from rich.console import Console

from raymia.engine.board import Line, started
from raymia.engine.cluster import check_store_is_shared, connected, is_given
from raymia.engine.pools import streams_of
from raymia.engine.prepare import run_preparation
from raymia.engine.stream import run_stream
from raymia.evidence.store import EvidenceStore
from raymia.inputs import Inputs
from raymia.plan import plan_audit, stored_neighbors


def ask_models(
    inputs: Inputs, store: EvidenceStore, store_url: str, console: Console
) -> dict[str, Line]:
    """Prepare references, then stream records through the models.

    Targets whose models share their bases go through one stream, others one after another.

    Returns
    -------
    What each stage did, by stage name.
    """
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
        with started(console) as board:
            for plan in plan_audit(inputs, store):
                for preparation in plan.preparations:
                    # Another target of the same content may have made it in the meantime.
                    if store.prepared_facts(preparation.recipe.key) is None:
                        run_preparation(
                            preparation,
                            plan.name,
                            resources.reference,
                            store_url=store_url,
                            cluster=cluster,
                            board=board,
                        )
            for stages in streams_of(plan_audit(inputs, store)):
                run_stream(
                    stages,
                    inputs.payloads,
                    stored_neighbors(stages, store),
                    store_url=store_url,
                    block_records=resources.block_records,
                    cluster=cluster,
                    board=board,
                )
            lines: dict[str, Line] = ray.get(board.snapshot.remote())
    return lines
