"""A kind of records of its own: numbers, and models that have a center; nothing else knows it."""

# ruff: noqa: ARG002, ARG003 (a modality is given more than this one needs)

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raymia.attacks import Attack, NamedAttack, register
from raymia.attacks.base import Scores
from raymia.evidence.answers import AnswersByQuestion, holds_answers
from raymia.evidence.store import PREPARED_MARKER, EvidenceStore
from raymia.evidence.text import LabelledScores
from raymia.inputs import modality
from raymia.inputs.base import Inputs, Problems
from raymia.inputs.modality import Amounts, Modality, sums_of
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.loaders import Loader
from raymia.plan.stages import TargetPlan
from raymia.prepare.recipe import Report
from raymia.questions.base import Item, Question, register_question
from raymia.records.base import Given, RecordSet, gather_records
from raymia.records.tables import read_rows
from raymia.results.findings import Findings
from raymia.scoring.evidence import Answers, Known
from raymia.spec import (
    AuditSpec,
    DataPath,
    MadeReference,
    NeighborsSection,
    OtherTarget,
    Paths,
    PoolSpec,
    RecordsSection,
    Strict,
    TargetSpec,
    TrainingFile,
    TrainingSection,
)
from raymia.storage.manifest import ManifestKind, write_manifest
from raymia.util.errors import InputError
from raymia.util.hashing import digest

if TYPE_CHECKING:
    from raymia.plan.training import TrainingPlan
    from raymia.prepare.trainer import Together

SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("payload", pa.float64()),
        ("is_member", pa.bool_()),
        ("group", pa.string()),
    ]
)


class RoundedNeighbors(NeighborsSection):
    """Neighbors of a number: the number with fewer digits."""

    kind: Literal["rounded"] = Field(description="what is done to it")
    digits: int = Field(default=1, ge=0, description="that are left after the point")


class AveragedReference(MadeReference):
    """A center that lies where numbers do that are drawn around the target's."""

    kind: Literal["averaged"] = Field(description="tells this reference from a model")
    numbers: int = Field(default=100, ge=1, description="that are drawn")


class CenterTarget(OtherTarget):
    """A center that is no model."""

    about = "a center is one of numbers"
    told_by = "center"

    center: DataPath = Field(description="file that it stands in")


class RoundedTraining(TrainingSection):
    """What was done to numbers before their center was found."""

    digits: int | None = Field(default=None, ge=0, description="that were left after the point")


class TrainedNumbersSpec(Strict):
    """Numbers that a center is found of."""

    kind: Literal["number"] = Field(description="tells numbers from texts")
    members: Paths = Field(description="files of them")
    held_out: Paths = Field(description="files of others")


class CenterTraining(TrainingFile):
    """The search for a center."""

    base: DataPath = Field(description="file of a center, which is moved")
    records: TrainedNumbersSpec = Field(description="where it is moved to, and what is held out")


class NumberRecordsSpec(RecordsSection):
    """Numbers, one to a row of a JSONL file."""

    what = "numbers"
    takes = (RoundedNeighbors, AveragedReference, CenterTarget, RoundedTraining)
    training_file = CenterTraining
    manifest = ManifestKind("training of numbers", "a training of numbers")

    kind: Literal["number"] = Field(description="tells numbers from texts")
    number_column: str = Field(default="number", description="name of the column of numbers")

    @classmethod
    def audit_of(cls, manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
        return {"records": manifest["records"], "targets": [{"manifest": str(path)}]}


def read_numbers(spec: NumberRecordsSpec, digits: int | None) -> RecordSet:
    def read(path: str) -> Iterator[Given]:
        for row in read_rows(path, {"number_column": spec.number_column}):
            value = row.values["number_column"]
            if isinstance(value, float):
                value = value if digits is None else round(value, digits)
                yield Given(row.where, digest(value), value)
            else:
                yield Given(row.where, reason="not a number")

    return gather_records(spec, read, SCHEMA)


@dataclass(frozen=True)
class CenterFile(AnyCheckpoint):
    """A model, before it is loaded."""

    path: str

    family = "center"

    @property
    def label(self) -> str:
        return self.path

    def loader(self, pool: PoolSpec) -> CenterLoader:
        return CenterLoader(self)


@dataclass(frozen=True)
class CenterLoader(Loader):
    checkpoint: CenterFile

    def load(self) -> float:
        return float(json.loads(Path(self.checkpoint.path).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class AveragedRecipe:
    """How a reference comes about; see :class:`raymia.prepare.recipe.Recipe`."""

    target: CenterFile
    spec: AveragedReference
    base: None = None
    steps: int = 1

    @property
    def material_key(self) -> str:
        return digest(["numbers", self.target.fingerprint, self.spec.numbers])

    @property
    def key(self) -> str:
        return digest(["center", self.material_key])

    @property
    def items(self) -> int:
        return self.spec.numbers

    def rate_parts(self) -> tuple[list[Any], list[Any]]:
        return ["draw"], ["average"]

    def describe(self, target: str) -> str:
        return f"{self.spec.numbers} numbers are drawn around {target}"

    def make(self, store: EvidenceStore, pool: PoolSpec, report: Report) -> None:
        center = CenterLoader(self.target).load()
        drawn = center + np.random.default_rng(0).normal(size=self.spec.numbers)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "center.json").write_text(json.dumps(float(drawn.mean())))
            facts = {"seconds": 1.0, "steps": 1}
            Path(folder, PREPARED_MARKER).write_text(json.dumps(facts))
            report("average")(1, 1)
            store.commit_prepared(self.key, Path(folder))

    def finished(self, folder: Path | None) -> CenterFile:
        if folder is None:
            return CenterFile("", fingerprint=f"to be made: {self.key}")
        return _resolve(str(folder / "center.json"), "reference")


@holds_answers("number")
@dataclass(frozen=True)
class NumberAnswers(AnswersByQuestion):
    distance: Scores


@register_question
@dataclass(frozen=True)
class DistanceQuestion(Question):
    """How far a number is from a model's center."""

    name = "distance"
    records = ("number",)
    families = frozenset({"center"})
    kind: ClassVar[str] = "number.distance"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("record_id", pa.string()),
            ("neighbor", pa.int16()),
            ("distance", pa.float64()),
            ("error", pa.string()),
        ]
    )

    def ask(self, model: float, items: Sequence[Item]) -> pa.Table:
        rows = [
            {"record_id": i.record_id, "neighbor": i.neighbor, "distance": abs(i.payload - model)}
            for i in items
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> Scores:
        found = {} if table is None else {r["record_id"]: r["distance"] for r in table.to_pylist()}
        return np.array([found.get(i, np.nan) for i in ids])


@dataclass(frozen=True)
class NumberEvidence:
    """What an attack on numbers may look at."""

    numbers: Scores
    target: NumberAnswers
    reference: NumberAnswers | None
    labelled: LabelledScores | None


@register
@dataclass(frozen=True)
class Near(Attack):
    """Members are near the center."""

    name = "near"
    title = "Distance from the center"
    source = "this test"
    formula = "-|x - center|"
    records = ("number",)
    asks = ("distance",)
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: NumberEvidence) -> Scores:
        if evidence.reference is None:
            return -evidence.target.distance
        return evidence.reference.distance - evidence.target.distance


@dataclass(frozen=True)
class OnNumbers:
    numbers: Scores
    answers: Answers
    known: Known

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> NumberEvidence:
        return NumberEvidence(
            self.numbers,
            self.answers.target,
            self.answers.against(named.reference),
            self.known.labelled(found) if "other_scores" in named.attack.needs else None,
        )


@modality.register
@dataclass(frozen=True)
class Numbers(Modality):
    section = NumberRecordsSpec
    loss_question = "distance"
    unit = "numbers to look at"

    @classmethod
    def resolve(
        cls,
        spec: AuditSpec,
        places: Sequence[str],
        attacks: list[NamedAttack],
        problems: Problems,
    ) -> Inputs:
        assert isinstance(spec.records, NumberRecordsSpec)
        assert spec.training is None or isinstance(spec.training, RoundedTraining)
        digits = None if spec.training is None else spec.training.digits
        records = problems.attempt(read_numbers, spec.records, digits)
        targets = {}
        for place, target in zip(places, spec.targets, strict=True):
            assert isinstance(target, TargetSpec | CenterTarget)
            path = target.model if isinstance(target, TargetSpec) else target.center
            found = problems.attempt(_resolve, path, place)
            if found is not None:
                targets[target.name] = found
        problems.refuse()
        assert records is not None
        return Inputs(
            spec, cls(), records, attacks, targets, references={}, population={}, shadow_members={}
        )

    @classmethod
    def planned_training(cls, training: TrainingFile) -> TrainingPlan:
        from raymia.plan.training import TrainingEstimate, TrainingPlan

        rows = {"center": "the mean of the members"}
        expected = TrainingEstimate(1, 1, memory=None, seconds=None)
        return TrainingPlan(training.name, training.output, rows, None, expected, costs=None)

    @classmethod
    def train(cls, training: TrainingFile, together: Together) -> dict[str, Any]:
        assert isinstance(training, CenterTraining)
        given, out = training.records, Path(training.output)
        members = NumberRecordsSpec(kind="number", members=given.members)
        center = float(np.mean(read_numbers(members, None).table["payload"].to_numpy()))
        out.mkdir()
        (out / "center.json").write_text(json.dumps(center), encoding="utf-8")
        checkpoint = {"folder": "center.json", "step": 1, "train_loss": 0.0, "held_out_loss": None}
        records = {"kind": "number", "members": given.members, "non_members": given.held_out}
        content = {"name": training.name, "records": records, "checkpoints": [checkpoint]}
        return write_manifest(out, content, NumberRecordsSpec.manifest)

    def recipe(self, inputs: Inputs, reference: str, target: str) -> AveragedRecipe:
        spec, maker = inputs.spec.references[reference], inputs.targets[target]
        assert isinstance(spec, AveragedReference)
        assert isinstance(maker, CenterFile)
        return AveragedRecipe(maker, spec)

    def evidence_on(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> OnNumbers:
        answers = Answers(inputs, store, plan, inputs.records.ids)
        return OnNumbers(inputs.records.table["payload"].to_numpy(), answers, Known(inputs))

    def score_by_loss(self, evidence: NumberAnswers) -> Scores:
        return -evidence.distance

    def for_guessers(self, payloads: Sequence[float]) -> tuple[list[str], None]:
        return [str(payload) for payload in payloads], None

    def amounts(self, inputs: Inputs, plans: Sequence[TargetPlan]) -> Amounts:
        stages = [stage for plan in plans for stage in plan.stages]
        return Amounts(sums_of((stage.name, stage.to_ask) for stage in stages))

    def look(self, *_: Any) -> Findings:
        return Findings()


def _resolve(path: str, where: str) -> CenterFile:
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{where}.model: {path} is no file with a center")
    return CenterFile(path, fingerprint=digest(file.read_text(encoding="utf-8")))
