"""How long an audit takes, measured on a part of its records."""

from __future__ import annotations

import uuid
from dataclasses import replace

from rich.console import Console

from raymia.engine.base import engine
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.checkpoint import architecture
from raymia.plan.planning import plan_audit
from raymia.plan.rates import Rates
from raymia.records.base import RecordSet
from raymia.run.asking import ask
from raymia.spec import MadeReference
from raymia.util.caller import caller_state
from raymia.util.draws import stream_key
from raymia.util.errors import RaymiaError

CALIBRATION_STEPS = 32
"""Optimizer steps for which references are trained where it is only measured how long they take."""


@caller_state()
def calibrate(inputs: Inputs, store: EvidenceStore, records: int, console: Console) -> None:
    """Measure the rates on a part of the records; what is answered is thrown away.

    Of targets of one architecture one is asked. References are made of as few texts or images and
    steps as tell how long they take.

    Parameters
    ----------
    records : how many are asked about, and how many texts or images a target writes at least.

    Raises
    ------
    RaymiaError
        If a target failed, so that not all rates were measured.
    """
    name = f"calibration-{uuid.uuid4().hex[:12]}"
    url = f"{store.folder.url.rstrip('/')}/{name}"
    small = _smaller(inputs, records)
    try:
        scratch = EvidenceStore(url)
        plan = plan_audit(small, scratch)
        with engine(small.spec.resources, url, console) as start:
            work = ask(plan, scratch, start)
        Rates(store).keep_run(small, plan, work.lines, scratch)
        if work.failed:
            raise RaymiaError(
                "not all was measured: "
                + "; ".join(f"target {name}: {why}" for name, why in work.failed.items())
            )
    finally:
        place = store.folder.path(name)
        if store.folder.fs.exists(place):
            store.folder.fs.rm(place, recursive=True)


def _smaller(inputs: Inputs, records: int) -> Inputs:
    """The same audit on fewer records, with smaller references and one target per architecture."""
    table = inputs.records.table
    ids = inputs.records.ids
    order = sorted(range(len(ids)), key=lambda n: stream_key("calibration", ids[n]))
    kept = table.take(sorted(order[:records]))
    references = {
        name: spec.small(records, CALIBRATION_STEPS) if isinstance(spec, MadeReference) else spec
        for name, spec in inputs.spec.references.items()
    }
    seen: dict[str, str] = {}
    for name, target in inputs.targets.items():
        seen.setdefault(repr(architecture(target)), name)
    return replace(
        inputs,
        spec=inputs.spec.model_copy(update={"references": references}),
        modality=inputs.modality.small(CALIBRATION_STEPS),
        records=RecordSet(kept, inputs.records.set_aside),
        population=dict(list(inputs.population.items())[:records]),
    ).only(seen.values())
