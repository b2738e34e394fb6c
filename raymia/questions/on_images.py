"""What attacks on images can have asked of a model, by the names they use for it.

A question's name is the field of :class:`raymia.evidence.image.ImageModelEvidence` that holds the
answer. "neighbors" becomes one question for each perturbation, as ``neighbors.crop``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.evidence.image import (
    DESCENT_TERMS,
    DISTANCES,
    ELBO_TERMS,
    PIXEL_TERMS,
    Grid,
    ImageModelEvidence,
    grid,
)
from raymia.inputs.base import Inputs
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.image_source import ImageCheckpoint
from raymia.perturbations.kinds import DEFAULT_STRENGTHS
from raymia.questions.base import Probe
from raymia.questions.descent import DescentProbe
from raymia.questions.images import (
    CaptionProbe,
    DenoisingProbe,
    ElboProbe,
    Neighborhood,
    PixelProbe,
)
from raymia.questions.noiseless import MAP, CleanProbe, InversionProbe, ProximalProbe
from raymia.spec import DescentSpec, ImageNeighbors
from raymia.spec.images import Shape

QUESTIONS = (
    "terms", "neighbors", "inversion", "inversion_map", "proximal", "proximal_normalized", "clean",
    "captions", "descent",
)  # fmt: skip


def probes_for(
    inputs: Inputs, questions: Iterable[str], checkpoint: AnyCheckpoint
) -> list[tuple[str, Probe]]:
    """The probes of these questions for a model of the checkpoint's family, in order."""
    assert isinstance(checkpoint, ImageCheckpoint)
    wanted = {*questions}
    if "inversion_map" in wanted:  # its probe answers both
        wanted -= {"inversion"}
    probes: list[tuple[str, Probe]] = []
    for question in QUESTIONS:
        if question not in wanted:
            continue
        if question == "neighbors":
            probes += [
                (f"neighbors.{hood.perturbation}", _terms_probe(inputs, checkpoint, hood))
                for hood in neighborhoods(inputs)
            ]
        else:
            probes.append((question, _make_probe(question, inputs, checkpoint)))
    return probes


def neighborhoods(inputs: Inputs) -> list[Neighborhood]:
    """The perturbations that the audit file asks for, each with its strengths."""
    spec = inputs.spec.neighbors
    assert isinstance(spec, ImageNeighbors)
    return [
        Neighborhood(kind, tuple(spec.strengths or DEFAULT_STRENGTHS[kind])) for kind in spec.kinds
    ]


def _make_probe(question: str, inputs: Inputs, checkpoint: ImageCheckpoint) -> Probe:
    settings, seed = inputs.spec.probes, inputs.spec.seed
    match question:
        case "terms":
            return _terms_probe(inputs, checkpoint, None)
        case "inversion" | "inversion_map":
            spec = settings.inversion
            return InversionProbe(spec.timestep, spec.step, with_map=question == "inversion_map")
        case "proximal" | "proximal_normalized":
            timesteps = tuple(settings.proximal.timesteps)
            return ProximalProbe(timesteps, normalized=question == "proximal_normalized")
        case "clean":
            return CleanProbe(tuple(settings.clean.timesteps))
        case "captions":
            captions = settings.captions
            return CaptionProbe(tuple(captions.timesteps), captions.reductions, seed)
        case "descent":
            search = settings.descent or DescentSpec()
            return DescentProbe(search.steps, search.rate)
    raise ValueError(f"no question {question!r}")


def _terms_probe(inputs: Inputs, checkpoint: ImageCheckpoint, hood: Neighborhood | None) -> Probe:
    settings, seed = inputs.spec.probes, inputs.spec.seed
    if checkpoint.family == "autoencoder":
        return ElboProbe(seed, hood, settings.elbo.draws)
    if checkpoint.family == "pixels":
        return PixelProbe(seed, hood)
    spec = settings.denoising
    return DenoisingProbe(seed, hood, tuple(spec.timesteps), spec.draws, spec.noise)


def model_evidence(
    answers: Iterable[tuple[str, Probe, pa.Table | None]], ids: Sequence[str], shape: Shape
) -> ImageModelEvidence:
    """The answers of one model to its questions, as attacks read them.

    Parameters
    ----------
    shape : of what the model's network sees.
    """
    found: dict[str, Any] = {"neighbors": {}}
    for question, probe, table in answers:
        name, _, perturbation = question.partition(".")
        if name == "neighbors":
            found["neighbors"][perturbation] = _grid(probe, table, ids, neighbors=True)
        elif name == "captions":
            found[name] = _grid(probe, table, ids, neighbors=True)
        elif name == "inversion_map":
            found["inversion"] = _grid(probe, table, ids)
            found[name] = _maps(table, ids, shape)
        else:
            found[name] = _grid(probe, table, ids)
    nothing = Grid((0,), {"l2": np.full((len(ids), 1, 1), np.nan)})
    return ImageModelEvidence(**{"terms": nothing, **found})


def _grid(
    probe: Any, table: pa.Table | None, ids: Sequence[str], *, neighbors: bool = False
) -> Grid:
    own = {ElboProbe: ELBO_TERMS, PixelProbe: PIXEL_TERMS, DescentProbe: DESCENT_TERMS}
    columns = own.get(type(probe), DISTANCES)
    if isinstance(probe, InversionProbe):
        timesteps: tuple[int, ...] = (probe.timestep,)
    else:
        timesteps = getattr(probe, "timesteps", (0,))
    indices = probe.indices() if neighbors else None
    return grid(table, ids, columns, timesteps, getattr(probe, "draws", 1), indices)


def _maps(table: pa.Table | None, ids: Sequence[str], shape: Shape) -> Any:
    """Residual maps, float32 [records, *shape]; NaN where there is none."""
    maps = np.full((len(ids), *shape), np.nan, np.float32)
    if table is None:
        return maps
    usable = table.filter(pc.is_null(table["error"]))
    rows = {record: n for n, record in enumerate(usable["record_id"].to_pylist())}
    known = [n for n, record in enumerate(ids) if record in rows]
    picked = usable[MAP].take(pa.array([rows[ids[n]] for n in known], pa.int64()))
    flat = picked.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    maps[known] = flat.reshape(len(known), *shape)
    return maps
