"""The audit file as typed models: one object feeds the YAML, the command line and the docs.

Unknown keys are refused. Relative paths in an audit file are relative to the file's folder;
:func:`raymia.spec_file.load_spec` makes them absolute.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Share = Annotated[float, Field(gt=0, lt=1)]
Quantization = Literal["none", "nf4", "fp4", "int8"]
LongTexts = Literal["cut", "windows"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class Strict(BaseModel):
    """Base of every model of the audit file."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RecordsSpec(Strict):
    """The records that are scored. Paths may be JSONL, CSV or Parquet, local or any fsspec URL."""

    members: list[str] = Field(
        default=[], description="files of records the targets were trained on"
    )
    non_members: list[str] = Field(
        default=[], description="files of held-out records from the same distribution"
    )
    candidates: list[str] = Field(
        default=[], description="files of records whose membership is unknown; scored, not measured"
    )
    population: list[str] = Field(
        default=[],
        description="files of texts that are no members and are not scored: RMIA's population, "
        "the prefix of ReCaLL, what quantile regression is fitted on",
    )
    known_members: list[str] = Field(
        default=[],
        description="files of members that are not scored: the second prefix of CON-ReCall",
    )
    text_column: str = Field(default="text", description="name of the column that holds the text")
    group_column: str | None = Field(
        default=None,
        description="name of a column that says which records belong together, such as a document; "
        "groups are measured beside records",
    )

    @field_validator(
        "members", "non_members", "candidates", "population", "known_members", mode="before"
    )
    @classmethod
    def _one_path_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _not_empty(self) -> RecordsSpec:
        if not (self.members or self.non_members or self.candidates):
            raise ValueError("give at least one file under members, non_members or candidates")
        return self


class ModelSpec(Strict):
    """A checkpoint in transformers format, or a GGUF file."""

    model: str = Field(
        description="local folder, fsspec URL of a folder, or hub name; the base of the adapter"
    )
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    adapter: str | None = Field(default=None, description="PEFT adapter folder, or hub name")
    gguf_file: str | None = Field(
        default=None, description="name of a GGUF file in the folder, read by raymia[gguf]"
    )
    quantization: Quantization = Field(
        default="none", description="bitsandbytes quantization of the weights at load time"
    )
    dtype: DType = Field(
        default="auto", description="auto is bfloat16 on a GPU and float32 on a CPU"
    )
    max_tokens: int | None = Field(
        default=None,
        ge=2,
        description="tokens a model reads at once; default: its context",
    )
    long_texts: LongTexts = Field(
        default="cut",
        description="score the start of longer texts, or all of them in overlapping windows",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="tokens from one window to the next; default: half of what is read at once",
    )
    trust_remote_code: bool = Field(
        default=False, description="run Python code that comes with the checkpoint; know the source"
    )

    @model_validator(mode="after")
    def _stride_belongs_to_windows(self) -> Self:
        if self.stride is None:
            return self
        if self.long_texts != "windows":
            raise ValueError("`stride` is that of windows; add `long_texts: windows`")
        if self.max_tokens is not None and self.stride >= self.max_tokens:
            raise ValueError(f"stride {self.stride} must be less than max_tokens {self.max_tokens}")
        return self


class TargetSpec(ModelSpec):
    """A checkpoint under audit."""

    name: Name = Field(description="what the report calls this checkpoint")


class EndpointTarget(Strict):
    """A model under audit behind an OpenAI-compatible completions endpoint; see endpoints.md."""

    endpoint: str = Field(description="base URL of the API, as https://host/v1")
    served_model: str = Field(min_length=1, description="name that the server knows the model by")
    name: Name = Field(description="what the report calls it")
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="at most, by all actors together; default: no limit"
    )
    parallel_requests: int = Field(
        default=8, ge=1, description="requests under way at a time, of all actors together"
    )
    timeout_seconds: float = Field(default=60, gt=0, description="to wait for one answer")
    retries: int = Field(
        default=6, ge=0, description="further tries, with growing pauses, before the run stops"
    )

    @model_validator(mode="after")
    def _plain_url(self) -> EndpointTarget:
        # A validator of the whole section: pydantic would quote the field's value, credentials too.
        url = urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("endpoint should be a URL such as https://host/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "endpoint should be a bare URL such as https://host/v1; a key stands in the "
                "environment, as RAYMIA_ENDPOINT_KEY"
            )
        return self.model_copy(update={"endpoint": self.endpoint.rstrip("/")})


def _kind_of_target(value: Any) -> str:
    is_endpoint = "endpoint" in value if isinstance(value, dict) else hasattr(value, "endpoint")
    return "EndpointTarget" if is_endpoint else "TargetSpec"


AnyTarget = Annotated[
    Annotated[TargetSpec, Tag("TargetSpec")] | Annotated[EndpointTarget, Tag("EndpointTarget")],
    Discriminator(_kind_of_target),
]


class ModelReference(ModelSpec):
    """A reference that exists already: the base, or a model tuned on similar or identical data."""

    kind: Literal["model"] = Field(default="model", description="may be left out")


class ShadowReference(ModelSpec):
    """A model trained as the target was, on known records (LiRA)."""

    kind: Literal["shadow"] = Field(description="tells a shadow from other references")
    members: list[str] = Field(
        description="files of the texts it was trained on; a record among them is in, others out"
    )
    text_column: str = Field(default="text", description="name of the members' text column")

    @field_validator("members", mode="before")
    @classmethod
    def _one_path_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class LoraSpec(Strict):
    """Fine-tune a LoRA adapter instead of all weights."""

    r: int = Field(default=64, ge=1, description="rank")
    alpha: int = Field(default=16, ge=1, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="on the adapter's input")
    target_modules: list[str] | None = Field(default=None, description="default: PEFT's choice")


class FineTuneSpec(Strict):
    """How a model is fine-tuned on texts."""

    epochs: float = Field(default=2, gt=0, description="passes over the texts")
    batch_size: int = Field(default=16, ge=1, description="texts per step")
    learning_rate: float = Field(default=1e-4, gt=0, description="at the start; falls to zero")
    max_tokens: int = Field(default=128, ge=8, description="texts are cut to this many tokens")
    lora: LoraSpec | None = Field(default=None, description="none fine-tunes all weights")


# Presets of the self-prompt reference; provenance in docs/attacks.md.
SELF_PROMPT_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "texts": 10_000, "prompt_tokens": 16, "max_tokens": 128, "top_k": None,
        "fine_tune": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-4, "lora": {}},
    },
    "repo": {
        "texts": 10_000, "prompt_tokens": 16, "max_tokens": 128, "top_k": 50,
        "fine_tune": {"epochs": 2, "batch_size": 4, "learning_rate": 5e-5, "lora": {}},
    },
}  # fmt: skip


class SelfPromptReference(Strict):
    """The base fine-tuned on texts that the target itself was prompted to write (SPV-MIA, 3.3)."""

    kind: Literal["self_prompt"] = Field(description="tells this reference from a model")
    preset: Literal["paper", "repo"] | None = Field(
        default=None, description="settings of the SPV-MIA paper or of its released code"
    )
    prompts: list[str] = Field(description="files of texts, none of them a record; see records")
    text_column: str = Field(default="text", description="name of the prompts' text column")
    base: str = Field(
        default="base", description="name of the reference of kind model that is fine-tuned"
    )
    texts: int = Field(default=2_000, ge=2, description="how many texts the target writes")
    prompt_tokens: int = Field(
        default=16, ge=1, description="the first tokens of a prompt that the target continues"
    )
    max_tokens: int = Field(default=128, ge=8, description="length of a text, its prompt included")
    temperature: float = Field(default=1.0, gt=0, description="of the target's sampling")
    top_k: int | None = Field(
        default=None, ge=1, description="sample among the k likeliest; none calibrates better"
    )
    generation_batch: int = Field(default=64, ge=1, description="texts written side by side")
    fine_tune: FineTuneSpec = Field(
        default=FineTuneSpec(), description="how the base is fine-tuned on the texts"
    )

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_path_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, value: Any) -> Any:
        return merge_preset(value, SELF_PROMPT_PRESETS)


ReferenceSpec = Annotated[
    ModelReference | SelfPromptReference | ShadowReference, Field(discriminator="kind")
]

# Presets of mask filling; provenance in docs/attacks.md.
MASK_FILL_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"unit": "token", "mask_share": 0.2, "span": 1, "buffer": 0, "count": 20,
              "top_k": None},
    "repo": {"unit": "word", "mask_share": 0.3, "span": 2, "buffer": 1, "count": 10, "top_k": 50},
}  # fmt: skip


T5_SPANS = 99
"""T5 has 100 sentinels; the one after the last span ends the fills."""


class MaskFillNeighbors(Strict):
    """Neighbors of a text: spans are masked at random and filled by a T5 model.

    The model runs in float32: lower precision would let batch mates change a neighbor.
    """

    kind: Literal["mask_fill"] = Field(default="mask_fill", description="may be left out")
    preset: Literal["paper", "repo"] | None = Field(
        default=None, description="settings of the SPV-MIA paper or of its released code"
    )
    model: str = Field(description="T5-like model: local folder, fsspec URL, or hub name")
    revision: str | None = Field(default=None, description="hub revision")
    count: int = Field(default=10, ge=1, le=1000, description="neighbors per record")
    unit: Literal["word", "token"] = Field(default="word", description="what a span is made of")
    mask_share: Share = Field(
        default=0.3, description="share of the units taken by masked spans and their buffers"
    )
    span: int = Field(default=2, ge=1, description="units per masked span")
    buffer: int = Field(default=1, ge=0, description="unmasked units kept on each side of a span")
    window: int = Field(
        default=250,
        ge=20,
        description="longer texts are masked and filled window by window (units)",
    )
    temperature: float = Field(default=1.0, gt=0, description="of the fills' sampling")
    top_k: int | None = Field(default=50, ge=1, description="sample among the k likeliest tokens")
    max_fill_tokens: int = Field(default=8, ge=1, description="generation limit per unit masked")
    attempts: int = Field(
        default=5, ge=1, le=50, description="tries before a neighbor is given up, counted and named"
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, value: Any) -> Any:
        return merge_preset(value, MASK_FILL_PRESETS)

    @model_validator(mode="after")
    def _sentinels_suffice(self) -> MaskFillNeighbors:
        spans = int(self.mask_share * self.window / (self.span + 2 * self.buffer))
        if spans > T5_SPANS:
            raise ValueError(
                f"window {self.window} and mask_share {self.mask_share} give {spans} spans, more "
                f"than the {T5_SPANS} that T5 can tell apart; make the window smaller"
            )
        return self


class InfillNeighbors(Strict):
    """Neighbors of a text: spans are masked at random and filled by a causal language model.

    For where no T5 fits. The model proposes continuations of the text before a span, and one is
    drawn by how likely the model finds the text after it. It runs in float32, as a T5 does.
    """

    kind: Literal["infill"] = Field(description="a causal model instead of a T5")
    model: str = Field(description="causal model: local folder, fsspec URL, or hub name")
    revision: str | None = Field(default=None, description="hub revision")
    count: int = Field(default=10, ge=1, le=1000, description="neighbors per record")
    mask_share: Share = Field(
        default=0.3, description="share of the words taken by masked spans and their buffers"
    )
    span: int = Field(default=2, ge=1, description="words per masked span, and per fill")
    buffer: int = Field(default=1, ge=0, description="unmasked words kept on each side of a span")
    candidates: int = Field(
        default=4, ge=1, le=100, description="fills proposed per span, of which one is drawn"
    )
    left_tokens: int = Field(
        default=256, ge=1, description="tokens before a span that the model is shown, at most"
    )
    right_tokens: int = Field(
        default=32,
        ge=1,
        description="tokens from a span to the next that candidates are judged by, at most",
    )
    temperature: float = Field(default=1.0, gt=0, description="of the fills' sampling")
    top_k: int | None = Field(default=50, ge=1, description="sample among the k likeliest tokens")
    max_fill_tokens: int = Field(default=8, ge=1, description="generation limit per word masked")
    attempts: int = Field(
        default=5, ge=1, le=50, description="tries before a neighbor is given up, counted and named"
    )


class SubstituteNeighbors(Strict):
    """Neighbors of a text: words are replaced by others of like frequency; needs no model.

    The cheap control: what an attack gains from neighbors that read well shows against these. The
    words are English and ship with raymia, so a neighbor depends on no other record.
    """

    kind: Literal["substitute"] = Field(description="words instead of a model's fills")
    count: int = Field(default=10, ge=1, le=1000, description="neighbors per record")
    share: Share = Field(default=0.15, description="share of the words replaced, one at least")


NeighborsSpec = Annotated[
    MaskFillNeighbors | InfillNeighbors | SubstituteNeighbors, Field(discriminator="kind")
]


class PoolSpec(Strict):
    """An actor pool: how many workers hold the model, and where they may run."""

    actors: int = Field(default=1, ge=1, description="workers, each with the model in memory")
    cpus: float | None = Field(default=None, ge=0, description="per actor; default: a fair share")
    gpus: float = Field(default=0, ge=0, description="per actor; fractions share a GPU")
    accelerator_type: str | None = Field(default=None, description="Ray's name of a GPU type")
    resources: dict[str, float] = Field(default={}, description="custom Ray resources per actor")
    batch_tokens: int = Field(
        default=8_192,
        ge=16,
        description="padded tokens per forward pass; halved when memory is short",
    )


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


class PrefixSpec(Strict):
    """Texts that are put before a record, from `records.population` and `records.known_members`."""

    shots: int = Field(default=10, ge=1, description="how many; fewer where the context is short")


class SwapsSpec(Strict):
    """Copies of a record in which words change places (PAC)."""

    count: int = Field(default=10, ge=1, le=1000, description="copies per record")
    share: Share = Field(default=0.3, description="swaps per word")


class NoiseSpec(Strict):
    """Gaussian noise on the input embeddings, as x + z and x - z (SPV-MIA, embedding domain)."""

    pairs: int = Field(default=10, ge=1, le=1000, description="pairs per record")
    scale: float = Field(
        default=0.5, gt=0, description="in standard deviations of the model's embedding matrix"
    )


class SamplesSpec(Strict):
    """Texts that a model writes when given the first words of a record (SaMIA)."""

    count: int = Field(default=10, ge=1, le=1000, description="texts per record")
    prompt_share: Share = Field(default=0.5, description="share of the record's words it is given")
    temperature: float = Field(default=1.0, gt=0, description="of the sampling")
    top_k: int | None = Field(default=50, ge=1, description="sample among the k likeliest tokens")


class GradientSpec(Strict):
    """The gradient of a record's loss; a backward pass for each."""


class ProbesSpec(Strict):
    """How models are asked beyond one pass over the record.

    A section that is there, if only as `{}`, adds its attacks to those that run by default.
    """

    prefix: PrefixSpec = Field(default=PrefixSpec(), description="for `recall` and `con_recall`")
    swaps: SwapsSpec | None = Field(default=None, description="for `pac`")
    noise: NoiseSpec | None = Field(default=None, description="for `spv_embedding`")
    samples: SamplesSpec | None = Field(default=None, description="for `samia`")
    gradient: GradientSpec | None = Field(default=None, description="for `grad_norm`")


class CorpusSpec(Strict):
    """Texts whose token frequencies stand for those of language at large (DC-PDD)."""

    files: list[str] = Field(description="JSONL, CSV or Parquet")
    text_column: str = Field(default="text", description="name of the column that holds the text")

    @field_validator("files", mode="before")
    @classmethod
    def _one_path_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class MetricsSpec(Strict):
    """What is measured where both members and non-members are given."""

    fprs: list[Share] = Field(
        default=[0.1, 0.01, 0.001], description="false-positive rates for TPR"
    )
    confidence: Share = Field(default=0.95, description="nominal level of every interval")
    resamples: int = Field(default=2_000, ge=100, description="bootstrap resamples")


class AttackSpec(Strict):
    """One attack, by name, with its own parameters where the defaults do not serve."""

    attack: str = Field(
        description="name from `raymia attacks`, `name@reference` for one reference"
    )
    name: Name | None = Field(default=None, description="what the report calls it")
    parameters: dict[str, float | int | str | bool] = Field(
        default={}, description="the attack's own, as `{share: 0.1}` for min_k"
    )


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
    metrics: MetricsSpec = Field(default=MetricsSpec(), description="what is measured")

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
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"target names must be unique; given more than once: {', '.join(twice)}"
            )
        for name, reference in self.references.items():
            if isinstance(reference, SelfPromptReference) and not isinstance(
                self.references.get(reference.base), ModelReference
            ):
                raise ValueError(
                    f"references.{name}.base is {reference.base!r}, which is not a reference of "
                    "kind model; add it under references, as in "
                    f"`{reference.base}: {{model: PATH}}`"
                )
        return self


def merge_preset(value: Any, presets: dict[str, dict[str, Any]]) -> Any:
    """Lay what the file says over the preset it names; nested sections are laid over key by key."""
    name = value.get("preset") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in presets:
        return value
    preset = presets[name]
    merged = {**preset, **value}
    for key, section in preset.items():
        if isinstance(section, dict) and isinstance(value.get(key), dict):
            merged[key] = {**section, **value[key]}
    return merged
