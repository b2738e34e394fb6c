"""Checkpoints and endpoints."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, model_validator

from raymia.spec.base import Checkpoints, Name, OneOrMore, Paths, Place, Strict, Weights
from raymia.spec.how_trained import AnyTraining
from raymia.spec.kinds import KindsByName, OtherTarget
from raymia.spec.training import TrainingSpec

Quantization = Literal["none", "nf4", "fp4", "int8"]
LongTexts = Literal["cut", "windows"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class WeightedAdapter(Strict):
    """One of several adapters that are on a model of images at once."""

    path: Weights = Field(description="what `adapter` names where it is one")
    weight: float = Field(default=1.0, description="what its change of the base is multiplied by")


ONE_ADAPTER, SEVERAL_ADAPTERS = "one adapter", "several adapters"
"""Tags by which pydantic tells what `adapter` holds."""


def _count_of_adapters(value: Any) -> str:
    return SEVERAL_ADAPTERS if isinstance(value, list) else ONE_ADAPTER


Adapter = Annotated[
    Annotated[Weights, Tag(ONE_ADAPTER)]
    | Annotated[list[WeightedAdapter], Field(min_length=1), Tag(SEVERAL_ADAPTERS)],
    Discriminator(_count_of_adapters),
]


class ModelSpec(Strict):
    """A checkpoint in transformers format, or a GGUF file."""

    model: Weights = Field(
        description="local folder, fsspec URL of a folder, or hub name; the base of the adapter"
    )
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    adapter: Adapter | None = Field(
        default=None,
        description="PEFT adapter folder, or hub name; of an image model also a LoRA or textual "
        "inversion of diffusers, a `.safetensors` file of kohya's scripts, or a list of several",
    )
    config: Weights | None = Field(
        default=None,
        description="folder of a diffusers pipeline that says what the parts are of a `model` that "
        "is one `.safetensors` file; parts that the file does not hold are read from it",
    )
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
    window_bos: bool = Field(
        default=False,
        description="begin windows after the first with the tokenizer's beginning-of-text token, "
        "as texts of the training began",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="run Python code that comes with the checkpoint; only if you trust its source",
    )

    @property
    def adapters_on_it(self) -> list[WeightedAdapter]:
        """What ``adapter`` names, one or several, in order."""
        if isinstance(self.adapter, str):
            return [WeightedAdapter(path=self.adapter)]
        return self.adapter or []

    @model_validator(mode="after")
    def _stride_belongs_to_windows(self) -> Self:
        if self.window_bos and self.long_texts != "windows":
            raise ValueError("`window_bos` is of windows; add `long_texts: windows`")
        if self.stride is None:
            return self
        if self.long_texts != "windows":
            raise ValueError("`stride` is that of windows; add `long_texts: windows`")
        if self.max_tokens is not None and self.stride >= self.max_tokens:
            raise ValueError(f"stride {self.stride} must be less than max_tokens {self.max_tokens}")
        return self


class ClaimSpec(Strict):
    """What a training claims to keep of each record (differential privacy)."""

    epsilon: float = Field(gt=0, description="that no attack can show more than")
    delta: float = Field(ge=0, lt=1, description="chance that epsilon is no bound")


class TargetSpec(ModelSpec):
    """A checkpoint under audit."""

    name: Name = Field(description="what the report calls this checkpoint")
    training: AnyTraining | None = Field(
        default=None, description="how it was trained; default: the audit's `training`"
    )
    claim: ClaimSpec | None = Field(
        default=None, description="what its training claims; a manifest of `raymia train` says it"
    )
    trained_by: Checkpoints | None = Field(
        default=None,
        description="`manifest.json` of the training by `raymia train` that made it: references "
        "that it writes the texts of are then fine-tuned as it was; default: of a `manifest` "
        "under `targets`, that",
    )
    without_members_of: Name | None = Field(
        default=None,
        description="name of the target that was trained on the members, where this one was "
        "trained again without them; the report holds the two beside each other",
    )


GLOB = re.compile(r"[*?\[]")
"""What makes a name a pattern."""


def _what_is_named(model: str) -> Literal["checkpoints", "weights"] | None:
    """A pattern is one of folders; what is not given is no place."""
    if not model:
        return None
    return "checkpoints" if GLOB.search(model) else "weights"


WeightsOrPattern = Annotated[str, Place(_what_is_named)]


class TargetSetSpec(ModelSpec):
    """Many checkpoints under audit, all read in one way: a pattern, revisions, or a manifest."""

    name: Name = Field(
        default="", description="stands before their names, which are what differs in their paths"
    )
    model: WeightsOrPattern = Field(
        default="",
        description="pattern of folders, as models; else the base of adapters, or a hub name",
    )
    models: OneOrMore[Checkpoints] = Field(
        default=[], description="patterns of folders or fsspec URLs, as `runs/*/checkpoint-*`"
    )
    adapters: OneOrMore[Checkpoints] = Field(
        default=[],
        description="patterns of what `adapter` names, folders or `*.safetensors`, whose base is "
        "`model`",
    )
    revisions: OneOrMore[str] = Field(
        default=[], description="revisions of the hub model, or patterns of its tags and branches"
    )
    manifest: Checkpoints | None = Field(
        default=None,
        description="`manifest.json` of a training, or a CSV or JSONL file with columns name and "
        "path, of adapters where there is a `model`",
    )
    training: AnyTraining | None = Field(
        default=None, description="how they were trained; default: the audit's `training`"
    )

    @property
    def is_glob(self) -> bool:
        """Whether ``model`` is itself the pattern."""
        return GLOB.search(self.model) is not None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {
            "a pattern in model": self.is_glob,
            **{key: bool(getattr(self, key)) for key in WAYS},
        }
        given = [way for way, is_given in ways.items() if is_given]
        if len(given) != 1:
            raise ValueError(
                "checkpoints are named in one way, by a pattern in model, or by one of "
                f"{', '.join(WAYS)}; got {' and '.join(given) or 'none'}"
            )
        (way,) = given
        if way in ("adapters", "revisions") and not self.model:
            raise ValueError(f"{way} need the `model` that they are of")
        if way == "models" and self.model:
            raise ValueError("give either `model` or `models`")
        if way == "revisions" and self.revision is not None:
            raise ValueError("give either `revision` or `revisions`")
        if self.adapter is not None:
            raise ValueError("give one `adapter` to one target, or several as `adapters`")
        return self


WAYS = ("models", "adapters", "revisions", "manifest")
"""Keys by which checkpoints are named together."""


class ServerSpec(Strict):
    """An OpenAI-compatible server of completions, and how it may be asked."""

    endpoint: str = Field(description="base URL of the API, as https://host/v1")
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="at most, by all actors together; default: no limit"
    )
    timeout_seconds: float = Field(default=60, gt=0, description="to wait for one whole answer")
    retries: int = Field(
        default=6, ge=0, description="further tries, with growing pauses, before the run stops"
    )

    @model_validator(mode="after")
    def _plain_url(self) -> Self:
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


class EndpointTarget(ServerSpec, OtherTarget):
    """A model under audit behind an OpenAI-compatible completions endpoint; see endpoints.md."""

    about = "an endpoint answers about texts"
    told_by = "endpoint"

    served_model: str = Field(min_length=1, description="name that the server knows the model by")
    tokenizer: Weights | None = Field(
        default=None,
        description="folder or hub name of the served model's tokenizer, for records that are more "
        "than texts, which are sent as its tokens",
    )
    training: TrainingSpec | None = Field(
        default=None, description="how it was trained; default: the audit's `training`"
    )
    parallel_requests: int = Field(
        default=8, ge=1, description="requests under way at a time, of all actors together"
    )


class SamplesTarget(OtherTarget):
    """A model of which nothing is to be had but images that it generated, such as a GAN."""

    about = "a target of samples is one of images"
    told_by = "samples"
    is_generated = True

    samples: Paths = Field(min_length=1, description="images that it generated; see records")


def _which_target(value: Any) -> type[Strict]:
    if not isinstance(value, dict):
        return TargetSpec
    for section in TARGETS.sections:
        if issubclass(section, OtherTarget) and section.told_by in value:
            return section
    # Square brackets may stand in a folder's name; as a pattern alone they are for `models`.
    model = value.get("model")
    is_pattern = isinstance(model, str) and ("*" in model or "?" in model)
    return TargetSetSpec if is_pattern or any(key in value for key in WAYS) else TargetSpec


TARGETS = KindsByName(_which_target, TargetSpec, TargetSetSpec, EndpointTarget, SamplesTarget)
AnyTarget = TargetSpec | TargetSetSpec | OtherTarget
