"""Evidence on images, laid out for attacks: arrays over records, aligned by record id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.evidence.answers import AnswersByQuestion, holds_answers
from raymia.evidence.text import LabelledScores

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]

DISTANCES = ("l2", "l4", "low_l2", "low_l4")
"""Columns of a denoiser's answers: the mean of |r|^2 and of |r|^4 over the elements of a residual
r, and the same after the low-pass of FreMIA."""

ELBO_TERMS = ("loss", "reconstruction", "divergence")
"""Columns of an autoencoder's answers: the sum that it was trained on, and the sum's two parts."""

DESCENT_TERMS = ("squared_error",)
"""Columns of an autoencoder's answers to a search among latents."""

PIXEL_TERMS = ("loss",)
"""Columns of the answers of a model that predicts pixels."""


class LazyImages:
    """Images that are read when one is first looked at, as most attacks never do.

    Parameters
    ----------
    count : how many there are.
    read : gives them, uint8 [count, channels, height, width].
    """

    def __init__(self, count: int, read: Callable[[], Images]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    @cached_property
    def array(self) -> Images:
        """The images, which are held from then on."""
        return self._read()


@dataclass(frozen=True)
class Grid:
    """Answers of one model over timesteps and draws; NaN where there is no evidence.

    Attributes
    ----------
    timesteps : of the noise schedule, or shares of it; (0,) for a model that has none.
    values : per column, float64 [records, timesteps, draws], or [records, neighbors, timesteps,
        draws] on neighbors. The columns are :data:`DISTANCES`, :data:`ELBO_TERMS`,
        :data:`DESCENT_TERMS` or :data:`PIXEL_TERMS`.
    """

    timesteps: tuple[float, ...]
    values: Mapping[str, Floats]

    @property
    def loss(self) -> Floats:
        """What the model was trained to make small: the squared error, or the ELBO's negative."""
        return self.values["loss" if "loss" in self.values else "l2"]


@holds_answers("image")
@dataclass(frozen=True)
class ImageModelEvidence(AnswersByQuestion):
    """What one model answered; a question that was not asked is None, or not in the mapping.

    Attributes
    ----------
    terms : the record: denoising errors at (timestep, noise draw), or the ELBO's terms of each
        latent draw.
    neighbors : the same on the record's neighbors, by perturbation; strengths in rising order.
    inversion : SecMI's t-error, one timestep and draw.
    inversion_map : its absolute residual, float32 [records, channels, height, width].
    proximal, proximal_normalized : PIA's and PIAN's error at each timestep, one draw.
    clean : the predicted noise itself on the record without noise, at each timestep (SimA).
    averaged : the predicted noise averaged over draws, at each timestep (SimA-MC).
    captions : denoising errors with reduced captions, [records, captions, timesteps, draws]; the
        first is the full caption, the last the empty one.
    other_captions : the same with captions of other images.
    descent : squared error of the best reproduction that a search among latents found.
    """

    terms: Grid
    neighbors: Mapping[str, Grid] = field(default_factory=dict)
    inversion: Grid | None = None
    inversion_map: npt.NDArray[np.float32] | None = None
    proximal: Grid | None = None
    proximal_normalized: Grid | None = None
    clean: Grid | None = None
    averaged: Grid | None = None
    captions: Grid | None = None
    other_captions: Grid | None = None
    descent: Grid | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any], count: int) -> Any:
        """From answers by name; the terms of a model that was not asked for them are NaN."""
        nothing = Grid((0,), {"l2": np.full((count, 1, 1), np.nan)})
        return super().of({"terms": nothing, **found}, count)


@dataclass(frozen=True)
class ImageShadowEvidence:
    """What a shadow answered.

    Attributes
    ----------
    model : its answers.
    is_in : bool [records], whether the shadow was trained on the record.
    """

    model: ImageModelEvidence
    is_in: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Labels:
    """What is known of the records, for attacks that are fitted on some to judge others.

    Attributes
    ----------
    is_member : [records]; None for candidates.
    units : [records], the record's group, or its id where it has none: what must not be split.
    """

    is_member: Sequence[bool | None]
    units: Sequence[str]


@dataclass(frozen=True)
class ImageEvidence:
    """What an attack on images may look at.

    Attributes
    ----------
    images : uint8 [records, channels, height, width], read when they are first looked at.
    pixels : these, or what reads them.
    target : answers of the checkpoint under audit; None where only its samples are to be had.
    reference : answers of the reference that the attack runs with, where it runs with one.
    shadows : answers of the audit's shadows, for attacks that use them.
    population : the same on images that are no members and are not judged.
    samples : uint8 [samples, channels, height, width], what the target generated, for attacks that
        look at nothing else.
    labels : for attacks that learn.
    labelled : scores and labels, for attacks that combine.
    chosen : the perturbation that the audit file names; None with `auto`, where attacks choose.
    """

    pixels: Images | LazyImages
    target: ImageModelEvidence | None
    reference: ImageModelEvidence | None = None
    shadows: Sequence[ImageShadowEvidence] = ()
    population: ImageEvidence | None = None
    samples: Images | None = None
    labels: Labels | None = None
    labelled: LabelledScores | None = None
    chosen: str | None = None

    @property
    def images(self) -> Images:
        """The records, uint8 [records, channels, height, width]."""
        return self.pixels.array if isinstance(self.pixels, LazyImages) else self.pixels

    @property
    def count(self) -> int:
        """How many records there are; reads none of them."""
        return len(self.pixels)


def grid(
    table: pa.Table | None,
    record_ids: Sequence[str],
    columns: Sequence[str],
    timesteps: Sequence[float],
    draws: int,
    indices: range | None = None,
) -> Grid:
    """Align a table of lists over (timestep, draw) with records.

    Parameters
    ----------
    columns : of the table, each a list of ``timesteps * draws`` numbers per row, draws innermost.
    indices : neighbor indices, in order, for a grid with an axis of neighbors; None takes the
        record's own row.

    Returns
    -------
    NaN where a row is missing or has an error.
    """
    places = {record: i for i, record in enumerate(record_ids)}
    width = len(timesteps) * draws
    wanted = range(1) if indices is None else indices
    flat = {c: np.full((len(record_ids), len(wanted), width), np.nan) for c in columns}
    if table is not None:
        names = ("record_id", "neighbor", "error", *columns)
        rows = zip(*(table[name].to_pylist() for name in names), strict=True)
        for record, neighbor, error, *lists in rows:
            if error is None and record in places and neighbor in wanted:
                for column, values in zip(columns, lists, strict=True):
                    flat[column][places[record], wanted.index(neighbor)] = values
    shape = (len(record_ids), len(wanted), len(timesteps), draws)
    shaped = {c: values.reshape(shape) for c, values in flat.items()}
    if indices is None:
        shaped = {c: values[:, 0] for c, values in shaped.items()}
    return Grid(tuple(timesteps), shaped)
