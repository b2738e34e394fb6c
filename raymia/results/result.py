"""What a run found and how: the content of ``metrics.json``, all the report needs but scores."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from raymia.metrics.dataset import DatasetInference
from raymia.metrics.summary import CandidateClaims, Comparison, Metrics, Result
from raymia.results.extraction import Extraction
from raymia.results.gate_result import Deletion, GateOutcome, PrivacyClaim
from raymia.results.image_result import ImageExample, MeanFluctuation, PerturbationChoice
from raymia.results.text_result import TextExample
from raymia.results.verdict_result import Verdict
from raymia.shift.result import ExcessOverBlind, ShiftCheck

SCHEMA_VERSION = 2
TRUNCATED = "longer than the model's limit: its end was not scored"
"""Reason of what is listed with dropped evidence, and was scored in part."""
LONGEST_LIST = 10_000
"""Set-aside records and dropped evidence beyond this many are counted but not listed."""


class RecordCounts(Result):
    """How many records were read."""

    members: int = Field(ge=0, description="records known to be in the training data")
    non_members: int = Field(ge=0, description="records known not to be in the training data")
    candidates: int = Field(ge=0, description="records of unknown membership; scored, not measured")
    set_aside: int = Field(ge=0, description="records that could not be used")


class SetAside(Result):
    """One record that could not be used."""

    where: str = Field(description="file and row")
    record_id: str | None = Field(description="id of the record, where it got one")
    reason: str = Field(description="why it was set aside, for a person to read")


class Dropped(Result):
    """One piece of evidence that could not be had."""

    stage: str = Field(description="name of the stage that was to give it")
    record_id: str = Field(description="id of the record")
    neighbor: int | None = Field(description="index of the neighbor; none for the whole record")
    reason: str = Field(description="why there is none, for a person to read")


class FailedTarget(Result):
    """A checkpoint under audit that cannot be judged."""

    name: str = Field(description="name of the checkpoint")
    reason: str = Field(description="why, for a person to read")


class NotRun(Result):
    """An attack that turned out not to be possible on a checkpoint while the run went on."""

    target: str = Field(description="name of the checkpoint")
    attack: str = Field(description="its label")
    reason: str = Field(description="why, for a person to read")


class StageCount(Result):
    """How much was asked of one model, or of one neighbor maker."""

    name: str = Field(description="name of the stage")
    kind: str = Field(description="what the stage does")
    key: str = Field(description="key of its evidence in the store")
    asked: int = Field(ge=0, description="queries asked in this run")
    questions: dict[str, int] = Field(default={}, description="queries asked, by question")
    stored: int = Field(ge=0, description="answers that were in the store before this run")
    seconds: float = Field(ge=0, description="wall-clock seconds")
    failed: int = Field(ge=0, description="queries that gave no answer")


class ReferenceCard(Result):
    """A reference that an attack measured the target against."""

    target: str = Field(description="name of the checkpoint under audit")
    name: str = Field(description="name of the reference, as in statistic@reference")
    kind: str = Field(description="how the reference came about")
    model: str = Field(description="the checkpoint, or the base it was tuned from")
    facts: dict[str, float | int | str] = Field(
        default={}, description="what tells a good reference, such as train and held-out loss"
    )

    @field_validator("facts", mode="before")
    @classmethod
    def _spell_non_finite(cls, facts: Any) -> Any:
        """A diverged loss is worth reporting, and JSON has no number for it."""
        if not isinstance(facts, dict):
            return facts
        return {
            name: str(fact) if isinstance(fact, float) and not math.isfinite(fact) else fact
            for name, fact in facts.items()
        }


class NeighborQuality(Result):
    """How good the neighbors of a run are; a figure is none where there is nothing to measure."""

    kind: str = Field(description="how they were made")
    made: int = Field(ge=0, description="neighbors that were made")
    not_made: int = Field(ge=0, description="neighbors that were given up")
    masked_share: float | None = Field(description="mean share of a record's units replaced")
    identical: float | None = Field(description="share of neighbors that equal their record")
    failed_attempts: float | None = Field(
        description="share of attempts with a fill that was missing or empty"
    )
    edit_distance: float | None = Field(
        description="mean words edited from record to neighbor, over the longer one's words"
    )
    reference: str | None = Field(description="whose log-probabilities the gap is of")
    log_prob_gap: float | None = Field(
        description="mean log-probability per token of a neighbor less its record's, in nats"
    )
    of_records: int | None = Field(
        default=None,
        description="how many records there are, where a sample of them was looked at; counts are "
        "of the sample",
    )


class AttackCard(Result):
    """Where an attack comes from."""

    name: str = Field(description="name of the statistic, without reference")
    title: str = Field(description="its name in the literature")
    source: str = Field(description="the paper or code it was written from")
    formula: str = Field(description="the score, in one line")
    labels: list[str] = Field(
        default=[],
        description="what the report calls it: with each setting and reference it was run with",
    )
    combines: bool = Field(default=False, description="whether it is made of the other attacks")
    learns: bool = Field(
        default=False,
        description="whether it is fitted on which of the audit's records are members; in earlier "
        "runs also where it is fitted on shadows",
    )
    fitted_on_labels: bool | None = Field(
        default=None,
        description="the same without that exception; none in runs before it was kept",
    )
    no_score: str = Field(default="", description="when a record has no score, in a sentence")


class AttackCost(Result):
    """What an attack asks about one record, were it run alone; attacks share their answers."""

    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    of_target: int = Field(ge=0, description="passes through the target per record")
    of_others: int = Field(ge=0, description="passes through references and shadows per record")


class TargetLoss(Result):
    """A target's mean loss, from the `loss` attack's scores."""

    target: str = Field(description="name of the checkpoint under audit")
    members: float | None = Field(description="on members; none without any")
    non_members: float | None = Field(description="on non-members; none without any")


class RunResult(Result):
    """One audit, finished or not."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="version of this schema")
    name: str = Field(description="name of the audit")
    verdict: Verdict | None = Field(default=None, description="what the numbers come to")
    created: str = Field(description="when the run ended, ISO 8601 in UTC")
    versions: dict[str, str] = Field(
        description="versions of raymia and of the libraries it ran on"
    )
    seed: int = Field(description="seed of every draw in the run")
    code_version: str = Field(description="version of the scoring code, part of every evidence key")
    records: RecordCounts = Field(description="how many records were read")
    set_aside: list[SetAside] = Field(default=[], description="records that could not be used")
    dropped: list[Dropped] = Field(default=[], description="evidence that could not be had")
    dropped_total: int = Field(
        ge=0, description="all dropped evidence, listed or not; default: the length of the list"
    )
    cut_total: int | None = Field(
        default=None,
        description="of these, records longer than a model's limit, which were scored in part; "
        "none in runs before they were counted",
    )
    stages: list[StageCount] = Field(default=[], description="what was asked of which model")
    references: list[ReferenceCard] = Field(default=[], description="references used")
    neighbors: NeighborQuality | None = Field(
        default=None, description="how good the neighbors are; none where no attack uses them"
    )
    neighbors_by_name: dict[str, NeighborQuality] = Field(
        default={},
        description="the same of each kind, where the audit file has neighbors by name; the first "
        "of them is in `neighbors` too",
    )
    attacks: list[AttackCard] = Field(default=[], description="attacks used")
    metrics: list[Metrics] = Field(description="one entry for each target and attack")
    group_metrics: list[Metrics] = Field(
        default=[],
        description="the same over groups, each scored by the mean of as many of its "
        "records as every group has",
    )
    distinct_metrics: list[Metrics] = Field(
        default=[],
        description="the same over distinct records, of near-copies on one side the first alone, "
        "which tests against chance and the gate count; over groups without such copies, where "
        "groups were split and share some; none where there are no copies, and in earlier runs",
    )
    split_by_group: bool = Field(
        default=False,
        description="whether groups hold all members and non-members, and none holds both, so that "
        "tests against chance count groups",
    )
    comparisons: list[Comparison] = Field(
        default=[],
        description="leading attacks against the others, and against themselves on other targets",
    )
    claims: list[CandidateClaims] = Field(
        default=[], description="what may be claimed of candidates, for each target and attack"
    )
    extractions: list[Extraction] = Field(
        default=[], description="records that targets continue word for word; none without samples"
    )
    dataset_inference: list[DatasetInference] = Field(
        default=[], description="tests of whole sets of records against the non-members"
    )
    shift: ShiftCheck | None = Field(
        default=None,
        description="whether members and non-members come from one distribution; none in runs "
        "before this was checked",
    )
    excess_over_blind: list[ExcessOverBlind] = Field(
        default=[], description="what each attack adds to the strongest blind guesser"
    )
    costs: list[AttackCost] = Field(default=[], description="what each attack asks")
    losses: list[TargetLoss] = Field(
        default=[], description="how well each target models the records; none without `loss`"
    )
    text_examples: list[TextExample] = Field(
        default=[], description="some records token by token; none for images"
    )
    image_examples: list[ImageExample] = Field(
        default=[], description="pictures of some records; none for texts"
    )
    perturbation_choices: list[PerturbationChoice] = Field(
        default=[], description="how attacks chose what makes the neighbors of images"
    )
    mean_fluctuations: list[MeanFluctuation] = Field(
        default=[], description="how the loss changes around images, on average"
    )
    failed: list[FailedTarget] = Field(
        default=[], description="checkpoints that failed; they have no scores, or empty ones"
    )
    deletions: list[Deletion] = Field(
        default=[], description="models that were trained again without the members"
    )
    privacy: list[PrivacyClaim] = Field(
        default=[], description="what trainings claim of epsilon, and what the audit shows of it"
    )
    gate: list[GateOutcome] = Field(
        default=[], description="the conditions of `fail_if` on each target; none without any"
    )
    not_run: list[NotRun] = Field(
        default=[], description="attacks that the plan had, and that the run could not run"
    )
    undecided: Literal["fail", "pass"] = Field(
        default="fail", description="whether undecided conditions close the gate"
    )
    redacted: bool = Field(
        default=False,
        description="whether the content of the examples was left out, and records and files have "
        "other names",
    )
    content_left_out: bool = Field(
        default=False,
        description="whether texts or pictures of the examples were left out, as the audit did not "
        "ask for them or is redacted",
    )
    scores_sha256: str | None = Field(
        default=None,
        description="hash of the scores.parquet that this was measured from; none in runs before "
        "it was kept",
    )
    content_sha256: str | None = Field(
        default=None,
        description="hash of all else in this file, against changes by accident: whoever means to "
        "change it can hash it again; none in runs before it was kept",
    )
    complete: bool = Field(description="whether all evidence that was asked for is there")
    problems: list[str] = Field(default=[], description="what a reader must know first")
    audit_yaml: str = Field(description="the audit file, as it was run")
    seconds: float = Field(ge=0, description="wall-clock seconds of the whole run")

    @model_validator(mode="before")
    @classmethod
    def _count_dropped(cls, data: Any) -> Any:
        if isinstance(data, dict) and "dropped_total" not in data:
            return {**data, "dropped_total": len(data.get("dropped", []))}
        return data

    @model_validator(mode="after")
    def _totals_cover_lists(self) -> RunResult:
        for what, listed, total in (
            ("set_aside", len(self.set_aside), self.records.set_aside),
            ("dropped", len(self.dropped), self.dropped_total),
        ):
            if listed > total:
                raise ValueError(f"{what} lists {listed} entries, but the total is {total}")
        return self

    @property
    def kinds_of_neighbors(self) -> dict[str, NeighborQuality]:
        """How good the neighbors are, by name; "" for one kind without a name."""
        if self.neighbors_by_name or self.neighbors is None:
            return self.neighbors_by_name
        return {"": self.neighbors}

    @property
    def succeeded(self) -> bool:
        """Whether everything that was asked for is there, and of every checkpoint."""
        return self.complete and not self.failed

    def shortened(self) -> RunResult:
        """Cut the two lists that can be as long as the audit; the totals stay."""
        return self.model_copy(
            update={
                "set_aside": self.set_aside[:LONGEST_LIST],
                "dropped": self.dropped[:LONGEST_LIST],
            }
        )
