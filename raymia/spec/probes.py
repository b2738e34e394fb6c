"""How models are asked beyond one pass over the record."""

from __future__ import annotations

from pydantic import Field

from raymia.spec.base import Share, Strict
from raymia.spec.images import (
    AveragedSpec,
    CaptionsSpec,
    DenoisingSpec,
    DescentSpec,
    ElboSpec,
    InversionSpec,
    TimestepsSpec,
)


class PrefixSpec(Strict):
    """Texts that are put before a record, from `records.population` and `records.known_members`."""

    shots: int = Field(default=10, ge=1, description="how many; fewer where the context is short")
    as_text: bool = Field(
        default=False,
        description="of records that a template writes, put the scored words alone before a "
        "record, as plain text, and not whole conversations",
    )


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
    extracted_words: int = Field(
        default=20,
        ge=1,
        description="a record is extracted where a text goes on as it does for so many words",
    )


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
    denoising: DenoisingSpec = Field(
        default=DenoisingSpec(), description="for attacks on a diffusion model's loss"
    )
    elbo: ElboSpec = Field(default=ElboSpec(), description="for attacks on an autoencoder's loss")
    descent: DescentSpec | None = Field(default=None, description="for `co_membership`")
    inversion: InversionSpec = Field(
        default=InversionSpec(), description="for `secmi` and `secmi_nns`"
    )
    proximal: TimestepsSpec = Field(default=TimestepsSpec(), description="for `pia` and `pian`")
    clean: TimestepsSpec = Field(default=TimestepsSpec(), description="for `sima`")
    averaged: AveragedSpec | None = Field(default=None, description="for `sima_mc`")
    captions: CaptionsSpec = Field(
        default=CaptionsSpec(), description="for `clid`, `uncaptioned` and `pairing`"
    )
