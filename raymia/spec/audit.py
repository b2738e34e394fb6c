"""The audit file as a whole."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from raymia.spec.base import DataPath, EngineKind, Name, OneOrMore, Place, Share, Strict
from raymia.spec.conditions import parse_condition
from raymia.spec.how_trained import TRAININGS, AnyTraining, with_trainings
from raymia.spec.kinds import (
    Kinds,
    MadeReference,
    NeighborsSection,
    OtherTarget,
    RecordsSection,
    TrainingSection,
    tags_of,
)
from raymia.spec.models import TARGETS, AnyTarget, ModelSpec, TargetSetSpec, TargetSpec
from raymia.spec.neighbors import NEIGHBORS, with_kinds
from raymia.spec.prices import CostsSpec
from raymia.spec.probes import ProbesSpec
from raymia.spec.records import DEFAULT_RECORDS, RECORDS, CorpusSpec
from raymia.spec.references import REFERENCES, AnyReference, ModelReference
from raymia.spec.report import ReportSpec
from raymia.spec.shift import ShiftSpec
from raymia.spec.sweep import SweepSpec
from raymia.util.plugins import is_file, is_in, on_forget

DEFAULT_ENGINE: EngineKind = "ray"


GPU_TYPE_LABEL = "ray.io/accelerator-type"
"""Ray's own label of the machines with a GPU type."""


class PoolSpec(Strict):
    """An actor pool: how many workers hold the model, and where they may run."""

    RENAMED = {"most_actors": "max_actors"}  # noqa: RUF012

    actors: int = Field(default=1, ge=1, description="workers, each with the model in memory")
    max_actors: int | None = Field(
        default=None,
        ge=1,
        description="lets the pool grow from `actors` to so many, and shrink again; default: fixed",
    )
    cpus: float | None = Field(default=None, ge=0, description="per actor; default: a fair share")
    gpus: float = Field(default=0, ge=0, description="per actor; fractions share a GPU")
    accelerator_type: str | None = Field(default=None, description="Ray's name of a GPU type")
    resources: dict[str, float] = Field(default={}, description="custom Ray resources per actor")
    labels: dict[str, str] = Field(
        default={},
        description="Ray's label selector: the machines it may run on, as `{raymia/pool: target}`",
    )
    batch_tokens: int = Field(
        default=8_192,
        ge=16,
        description="tokens per forward pass, with padding; halved when memory is short",
    )
    batch_images: int = Field(
        default=64, ge=1, description="images per forward pass; halved when memory is short"
    )

    @model_validator(mode="after")
    def _grows(self) -> PoolSpec:
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError(f"max_actors is {self.max_actors}, less than actors {self.actors}")
        return self

    @property
    def without_gpus(self) -> PoolSpec:
        """The same for actors that hold no model. Labels stay but for Ray's own of GPU types."""
        labels = {name: value for name, value in self.labels.items() if name != GPU_TYPE_LABEL}
        return self.model_copy(update={"gpus": 0, "accelerator_type": None, "labels": labels})


class ResourcesSpec(Strict):
    """Where the work of a run is done, and the pools of a run on Ray."""

    engine: EngineKind = Field(
        default=DEFAULT_ENGINE,
        description="`local` does everything in the process itself, one model after another and "
        "without Ray: pools have one worker, and machines are not chosen",
    )
    paraphraser: PoolSpec = Field(default=PoolSpec(), description="the pool that makes neighbors")
    target: PoolSpec = Field(default=PoolSpec(), description="the pool that holds a target")
    reference: PoolSpec = Field(
        default=PoolSpec(), description="the pool that holds a reference, and makes one"
    )
    block_records: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="records per block; after a kill at most two blocks of each worker are asked "
        "again. `auto` makes blocks of 2 to 10 seconds, by how long models like these were "
        "measured to take: by earlier runs, by `raymia plan --calibrate`, or by the first blocks, "
        "which have 32 records, or fewer where a pool would be asked more than 128 questions. "
        "Where that would be more than 4,000 blocks, it makes larger ones; and where a pool has "
        "more than 50 models times questions, those of 0.2 seconds for each, up to 2 minutes, as "
        "each of them leaves a file of each block",
    )
    cpus: int | None = Field(default=None, ge=1, description="CPUs of a Ray started for this audit")
    wait_minutes: float = Field(
        default=30,
        ge=0,
        description="how long to wait for machines to come up; then the run goes on with those "
        "that came, or ends where a pool has none",
    )

    @property
    def as_run(self) -> ResourcesSpec:
        """The same as the engine has it: the pools of `local` have one worker."""
        if self.engine != "local":
            return self
        one = {"actors": 1, "max_actors": None}
        pools = {"paraphraser": self.paraphraser, "target": self.target,
                 "reference": self.reference}  # fmt: skip
        return self.model_copy(update={n: p.model_copy(update=one) for n, p in pools.items()})


def _each_once(rates: list[float]) -> list[float]:
    twice = [f"{rate:g}" for rate, times in Counter(rates).items() if times > 1]
    if twice:
        raise ValueError(f"each rate once; given more than once: {', '.join(twice)}")
    return rates


Rates = Annotated[list[Share], AfterValidator(_each_once)]


class MetricsSpec(Strict):
    """What is measured where both members and non-members are given."""

    fprs: Rates = Field(default=[0.1, 0.01, 0.001], description="false-positive rates for TPR")
    confidence: Share = Field(default=0.95, description="nominal level of every interval")
    resamples: int = Field(
        default=2_000,
        ge=100,
        le=1_000_000,
        description="not used any more; earlier audit files have it",
    )
    priors: Rates = Field(
        default=[0.5, 0.1, 0.01],
        description="shares of members for which it is said how many of those accused are members",
    )
    delta: float = Field(
        default=1e-5, ge=0, lt=1, description="delta of the lower bound of epsilon"
    )
    inclusion: Literal["randomized"] | None = Field(
        default=None,
        description="`randomized` says that a fair coin was tossed for each record, or for each "
        "group where there are groups, to decide whether it was trained on; epsilon is then "
        "bounded from this one run as well",
    )
    false_discovery_rates: Rates = Field(
        default=[0.05, 0.2],
        description="expected shares of false claims at which candidates are counted as members",
    )


class AttackSpec(Strict):
    """One attack, by name, with its own parameters where the defaults do not serve."""

    attack: str = Field(
        description="name from `raymia attacks`, `name@reference` for one reference, "
        "`name@reference+neighbors` for one kind of neighbors where they have names"
    )
    name: Name | None = Field(default=None, description="what the report calls it")
    parameters: dict[str, float | int | str | bool] = Field(
        default={}, description="the attack's own, as `{share: 0.1}` for min_k"
    )


def _is_condition(text: str) -> str:
    parse_condition(text)
    return text


FailIf = Annotated[str, AfterValidator(_is_condition)]
Plugin = Annotated[str, Place(lambda name: "data" if is_file(name) else None)]


class AuditSpec(Strict):
    """One audit: records, checkpoints, references, neighbors, attacks."""

    name: Name = Field(default="audit", description="name of the audit, shown in the report")
    output: DataPath = Field(
        default="raymia-run", description="folder of report, scores and metrics"
    )
    store: DataPath = Field(default="raymia-store", description="folder of the evidence store")
    seed: int = Field(default=0, ge=0, description="every draw is a function of it")
    from_training: str | None = Field(
        default=None,
        description="`manifest.json` of `raymia train`, or its folder: records, targets, "
        "`training` and the reference `base` are those of the training, where this file does not "
        "say otherwise",
    )
    records: Annotated[RecordsSection, RECORDS] = Field(description="the records that are scored")
    targets: list[Annotated[AnyTarget, TARGETS]] = Field(
        min_length=1, description="the checkpoints under audit"
    )
    training: AnyTraining | None = Field(
        default=None, description="how the targets were trained, of those that do not say it"
    )
    references: dict[Name, Annotated[AnyReference, REFERENCES]] = Field(
        default={}, description="models to compare the targets with, by a name of your choosing"
    )
    neighbors: Annotated[NeighborsSection, NEIGHBORS] | None = Field(
        default=None,
        description="needed by attacks that compare a record with its neighbors; of texts also "
        "several sections, each under a name of your choosing",
    )
    probes: ProbesSpec = Field(
        default=ProbesSpec(), description="how models are asked beyond one pass over the record"
    )
    corpus: CorpusSpec | None = Field(default=None, description="for `dc_pdd`")
    plugins: OneOrMore[Plugin] = Field(
        default=[],
        description="files and modules that register attacks and questions of your own, which run "
        "where `attacks` names them; see CONTRIBUTING.md",
    )
    attacks: list[AttackSpec] | None = Field(
        default=None,
        min_length=1,
        description="default: every attack that this file gives the means for",
    )
    resources: ResourcesSpec = Field(
        default=ResourcesSpec(), description="pools, and where they may run"
    )
    costs: CostsSpec | None = Field(default=None, description="prices, for `raymia plan`")
    metrics: MetricsSpec = Field(default=MetricsSpec(), description="what is measured")
    sweep: SweepSpec | None = Field(default=None, description="for `raymia sweep`")
    shift: ShiftSpec = Field(
        default=ShiftSpec(),
        description="whether members and non-members come from one distribution",
    )
    undecided: Literal["fail", "pass"] = Field(
        default="fail",
        description="whether the release gate is closed (`fail`) where a condition is undecided",
    )
    fail_if: list[FailIf] = Field(
        default=[],
        description="the release gate: `[TARGET:]ATTACK.METRIC > NUMBER`, as in "
        "`any.tpr@1%fpr > 0.05`; see docs/reading-the-report.md",
    )
    report: ReportSpec = Field(default=ReportSpec(), description="what the report holds")

    @model_validator(mode="before")
    @classmethod
    def _trainings_are_of_the_records(cls, value: Any) -> Any:
        return with_trainings(value, RECORDS)

    @field_validator("records", mode="before")
    @classmethod
    def _texts_by_default(cls, value: Any) -> Any:
        return {"kind": DEFAULT_RECORDS, **value} if isinstance(value, dict) else value

    @field_validator("references", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": "model", **spec} if isinstance(spec, dict) else spec
            for name, spec in value.items()
        }

    @field_validator("neighbors", mode="before")
    @classmethod
    def _mask_fill_by_default(cls, value: Any) -> Any:
        return with_kinds(value)

    @field_validator("attacks", mode="before")
    @classmethod
    def _names_are_attacks(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"attack": item} if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _names_agree(self) -> AuditSpec:
        names = [t.name for t in self.targets if not isinstance(t, TargetSetSpec)]
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        if twice:
            raise ValueError(
                f"target names must be unique; given more than once: {', '.join(twice)}"
            )
        for name, reference in self.references.items():
            if (
                isinstance(reference, MadeReference)
                and reference.base is not None
                and not isinstance(self.references.get(reference.base), ModelReference)
            ):
                raise ValueError(
                    f"references.{name}.base is {reference.base!r}, which is not a reference of "
                    "kind model; add it under references, as in "
                    f"`{reference.base}: {{model: PATH}}`"
                )
        return self

    @model_validator(mode="after")
    def _sections_fit_the_records(self) -> AuditSpec:
        fitting, what = self.records.takes, self.records.what
        if self.neighbors is not None and not isinstance(self.neighbors, fitting):
            raise ValueError(f"neighbors of kind {self.neighbors.kind} are none of {what}")
        for name, reference in self.references.items():
            if isinstance(reference, MadeReference) and not isinstance(reference, fitting):
                raise ValueError(
                    f"references.{name} is of kind {reference.kind}, and the records are {what}"
                )
        for number, target in enumerate(self.targets):
            if isinstance(target, OtherTarget) and not isinstance(target, fitting):
                raise ValueError(f"targets[{number}]: {target.about}, and the records are {what}")
        self._models_fit_the_records()
        if self.corpus is not None and not isinstance(self.corpus, fitting):
            raise ValueError(f"corpus is for texts, and the records are {what}")
        said = {"training": self.training}
        said |= {
            f"targets[{n}].training": getattr(t, "training", None)
            for n, t in enumerate(self.targets)
        }
        for where, training in said.items():
            if training is not None and not isinstance(training, fitting):
                raise ValueError(f"{where} is none of {what}, which the records are")
        return self

    def _models_fit_the_records(self) -> None:
        models: dict[str, Any] = {f"targets[{n}]": t for n, t in enumerate(self.targets)}
        models |= {f"references.{name}": r for name, r in self.references.items()}
        for where, model in models.items():
            if not isinstance(model, ModelSpec):
                continue
            fields, keys = type(model).model_fields, self.records.not_for_models
            given = [key for key in keys if getattr(model, key) != fields[key].default]
            if given:
                raise ValueError(
                    f"{where}.{given[0]} means nothing for models of {self.records.what}, which "
                    "the records are"
                )


def with_engine(spec: AuditSpec, engine: EngineKind | None) -> AuditSpec:
    """The same audit on another engine; None leaves the audit file's."""
    if engine is None:
        return spec
    resources = spec.resources.model_copy(update={"engine": engine})
    return spec.model_copy(update={"resources": resources})


TAKEN: dict[type[Strict], Kinds[Any]] = {
    NeighborsSection: NEIGHBORS,
    MadeReference: REFERENCES,
    TrainingSection: TRAININGS,
    OtherTarget: TARGETS,
}
"""Where the sections are known that a kind of records takes, by what they are subclasses of."""


def learn_kind(section: type[RecordsSection]) -> str:
    """Make a kind of records known to audit files, with the other sections that it takes.

    Returns
    -------
    What the key ``kind`` of the section is.
    """
    (kind,) = tags_of(section)
    brought: list[tuple[Kinds[Any], type[Strict]]] = [(RECORDS, section)]
    brought += [(TAKEN[base], s) for s in section.takes for base in TAKEN if issubclass(s, base)]
    new = [(known, one) for known, one in brought if one not in known.sections]
    for known, one in new:
        known.add(one)
    if new:
        _rebuild()
    return kind


def _rebuild() -> None:
    """Have the models that hold sections of several kinds know those that there are now."""
    for model in (TargetSpec, TargetSetSpec, AuditSpec):
        model.model_rebuild(force=True)


@on_forget
def _forget(module: str) -> None:
    for known in (RECORDS, *TAKEN.values()):
        known.sections = [section for section in known.sections if not is_in(section, module)]
    _rebuild()
