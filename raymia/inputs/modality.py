"""What differs between kinds of records; all else works through this page.

A kind of records is a subclass of :class:`Modality`, registered under the ``kind`` that audit files
call it by. Those that come with raymia are the folders of :mod:`raymia.modalities`.
"""

# ruff: noqa: ARG002, ARG003 (what a hook does by default needs none of what it is given)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from raymia.spec import RecordsSection, TrainingFile, learn_kind
from raymia.util.errors import InputError
from raymia.util.plugins import Portable, is_in, note_registered, on_forget, origin, unwritten

if TYPE_CHECKING:
    from pathlib import Path

    from raymia.attacks import Attack, NamedAttack
    from raymia.attacks.base import Scores
    from raymia.evidence.store import EvidenceStore
    from raymia.inputs.base import Inputs, Problems
    from raymia.metrics.summary import Metrics
    from raymia.models.checkpoint import AnyCheckpoint
    from raymia.neighbors.makers import NeighborMaker
    from raymia.plan.stages import TargetPlan
    from raymia.plan.training import TrainingPlan
    from raymia.prepare.recipe import Recipe
    from raymia.prepare.shadows import Shadow
    from raymia.prepare.trainer import Together
    from raymia.questions.base import Question
    from raymia.records.base import RecordSet
    from raymia.results.extraction import Extraction
    from raymia.results.findings import Findings
    from raymia.results.result import NeighborQuality
    from raymia.scoring.evidence import TargetEvidence
    from raymia.scoring.exposed import ScoreColumns
    from raymia.shift.images import AnyImages
    from raymia.spec import AuditSpec


class Amounts(NamedTuple):
    """What is left to do.

    Attributes
    ----------
    of_stages : in the modality's ``unit``, by stage; None where it is not known. Of a stage that
        targets share it is what all of them have left.
    noted : what was seen while it was counted, in sentences.
    """

    of_stages: Mapping[str, float | None]
    noted: Sequence[str] = ()


def sums_of(amounts: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    """Amounts put together by stage; None where one of a stage is not known."""
    found: dict[str, float | None] = {}
    for stage, amount in amounts:
        before = found.get(stage, 0.0)
        found[stage] = None if before is None or amount is None else before + amount
    return found


class Modality(Portable, ABC):
    """A kind of records, with all that differs from other kinds.

    A subclass is a frozen dataclass whose fields are what was resolved for one audit of its kind.
    It is sent to workers with the inputs of the audit.

    Class attributes
    ----------------
    section : the section ``records`` of the audit file.
    loss_question : the question that the loss on the record itself is read from.
    unit : of a stage's amount of work, for a table's heading.
    libraries : distributions whose versions belong in a report, beside those of every report.
    """

    section: ClassVar[type[RecordsSection]]
    loss_question: ClassVar[str]
    unit: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()

    # What the audit file names.

    @classmethod
    def settled(cls, spec: AuditSpec) -> AuditSpec:
        """The audit file with what it leaves for its records to say, before attacks are chosen.

        Raises
        ------
        InputError
            If they leave it open, too.
        """
        return spec

    @classmethod
    @abstractmethod
    def resolve(
        cls,
        spec: AuditSpec,
        places: Sequence[str],
        attacks: list[NamedAttack],
        problems: Problems,
    ) -> Inputs:
        """Read the records, and find and check all models, before one is loaded.

        Parameters
        ----------
        places : of the targets in the audit file, for messages.
        problems : what was found wrong already, to which the rest is added.

        Raises
        ------
        InputError
            With every problem found.
        """

    @classmethod
    def named_in(cls, section: RecordsSection, path: str) -> Iterable[str]:
        """Local files that a file of records names by relative paths, beside what it holds itself.

        Parameters
        ----------
        path : of a local file or folder that the audit file names, be it of records or not.

        Raises
        ------
        InputError
            If it cannot be read so.
        """
        return ()

    # What is trained on members that are known, where the section has a `training_file`.

    @classmethod
    def planned_training(cls, training: TrainingFile) -> TrainingPlan:
        """What a training file would train, and what it takes; loads no model, and writes nothing.

        Raises
        ------
        InputError
            With every problem found.
        """
        raise NotImplementedError(f"{cls.__name__} should say what a training is")

    @classmethod
    def train(cls, training: TrainingFile, together: Together) -> dict[str, Any]:
        """Train, and write records, checkpoints and manifest; what is finished is left as it is.

        Parameters
        ----------
        together : has several workers train one model, where it can be trained so.

        Returns
        -------
        The manifest.

        Raises
        ------
        InputError
            For anything wrong in what was given, before weights are loaded.
        """
        raise NotImplementedError(f"{cls.__name__} should say how a model is trained")

    @classmethod
    def shadows(cls, training: TrainingFile, where: str) -> list[Shadow]:
        """The shadows that a training file asks for, to be trained.

        Parameters
        ----------
        where : stands before messages.

        Raises
        ------
        InputError
            If it asks for none, or for anything wrong in it.
        """
        raise InputError(f"{where}: records.kind: no shadows are trained on {cls.section.what}")

    @classmethod
    def shadows_of(cls, manifest: Path, count: int) -> list[Shadow]:
        """Shadows of a target that was trained as its manifest says, to be trained.

        Raises
        ------
        InputError
            If the manifest does not say all that they take.
        """
        raise InputError(
            f"{manifest}: it is of a training of {cls.section.what}; give its training file, with "
            "`shadows: {count: 8}`"
        )

    # What models are asked.

    def questions(
        self,
        inputs: Inputs,
        asks: Iterable[str],
        checkpoint: AnyCheckpoint,
        neighbors: Mapping[str, tuple[int, str, int]],
    ) -> list[tuple[str, Question]]:
        """What a model has to be asked, each question with its label, in order.

        Parameters
        ----------
        asks : questions of the attacks.
        neighbors : see :class:`raymia.questions.base.Setup`.
        """
        from raymia.questions.base import Setup
        from raymia.questions.registry import questions_for

        setup = Setup(
            inputs.spec,
            checkpoint.family,
            inputs.population,
            inputs.known_members,
            neighbors,
            getattr(checkpoint, "latent_shape", None),
        )
        return questions_for(inputs.spec.records.kind, setup, asks)

    def neighbor_makers(self, inputs: Inputs) -> Mapping[str, NeighborMaker]:
        """What makes the neighbors that the audit file asks for, by their names there, "" for one
        kind without a name; nothing where models make them."""
        return {}

    def recipe(self, inputs: Inputs, reference: str, target: str) -> Recipe:
        """What a reference is made from that a target has a part in."""
        raise NotImplementedError(f"no reference is made for {self.section.what}")

    def small(self, steps: int) -> Modality:
        """The same where it is only to be seen how long it takes to make references: what it knows
        itself of how they are trained is cut to so many optimizer steps."""
        return self

    def reference_for(self, inputs: Inputs, name: str, target: str) -> AnyCheckpoint:
        """A reference that exists already, as it is asked about the records of a target's audit."""
        return inputs.references[name]

    # What attacks see.

    @abstractmethod
    def evidence_on(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> TargetEvidence:
        """Read what is stored on one target."""

    @abstractmethod
    def score_by_loss(self, evidence: Any) -> Scores:
        """The loss under one model as a score, [records]: higher where the loss is lower.

        Parameters
        ----------
        evidence : as attacks read what a model answered, answers to the ``loss_question`` among it.
        """

    @abstractmethod
    def for_guessers(self, payloads: Sequence[Any]) -> tuple[list[str], AnyImages | None]:
        """What guessers that see no target look at: a text of each record, and the images.

        Parameters
        ----------
        payloads : each may be read when it is looked at, from a table larger than the memory.
        """

    def readings(self) -> Mapping[str, Modality]:
        """This kind of records, once for each choice of parts that targets are scored on, by a name
        of the choice; once alone where all are scored on the same."""
        return {"": self}

    def unscored(self, payloads: Sequence[Any]) -> list[str]:
        """What stands in each record and is not scored; empty where there is no such thing."""
        return []

    def tells_labels(self, spec: AuditSpec, attack: Attack) -> bool:
        """Whether an attack is told which records are members."""
        return "labels" in attack.needs

    # What it costs.

    def mean_size(self, records: RecordSet) -> float:
        """What the time for a question is in proportion to; 1 where records are of one size."""
        return 1.0

    @abstractmethod
    def amounts(self, inputs: Inputs, plans: Sequence[TargetPlan]) -> Amounts:
        """What is left to do."""

    def kept_beside(self, inputs: Inputs) -> Iterable[tuple[str, str]]:
        """What an audit keeps in the store beside answers and references: folder, and what for."""
        return ()

    # What the report shows.

    @abstractmethod
    def look(
        self,
        inputs: Inputs,
        store: EvidenceStore,
        plans: Sequence[TargetPlan],
        scores: ScoreColumns,
        metrics: Sequence[Metrics],
    ) -> Findings:
        """Show the records that an auditor looks at first, on the most exposed targets.

        What it shows beyond the fields that :class:`Findings` has takes a field there and one of
        the same name in the result, a part of the report's page, and a line in
        :mod:`raymia.results.redaction` where it is of a record's content.

        Parameters
        ----------
        plans : after the run, of targets that have scores.
        scores : of all targets.
        metrics : of these scores.
        """

    def describe_record(self, inputs: Inputs, row: int, target: str) -> Any:
        """A record as a target reads it, for the terminal."""
        raise InputError(f"only texts are shown in the terminal, and these are {self.section.what}")

    def facts_of_made(
        self, inputs: Inputs, store: EvidenceStore, recipe: Recipe, facts: Mapping[str, Any]
    ) -> Mapping[str, float]:
        """What a reader of the report should know of what a target generated for a reference.

        Parameters
        ----------
        facts : what its training said.
        """
        return {}

    def neighbor_qualities(
        self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan
    ) -> Mapping[str, NeighborQuality]:
        """How good the neighbors are that were made for a target, by their names."""
        return {}

    def extraction(
        self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan
    ) -> Extraction | None:
        """How many records a target writes on word for word; None where it was not let write."""
        return None

    def extracts(self, inputs: Inputs, target: str) -> bool:
        """Whether the audit lets a target write what :meth:`extraction` is counted in."""
        return type(self).extraction is not Modality.extraction


Kind = TypeVar("Kind", bound=type[Modality])
_KNOWN: dict[str, type[Modality]] = {}


def register(modality: Kind) -> Kind:
    """Make a kind of records known, to audit files too; a decorator."""
    if missing := unwritten(modality):
        raise ValueError(
            f"the kind of records {modality.__name__} lacks {missing}, which it has to define"
        )
    kind = learn_kind(modality.section)
    if kind in _KNOWN:
        raise ValueError(
            f"two modalities are of records of kind {kind!r}: one of {origin(_KNOWN[kind])}, and "
            f"one of {origin(modality)}; rename one"
        )
    _KNOWN[kind] = modality
    note_registered(modality)
    return modality


@on_forget
def _forget(module: str) -> None:
    for kind in [kind for kind, modality in _KNOWN.items() if is_in(modality, module)]:
        del _KNOWN[kind]


def modality_of(kind: str) -> type[Modality]:
    """The modality of a kind of records."""
    return _KNOWN[kind]
