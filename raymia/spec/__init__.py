"""The audit file as typed models: one object feeds the YAML, the command line and the docs.

Unknown keys are refused. Relative paths in an audit file are relative to the file's folder;
:func:`raymia.spec.file.load_spec` makes them absolute.
"""

from raymia.spec.audit import (
    DEFAULT_ENGINE,
    AttackSpec,
    AuditSpec,
    EngineKind,
    MetricsSpec,
    PoolSpec,
    ResourcesSpec,
    learn_kind,
    with_engine,
)
from raymia.spec.base import Name, Paths, Share, Strict, merge_preset
from raymia.spec.images import (
    AutoencoderTrainingSpec,
    CaptionsSpec,
    DenoisingSpec,
    DescentSpec,
    DiffusionTrainingSpec,
    ElboSpec,
    Fit,
    ImageNeighbors,
    InversionSpec,
    Perturbation,
    SelfGeneratedReference,
    TimestepsSpec,
)
from raymia.spec.kinds import MadeReference, NeighborsSection, RecordsSection
from raymia.spec.models import (
    AnyTarget,
    DType,
    EndpointTarget,
    LongTexts,
    ModelSpec,
    Quantization,
    SamplesTarget,
    TargetSetSpec,
    TargetSpec,
)
from raymia.spec.neighbors import (
    MASK_FILL_PRESETS,
    T5_SPANS,
    InfillNeighbors,
    MaskFillNeighbors,
    SubstituteNeighbors,
    TextNeighbors,
)
from raymia.spec.prices import CostsSpec
from raymia.spec.probes import (
    GradientSpec,
    NoiseSpec,
    PrefixSpec,
    ProbesSpec,
    SamplesSpec,
    SwapsSpec,
)
from raymia.spec.records import CorpusSpec, ImageRecordsSpec, TextRecordsSpec
from raymia.spec.references import (
    SELF_PROMPT_PRESETS,
    AnyReference,
    FineTuneSpec,
    LoraSpec,
    ModelReference,
    SelfPromptReference,
    ShadowReference,
)
from raymia.spec.report import ReportSpec
from raymia.spec.shift import ShiftSpec
from raymia.spec.sweep import ObjectiveSpec, SpaceSpec, SweepSpec, Value

__all__ = [
    "DEFAULT_ENGINE",
    "MASK_FILL_PRESETS",
    "SELF_PROMPT_PRESETS",
    "T5_SPANS",
    "AnyReference",
    "AnyTarget",
    "AttackSpec",
    "AuditSpec",
    "AutoencoderTrainingSpec",
    "CaptionsSpec",
    "CorpusSpec",
    "CostsSpec",
    "DType",
    "DenoisingSpec",
    "DescentSpec",
    "DiffusionTrainingSpec",
    "ElboSpec",
    "EndpointTarget",
    "EngineKind",
    "FineTuneSpec",
    "Fit",
    "GradientSpec",
    "ImageNeighbors",
    "ImageRecordsSpec",
    "InfillNeighbors",
    "InversionSpec",
    "LongTexts",
    "LoraSpec",
    "MadeReference",
    "MaskFillNeighbors",
    "MetricsSpec",
    "ModelReference",
    "ModelSpec",
    "Name",
    "NeighborsSection",
    "NoiseSpec",
    "ObjectiveSpec",
    "Paths",
    "Perturbation",
    "PoolSpec",
    "PrefixSpec",
    "ProbesSpec",
    "Quantization",
    "RecordsSection",
    "ReportSpec",
    "ResourcesSpec",
    "SamplesSpec",
    "SamplesTarget",
    "SelfGeneratedReference",
    "SelfPromptReference",
    "ShadowReference",
    "Share",
    "ShiftSpec",
    "SpaceSpec",
    "Strict",
    "SubstituteNeighbors",
    "SwapsSpec",
    "SweepSpec",
    "TargetSetSpec",
    "TargetSpec",
    "TextNeighbors",
    "TextRecordsSpec",
    "TimestepsSpec",
    "Value",
    "learn_kind",
    "merge_preset",
    "with_engine",
]
