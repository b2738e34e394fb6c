"""Checkpoints and endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, model_validator

from raymia.spec.base import Name, Paths, Strict

Quantization = Literal["none", "nf4", "fp4", "int8"]
LongTexts = Literal["cut", "windows"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


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


class SamplesTarget(Strict):
    """A model of which nothing is to be had but images that it generated, such as a GAN."""

    samples: Paths = Field(min_length=1, description="images that it generated; see records")
    name: Name = Field(description="what the report calls it")


def _kind_of_target(value: Any) -> str:
    for key, kind in (("endpoint", EndpointTarget), ("samples", SamplesTarget)):
        if key in value if isinstance(value, dict) else hasattr(value, key):
            return kind.__name__
    return TargetSpec.__name__


AnyTarget = Annotated[
    Annotated[TargetSpec, Tag("TargetSpec")]
    | Annotated[EndpointTarget, Tag("EndpointTarget")]
    | Annotated[SamplesTarget, Tag("SamplesTarget")],
    Discriminator(_kind_of_target),
]
