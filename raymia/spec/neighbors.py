"""Neighbors of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raymia.spec.base import Name, Share, Weights, merge_preset
from raymia.spec.images import ImageNeighbors
from raymia.spec.kinds import Kinds, NeighborsSection

# Presets of mask filling; provenance in docs/attacks.md.
MASK_FILL_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"unit": "token", "mask_share": 0.2, "span": 1, "buffer": 0, "count": 20,
              "top_k": None},
    "repo": {"unit": "word", "mask_share": 0.3, "span": 2, "buffer": 1, "count": 10, "top_k": 50},
}  # fmt: skip


MOST_NAMES = 16
"""Kinds of neighbors in one audit."""
T5_SPANS = 99
"""T5 has 100 sentinels; the one after the last span ends the fills."""


class MaskFillNeighbors(NeighborsSection):
    """Neighbors of a text: spans are masked at random and filled by a T5 model.

    The model runs in float32: lower precision would let batch mates change a neighbor.
    """

    kind: Literal["mask_fill"] = Field(default="mask_fill", description="may be left out")
    preset: Literal["paper", "repo"] | None = Field(
        default=None, description="settings of the SPV-MIA paper or of its released code"
    )
    model: Weights = Field(description="T5-like model: local folder, fsspec URL, or hub name")
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


class InfillNeighbors(NeighborsSection):
    """Neighbors of a text: spans are masked at random and filled by a causal language model.

    For where no T5 fits. The model proposes continuations of the text before a span, and one is
    drawn by how likely the model finds the text after it. It runs in float32, as a T5 does.
    """

    kind: Literal["infill"] = Field(description="a causal model instead of a T5")
    model: Weights = Field(description="causal model: local folder, fsspec URL, or hub name")
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


class SubstituteNeighbors(NeighborsSection):
    """Neighbors of a text: words are replaced by others of like frequency; needs no model.

    The cheap control: what an attack gains from neighbors that read well shows against these. The
    words are English and ship with raymia, so a neighbor depends on no other record.
    """

    kind: Literal["substitute"] = Field(description="words instead of a model's fills")
    count: int = Field(default=10, ge=1, le=1000, description="neighbors per record")
    share: Share = Field(default=0.15, description="share of the words replaced, one at least")


TextNeighbors = MaskFillNeighbors | InfillNeighbors | SubstituteNeighbors


class NamedNeighbors(NeighborsSection):
    """Neighbors of texts of several kinds, each by a name of your choosing.

    In the audit file the names stand under `neighbors` themselves, each with a section of its own.
    """

    kind: Literal["named"] = Field(description="may be left out")
    by_name: dict[Name, Annotated[TextNeighbors, Field(discriminator="kind")]] = Field(
        min_length=1,
        max_length=MOST_NAMES,
        description="a section of neighbors for each name; may be left out",
    )

    def named(self) -> Mapping[str, NeighborsSection]:
        return self.by_name


NEIGHBORS = Kinds(
    MaskFillNeighbors, InfillNeighbors, SubstituteNeighbors, ImageNeighbors, NamedNeighbors
)


def with_kinds(value: Any) -> Any:
    """A section of neighbors as it is written, with what may be left out of it."""
    if not isinstance(value, dict):
        return value
    if value and "kind" not in value and all(isinstance(one, dict) for one in value.values()):
        value = {"kind": "named", "by_name": value}
    by_name = value.get("by_name")
    if value.get("kind") == "named" and isinstance(by_name, dict):
        return {**value, "by_name": {name: with_kinds(one) for name, one in by_name.items()}}
    return {"kind": "mask_fill", **value}


def text_neighbors(section: NeighborsSection | None) -> dict[str, TextNeighbors]:
    """The sections of neighbors of texts by their names; see :meth:`NeighborsSection.named`."""
    named = {} if section is None else section.named()
    return {name: one for name, one in named.items() if isinstance(one, TextNeighbors)}
