"""All that is different for texts.

What a step needs is imported where the step is taken: to be known, a modality loads no library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from raymia.inputs.modality import Amounts, Modality, register, sums_of
from raymia.spec import SelfPromptReference, TextRecordsSpec, TrainingFile, text_neighbors
from raymia.spec.target_training import TargetTrainingSpec

if TYPE_CHECKING:
    from raymia.attacks import NamedAttack
    from raymia.attacks.base import Scores
    from raymia.evidence.store import EvidenceStore
    from raymia.evidence.text import ModelEvidence
    from raymia.inputs.base import Inputs, Problems
    from raymia.metrics.summary import Metrics
    from raymia.models.causal.resolver import CausalCheckpoint
    from raymia.models.causal.training import Training
    from raymia.models.checkpoint import AnyCheckpoint
    from raymia.models.paraphrasers.resolver import Paraphraser
    from raymia.models.tokenizers import HasTokenizer
    from raymia.neighbors.makers import NeighborMaker
    from raymia.plan.stages import TargetPlan
    from raymia.plan.training import TrainingPlan
    from raymia.prepare.own_recipe import OwnRecipe
    from raymia.prepare.recipe import Recipe
    from raymia.prepare.self_prompt import SelfPromptRecipe
    from raymia.prepare.shadows import Shadow
    from raymia.prepare.trainer import Together
    from raymia.records.base import RecordSet
    from raymia.results.extraction import Extraction
    from raymia.results.findings import Findings
    from raymia.results.result import NeighborQuality
    from raymia.scoring.evidence import TargetEvidence
    from raymia.scoring.exposed import ScoreColumns
    from raymia.shift.images import Images
    from raymia.spec import AuditSpec


@register
@dataclass(frozen=True)
class Texts(Modality):
    """Texts, scored against language models.

    Attributes
    ----------
    prompts : usable prompts of each self-prompt reference, by name.
    paraphrasers : the models that make neighbors, by the names of the neighbors.
    training : how the first target was trained; None where records are plain texts.
    on_other_parts : trainings of targets that are scored on other parts of the records, one for
        each choice of parts.
    read_otherwise : references by their name and a target's, for targets that were trained
        otherwise than the first.
    recipes : how targets were trained whose manifests are known, by name.
    tokenizers : of a target by how it was trained, for the words of what was cut.
    """

    section = TextRecordsSpec
    loss_question = "tokens"
    unit = "tokens to score"

    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paraphrasers: Mapping[str, Paraphraser] = field(default_factory=dict)
    training: Training | None = None
    on_other_parts: tuple[Training, ...] = ()
    read_otherwise: Mapping[tuple[str, str], CausalCheckpoint] = field(default_factory=dict)
    recipes: Mapping[str, OwnRecipe] = field(default_factory=dict)
    tokenizers: Sequence[tuple[Training, HasTokenizer]] = ()

    @classmethod
    def settled(cls, spec: AuditSpec) -> AuditSpec:
        """With the format of the records, where they are more than texts."""
        from raymia.records.structured import format_of_records

        assert isinstance(spec.records, TextRecordsSpec)
        kind = format_of_records(spec.records)
        if kind == "text" or spec.records.format is not None:
            return spec
        return spec.model_copy(update={"records": spec.records.model_copy(update={"format": kind})})

    @classmethod
    def resolve(
        cls,
        spec: AuditSpec,
        places: Sequence[str],
        attacks: list[NamedAttack],
        problems: Problems,
    ) -> Inputs:
        from raymia.modalities.texts.inputs import resolve_texts

        assert isinstance(spec.records, TextRecordsSpec)
        return resolve_texts(spec, places, spec.records, attacks, problems)

    @classmethod
    def planned_training(cls, training: TrainingFile) -> TrainingPlan:
        from raymia.modalities.texts.planned_training import planned_training

        assert isinstance(training, TargetTrainingSpec)
        return planned_training(training)

    @classmethod
    def train(cls, training: TrainingFile, together: Together) -> dict[str, Any]:
        from raymia.modalities.texts.run_training import run_training

        assert isinstance(training, TargetTrainingSpec)
        return run_training(training, together)

    @classmethod
    def shadows(cls, training: TrainingFile, where: str) -> list[Shadow]:
        from raymia.modalities.texts.shadow_training import shadows

        del where  # its messages name the key alone
        assert isinstance(training, TargetTrainingSpec)
        return shadows(training)

    @property
    def paraphraser(self) -> Paraphraser | None:
        """The model that makes the first kind of neighbors that a model makes."""
        return next(iter(self.paraphrasers.values()), None)

    def neighbor_makers(self, inputs: Inputs) -> Mapping[str, NeighborMaker]:
        from raymia.neighbors.makers import neighbor_maker

        spec, pool = inputs.spec, inputs.spec.resources.paraphraser
        return {
            name: neighbor_maker(
                section, spec.seed, self.paraphrasers.get(name), pool, self.training, place
            )
            for place, (name, section) in enumerate(text_neighbors(spec.neighbors).items())
        }

    def recipe(self, inputs: Inputs, reference: str, target: str) -> SelfPromptRecipe:
        from raymia.models.causal.resolver import CausalCheckpoint
        from raymia.models.endpoints.writing import Server
        from raymia.prepare.self_prompt import SelfPromptRecipe

        spec, writer = inputs.spec.references[reference], inputs.targets[target]
        assert isinstance(spec, SelfPromptReference)
        base = self.reference_for(inputs, spec.base, target)
        assert isinstance(writer, CausalCheckpoint), "inputs refuse an endpoint that should write"
        assert isinstance(base, CausalCheckpoint)
        own = None if spec.says_how else self.recipes.get(target)
        by, server = spec.written_by, None
        if by is not None:
            pool, limit = inputs.spec.resources.as_run.reference, by.requests_per_minute
            at_once = min(_writing_on(by.endpoint, inputs), pool.max_actors or pool.actors)
            limits = None if limit is None else limit / at_once, by.timeout_seconds, by.retries
            server = Server(by.endpoint, by.served_model or target, *limits)
        prompts, seed = self.prompts[reference], inputs.spec.seed
        return SelfPromptRecipe(writer, base, spec, prompts, seed, own, server)

    def small(self, steps: int) -> Texts:
        return replace(self, recipes={name: own.small(steps) for name, own in self.recipes.items()})

    def reference_for(self, inputs: Inputs, name: str, target: str) -> AnyCheckpoint:
        return self.read_otherwise.get((name, target), inputs.references[name])

    def evidence_on(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> TargetEvidence:
        from raymia.modalities.texts.evidence import OnTexts

        return OnTexts(inputs, store, plan)

    def score_by_loss(self, evidence: ModelEvidence) -> Scores:
        return evidence.tokens.mean()

    def for_guessers(self, payloads: Sequence[Any]) -> tuple[list[str], Images | None]:
        return [self.text(payload) for payload in payloads], None

    def readings(self) -> Mapping[str, Modality]:
        from raymia.modalities.texts.resolve_training import IN_WORDS

        trainings = (self.training, *self.on_other_parts)
        if len(trainings) == 1:
            return {"": self}
        return {IN_WORDS[t.loss_on]: replace(self, training=t) for t in trainings if t is not None}

    def unscored(self, payloads: Sequence[Any]) -> list[str]:
        from raymia.models.causal.scored_parts import prompt_text

        found = [prompt_text(payload, self.training) for payload in payloads]
        return found if any(found) else []

    def text(self, payload: str) -> str:
        """The words of a record that are scored, as far as it has words."""
        if self.training is None:
            return payload
        if self.training.format == "tokens":
            from raymia.records.conversations import content_of

            ids = content_of(payload)["input_ids"]
            return " ".join(
                map(str, ids if self.training.limit is None else ids[self.training.kept])
            )
        found = (known for training, known in self.tokenizers if training == self.training)
        if self.training.limit is not None and (known := next(found, None)) is not None:
            from raymia.models.causal.rendering import TrainedReader
            from raymia.models.tokenizers import tokenizer_of

            return TrainedReader(tokenizer_of(known), self.training).text(payload)
        from raymia.models.causal.scored_parts import scored_text

        return scored_text(payload, self.training)

    def mean_size(self, records: RecordSet) -> float:
        """Mean characters of the records."""
        import pyarrow.compute as pc

        mean = pc.mean(pc.utf8_length(records.table["payload"])).as_py()
        return max(1.0, float(mean or 1.0))

    def amounts(self, inputs: Inputs, plans: Sequence[TargetPlan]) -> Amounts:
        """Tokens; not known of neighbors, nor for an endpoint, whose tokenizer is not."""
        from raymia.modalities.texts.tokens import TokenCounts

        counts = TokenCounts(inputs.records.table["payload"])
        found: list[tuple[str, float | None]] = []
        for plan in plans:
            each = counts.per_record(inputs.targets[plan.name])
            for stage in plan.stages:
                tokens = 0.0 if not stage.to_ask else None if each is None else stage.to_ask * each
                found.append((stage.name, None if stage.role == "neighbors" else tokens))
        return Amounts(sums_of(found), counts.unanswered(inputs.targets))

    def kept_beside(self, inputs: Inputs) -> Iterable[tuple[str, str]]:
        from raymia.models.causal.resolver import CausalCheckpoint
        from raymia.prepare.corpus import counts_file

        corpus = inputs.spec.corpus
        for checkpoint in inputs.targets.values():
            if corpus is not None and isinstance(checkpoint, CausalCheckpoint):
                yield counts_file(corpus, checkpoint), "corpus"

    def look(
        self,
        inputs: Inputs,
        store: EvidenceStore,
        plans: Sequence[TargetPlan],
        scores: ScoreColumns,
        metrics: Sequence[Metrics],
    ) -> Findings:
        from raymia.modalities.texts.shown import look_at_texts
        from raymia.results.findings import Findings

        return Findings(text_examples=look_at_texts(inputs, store, plans, scores, metrics))

    def describe_record(self, inputs: Inputs, row: int, target: str) -> Any:
        from raymia.modalities.texts.described import described

        return described(inputs, row, target)

    def facts_of_made(
        self, inputs: Inputs, store: EvidenceStore, recipe: Recipe, facts: Mapping[str, Any]
    ) -> Mapping[str, float]:
        from raymia.modalities.texts.written import facts_of_written

        return facts_of_written(self, inputs, store, recipe, facts)

    def neighbor_qualities(
        self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan
    ) -> Mapping[str, NeighborQuality]:
        from raymia.modalities.texts.neighbors import qualities

        return qualities(inputs, store, plan)

    def extraction(
        self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan
    ) -> Extraction | None:
        from raymia.modalities.texts.extraction import extracted

        return extracted(inputs, store, plan)

    def extracts(self, inputs: Inputs, target: str) -> bool:
        return any("samples" in one.attack.asks for one in inputs.attacks_on(target))


def _writing_on(endpoint: str, inputs: Inputs) -> int:
    """How many references a server may write for at the same time."""
    writing = (
        reference.written_by
        for reference in inputs.spec.references.values()
        if isinstance(reference, SelfPromptReference)
    )
    return len(inputs.targets) * sum(by is not None and by.endpoint == endpoint for by in writing)
