"""The audit file as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from raymia.spec.base import Name, Share, Strict
from raymia.spec.conditions import parse_condition
from raymia.spec.costs import CostsSpec
from raymia.spec.images import ImageNeighbors, ImageRecordsSpec, SelfGeneratedReference
from raymia.spec.models import AnyTarget, EndpointTarget, ModelSpec, SamplesTarget, TargetSetSpec
from raymia.spec.neighbors import NeighborsSpec
from raymia.spec.probes import ProbesSpec
from raymia.spec.records import CorpusSpec, RecordsSpec
from raymia.spec.references import ModelReference, ReferenceSpec, SelfPromptReference
from raymia.spec.report import ReportSpec
from raymia.spec.shift import ShiftSpec
from raymia.spec.sweep import SweepSpec


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
        description="padded tokens per forward pass; halved when memory is short",
    )
    batch_images: int = Field(
        default=64, ge=1, description="images per forward pass; halved when memory is short"
    )

    @model_validator(mode="after")
    def _grows(self) -> PoolSpec:
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError(f"max_actors is {self.max_actors}, less than actors {self.actors}")
        return self


class ResourcesSpec(Strict):
    """The pools of a run."""

    paraphraser: PoolSpec = Field(default=PoolSpec(), description="the pool that makes neighbors")
    target: PoolSpec = Field(default=PoolSpec(), description="the pool that holds a target")
    reference: PoolSpec = Field(
        default=PoolSpec(), description="the pool that holds a reference, and makes one"
    )
    block_records: int = Field(
        default=32, ge=1, description="records per block: what is asked again after a kill, at most"
    )
    cpus: int | None = Field(default=None, ge=1, description="CPUs of a Ray started for this audit")
    wait_minutes: float = Field(
        default=30,
        ge=0,
        description="how long to wait for machines to come up; then the run goes on with those "
        "that came, or ends where a pool has none",
    )


class MetricsSpec(Strict):
    """What is measured where both members and non-members are given."""

    fprs: list[Share] = Field(
        default=[0.1, 0.01, 0.001], description="false-positive rates for TPR"
    )
    confidence: Share = Field(default=0.95, description="nominal level of every interval")
    resamples: int = Field(
        default=2_000, ge=100, description="bootstrap resamples of TPR on all records"
    )
    priors: list[Share] = Field(
        default=[0.5, 0.1, 0.01],
        description="shares of members for which it is said how many of those accused are members",
    )
    delta: float = Field(
        default=1e-5, ge=0, lt=1, description="delta of the lower bound of epsilon"
    )
    inclusion: Literal["randomized"] | None = Field(
        default=None,
        description="`randomized` says that a fair coin of its own decided for each member and "
        "non-member whether it was trained on, one coin for each group where there are groups; "
        "epsilon is then bounded from this one run as well",
    )
    false_discovery_rates: list[Share] = Field(
        default=[0.05, 0.2],
        description="expected shares of false claims at which candidates are counted as members",
    )


class AttackSpec(Strict):
    """One attack, by name, with its own parameters where the defaults do not serve."""

    attack: str = Field(
        description="name from `raymia attacks`, `name@reference` for one reference"
    )
    name: Name | None = Field(default=None, description="what the report calls it")
    parameters: dict[str, float | int | str | bool] = Field(
        default={}, description="the attack's own, as `{share: 0.1}` for min_k"
    )


def _is_condition(text: str) -> str:
    parse_condition(text)
    return text


FailIf = Annotated[str, AfterValidator(_is_condition)]


class AuditSpec(Strict):
    """One audit: records, checkpoints, references, neighbors, attacks."""

    name: Name = Field(default="audit", description="name of the audit, shown in the report")
    output: str = Field(default="raymia-run", description="folder of report, scores and metrics")
    store: str = Field(default="raymia-store", description="folder of the evidence store")
    seed: int = Field(default=0, ge=0, description="every draw is a function of it")
    records: RecordsSpec = Field(description="the records that are scored")
    targets: list[AnyTarget] = Field(min_length=1, description="the checkpoints under audit")
    references: dict[Name, ReferenceSpec] = Field(
        default={}, description="models to compare the targets with, by a name of your choosing"
    )
    neighbors: NeighborsSpec | None = Field(
        default=None, description="needed by attacks that compare a record with its neighbors"
    )
    probes: ProbesSpec = Field(
        default=ProbesSpec(), description="how models are asked beyond one pass over the record"
    )
    corpus: CorpusSpec | None = Field(default=None, description="for `dc_pdd`")
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
    fail_if: list[FailIf] = Field(
        default=[],
        description="the release gate: `[TARGET:]ATTACK.METRIC > NUMBER`, as in "
        "`any.tpr@1%fpr > 0.05`; see docs/reading-the-report.md",
    )
    report: ReportSpec = Field(default=ReportSpec(), description="what the report holds")

    @field_validator("records", mode="before")
    @classmethod
    def _texts_by_default(cls, value: Any) -> Any:
        return {"kind": "text", **value} if isinstance(value, dict) else value

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
        return {"kind": "mask_fill", **value} if isinstance(value, dict) else value

    @field_validator("attacks", mode="before")
    @classmethod
    def _names_are_attacks(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"attack": item} if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _names_agree(self) -> AuditSpec:
        names = [t.name for t in self.targets if not isinstance(t, TargetSetSpec)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"target names must be unique; given more than once: {', '.join(twice)}"
            )
        for name, reference in self.references.items():
            if (
                isinstance(reference, SelfPromptReference | SelfGeneratedReference)
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
        images = isinstance(self.records, ImageRecordsSpec)
        what = "images" if images else "texts"
        if self.neighbors is not None and isinstance(self.neighbors, ImageNeighbors) != images:
            raise ValueError(f"neighbors of kind {self.neighbors.kind} are none of {what}")
        for name, reference in self.references.items():
            other = SelfPromptReference if images else SelfGeneratedReference
            if isinstance(reference, other):
                raise ValueError(
                    f"references.{name} is of kind {reference.kind}, and the records are {what}"
                )
        if images:
            _refuse_keys_of_texts(self)
        elif any(isinstance(target, SamplesTarget) for target in self.targets):
            raise ValueError("a target of samples is one of images, and the records are texts")
        return self


TEXT_KEYS = (
    "adapter",
    "adapters",
    "gguf_file",
    "max_tokens",
    "long_texts",
    "stride",
    "trust_remote_code",
)
"""Keys of a model that mean nothing for image models."""


def _refuse_keys_of_texts(spec: AuditSpec) -> None:
    models: dict[str, Any] = {f"targets[{n}]": t for n, t in enumerate(spec.targets)}
    models |= {f"references.{name}": r for name, r in spec.references.items()}
    for where, model in models.items():
        if isinstance(model, EndpointTarget):
            raise ValueError(
                f"{where}: an endpoint answers about texts, and the records are images"
            )
        given = [key for key in TEXT_KEYS if key in model.model_fields_set]
        if isinstance(model, ModelSpec) and given:
            raise ValueError(
                f"{where}.{given[0]} is for language models, and the records are images"
            )
    if spec.corpus is not None:
        raise ValueError("corpus is for texts, and the records are images")
