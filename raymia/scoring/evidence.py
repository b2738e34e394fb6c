"""The evidence on one target, handed to each attack as far as it needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.sharded import has_shards
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import LabelledScores
from raymia.inputs.base import Inputs
from raymia.plan.stages import PlannedQuestion, Stage, TargetPlan
from raymia.questions.registry import model_evidence
from raymia.records.base import RecordSet
from raymia.storage.scratch_table import ScratchTable
from raymia.util.column import Column
from raymia.util.errors import RaymiaError


class TargetEvidence(Protocol):
    """Everything that was answered about one target's audit."""

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> Any:
        """What an attack may look at.

        Parameters
        ----------
        found : scores of the attacks before it, by label, for attacks that combine.
        """


class Answers:
    """What a target and its references answered on some records.

    Parameters
    ----------
    plan : made after the models were asked.
    ids : of the records, or of the population.

    Attributes
    ----------
    target : laid out by :func:`raymia.questions.registry.model_evidence`.
    references : the same of each, by name.

    Raises
    ------
    RaymiaError
        If answers are gone that were there when the plan was made.
    """

    def __init__(
        self,
        inputs: Inputs,
        store: EvidenceStore,
        plan: TargetPlan,
        ids: Sequence[str],
        *,
        population: bool = False,
    ) -> None:
        def read(planned: PlannedQuestion) -> pa.Table | None:
            table, width = store.read(planned.key), len(planned.missing.indices)
            is_asked = planned.of_population or not population
            if is_asked and not planned.to_ask and not planned.shared:
                gone = len(ids) * width - _count(table, planned.missing.indices, ids)
                if gone:
                    raise RaymiaError(
                        f"{store.folder.url}/{planned.key.folder}: {gone:,} answers are gone that "
                        "were there when the models had been asked; is somebody deleting them? "
                        "Run the audit again: they alone are asked for again"
                    )
            return table

        def of_stage(stage: Stage) -> Any:
            answers = ((p.label, p.question, read(p)) for p in stage.questions)
            return model_evidence(inputs.spec.records.kind, answers, ids)

        self.target = of_stage(plan.target)
        self.references = {name: of_stage(stage) for name, stage in plan.references.items()}

    def against(self, reference: str | None) -> Any:
        """What the reference answered that an attack runs with; None for one that runs alone."""
        return None if reference is None else self.references[reference]


def _count(table: pa.Table | None, indices: range, ids: Sequence[str]) -> int:
    """How many answers a table has about some records and indices."""
    if table is None:
        return 0
    neighbors = table["neighbor"]
    inside = pc.and_(pc.greater_equal(neighbors, indices.start), pc.less(neighbors, indices.stop))
    of_these = pc.is_in(table["record_id"], pa.array(ids, pa.string()))
    return int(pc.sum(pc.and_(inside, of_these)).as_py() or 0)


class Known:
    """What is known of the records beside the evidence."""

    def __init__(self, inputs: Inputs) -> None:
        self._records = inputs.records
        self.fitted = inputs.fitted_on_labels

    @property
    def is_member(self) -> Sequence[bool | None]:
        return Column(self._records.table["is_member"])

    @cached_property
    def units(self) -> Sequence[str]:
        return Column(unit_column(self._records))

    def labelled(self, found: Mapping[str, Scores]) -> LabelledScores:
        """What an attack that combines scores learns from: the scores of the attacks before it that
        are fitted on no label, and the labels."""
        # An infinite score is a fault of its attack, and no number to learn from.
        published = {
            label: np.where(np.isinf(s), np.nan, s) if np.isinf(s).any() else s
            for label, s in found.items()
            if label not in self.fitted
        }
        return LabelledScores(published, self.is_member, self.units)


def shadows_of(
    inputs: Inputs, plan: TargetPlan, ids: Sequence[str]
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The shadows that were asked, each with which of some records it was trained on."""
    return [
        (name, np.array([i in members for i in ids], bool))
        for name, members in inputs.shadow_members.items()
        if name in plan.references
    ]


def units(records: RecordSet) -> list[str]:
    """What must not be split between what is fitted and what is judged: a record's group, or the
    record."""
    return list(unit_column(records).to_pylist())


def unit_column(records: RecordSet) -> pa.ChunkedArray:
    """The units as a column; of many records in a scratch file."""
    groups = records.table["group"]
    if groups.null_count == len(groups):
        return records.table["record_id"]
    named = records.table.select(["record_id", "group"])
    if not has_shards(len(groups)):
        return _named_units(named)["unit"]
    scratch = ScratchTable(pa.schema([("unit", pa.string())]))
    for batch in named.to_batches():
        scratch.add(_named_units(pa.Table.from_batches([batch])))
    return scratch.table()["unit"]


def _named_units(records: pa.Table) -> pa.Table:
    groups = records["group"]
    named = pc.binary_join_element_wise("group", groups, " ")
    return pa.table({"unit": pc.if_else(pc.is_valid(groups), named, records["record_id"])})
