"""What a probe is: a question put to a model about records, and the evidence it gives.

The engine, the store and the planner know probes by this page alone, whatever the records are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa

from raymia.evidence.store import EvidenceKey

RECORD = 0
"""Neighbor index of the record itself; its neighbors are numbered from 1."""


@dataclass(frozen=True)
class Item:
    """One question's subject: a record, or one neighbor of it.

    ``payload`` is None where a neighbor could not be made; the answer then says so.
    """

    record_id: str
    neighbor: int
    payload: Any


class Probe(Protocol):
    """A question that a kind of model can answer.

    ``kind`` names the evidence table and ``schema`` is its columns: record_id, neighbor, error, and
    what the probe is about. ``version`` is that of the code that computes the answer:
    whoever changes what an answer is raises it, and old evidence is not read as new. ``subject`` is
    what an item's payload is: the record's own for every index, or the neighbor's for indices from
    1. The answers of a probe that ``makes_neighbors`` have a ``payload`` column: what the probes
    after it are asked about.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    schema: ClassVar[pa.Schema]
    subject: ClassVar[Literal["record", "neighbor"]]
    makes_neighbors: ClassVar[bool]

    def indices(self) -> range:
        """Neighbor indices that are asked about for each record."""

    def key_parts(self) -> Mapping[str, Any]:
        """Everything that changes an answer but the model itself."""

    @property
    def passes(self) -> int:
        """Passes through the model per item, as far as that is a fixed number."""

    def ask(self, model: Any, items: Sequence[Item]) -> pa.Table:
        """Put the question; one row per item, with an answer or with an error."""


class AboutRecord:
    """Base of probes whose items carry the record's own payload.

    By default they are asked once about each record, and set up by nothing.
    """

    subject: ClassVar[Literal["record", "neighbor"]] = "record"
    makes_neighbors: ClassVar[bool] = False

    def indices(self) -> range:
        return range(RECORD, RECORD + 1)

    def key_parts(self) -> Mapping[str, Any]:
        return {}

    @property
    def passes(self) -> int:
        """Passes through the model per item, as far as that is a fixed number."""
        return 1


def variants(count: int) -> range:
    """Indices of a record's neighbors, samples or copies: from 1."""
    return range(RECORD + 1, RECORD + 1 + count)


def evidence_key(probe: Probe, fingerprint: str) -> EvidenceKey:
    """The key of what one model answers to one probe."""
    parts = {"model": fingerprint, "version": probe.version, **probe.key_parts()}
    return EvidenceKey(probe.kind, parts)
