"""Questions for models of images: errors of denoisers, terms of autoencoders and pixel models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa

from raymia.evidence.image import DISTANCES, ELBO_TERMS, PIXEL_TERMS, Grid, grid
from raymia.questions.base import (
    KEY_FIELDS,
    RECORD,
    Item,
    Question,
    Setup,
    lacking_neighbors,
    register_question,
    variants,
)
from raymia.spec import AuditSpec, ImageNeighbors
from raymia.spec.images import Step
from raymia.util.draws import stream_key

if TYPE_CHECKING:
    import torch

    from raymia.models.autoencoders.model import Autoencoder
    from raymia.models.denoisers.model import Denoiser
    from raymia.models.pixels.model import PixelModel


def list_schema(columns: Sequence[str]) -> pa.Schema:
    values = [(column, pa.list_(pa.float32())) for column in columns]
    return pa.schema([*KEY_FIELDS, *values, ("error", pa.string())])


@dataclass(frozen=True)
class ImageQuestion(Question):
    """Base of questions about an image whose answers are lists over timesteps and draws.

    Class attributes
    ----------------
    columns : of the answers that are lists.
    """

    records = ("image",)
    access = "answers to any input"
    columns: ClassVar[Sequence[str]] = DISTANCES

    @property
    def grid_steps(self) -> tuple[Step, ...]:
        """Timesteps of the answers; (0,) for a model that has none."""
        return (0,)

    @property
    def grid_draws(self) -> int:
        """Draws at each timestep."""
        return 1

    @property
    def grid_indices(self) -> range | None:
        """Indices of an axis of neighbors; None for answers without one."""
        return None

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> Any:
        return self.grid(table, ids)

    def grid(self, table: pa.Table | None, ids: Sequence[str]) -> Grid:
        return grid(table, ids, self.columns, self.grid_steps, self.grid_draws, self.grid_indices)


@dataclass(frozen=True)
class Neighborhood:
    """Which neighbors of an image are asked about: one perturbation at rising strengths."""

    perturbation: str
    strengths: tuple[float, ...]


@dataclass(frozen=True)
class TermsQuestion(ImageQuestion):
    """Base of questions for what a model was trained to make small, about an image or about its
    neighbors in its place.

    Neighbor ``i`` is the image perturbed at strength ``i - 1`` of the neighborhood; it is made from
    the record, where the model is. The subclass by the name "neighbors" asks about those of each
    perturbation that the audit file names, as ``neighbors.crop``.
    """

    seed: int
    neighborhood: Neighborhood | None
    name = "terms"

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        hoods = neighborhoods(setup.spec) if cls.name == "neighbors" else [None]
        return [cls.from_spec(setup, hood) for hood in hoods]

    @classmethod
    @abstractmethod
    def from_spec(cls, setup: Setup, neighborhood: Neighborhood | None) -> Self:
        """The question as its section of the audit file sets it up."""

    @classmethod
    def lacking(cls, spec: AuditSpec) -> str | None:
        return lacking_neighbors(spec) if cls.name == "neighbors" else None

    @property
    def label(self) -> str:
        if self.neighborhood is None:
            return self.name
        return f"{self.name}.{self.neighborhood.perturbation}"

    def indices(self) -> range:
        if self.neighborhood is None:
            return range(RECORD, RECORD + 1)
        return variants(len(self.neighborhood.strengths))

    @property
    def grid_indices(self) -> range | None:
        return None if self.neighborhood is None else self.indices()

    def key_parts(self) -> Mapping[str, Any]:
        parts: dict[str, Any] = {"seed": self.seed}
        if self.neighborhood is not None:
            parts["perturbation"] = self.neighborhood.perturbation
            parts["strengths"] = list(self.neighborhood.strengths)
        return parts

    def images(self, model: Any, items: Sequence[Item]) -> torch.Tensor:
        """The items' images, float32 [items, channels, height, width] in [0, 1]."""
        from raymia.questions.asking.images import decode_pixels, perturbed

        images, hood = decode_pixels(items, model), self.neighborhood
        if hood is None:
            return images
        return perturbed(images, items, hood.perturbation, hood.strengths, self.seed)


def neighborhoods(spec: AuditSpec) -> list[Neighborhood]:
    """The perturbations that the audit file asks for, each with its strengths."""
    from raymia.perturbations.kinds import DEFAULT_STRENGTHS

    neighbors = spec.neighbors
    assert isinstance(neighbors, ImageNeighbors)
    return [
        Neighborhood(kind, tuple(neighbors.strengths or DEFAULT_STRENGTHS[kind]))
        for kind in neighbors.kinds
    ]


@register_question
@dataclass(frozen=True)
class DenoisingQuestion(TermsQuestion):
    """The denoising error at each timestep and noise draw (PFAMI, arXiv 2308.12143, section 4).

    The residual is ``epsilon - epsilon_theta(x_t, t)``, x_t = sqrt(abar_t) x + sqrt(1 - abar_t)
    epsilon; in flow matching it is that of the velocity, ``epsilon - x - v_theta(x_s, s)``, x_s =
    (1 - s) x + s epsilon. A record and its neighbors, the target and its references are given the
    same noise, unless ``noise`` is "independent", which gives each neighbor its own.
    """

    timesteps: tuple[Step, ...]
    draws: int
    noise: str
    families = frozenset({"denoiser"})
    cost = "t"
    section = "denoising"
    kind: ClassVar[str] = "image.denoising"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    @classmethod
    def from_spec(cls, setup: Setup, neighborhood: Neighborhood | None) -> Self:
        spec = setup.spec.probes.denoising
        return cls(setup.seed, neighborhood, tuple(spec.timesteps), spec.draws, spec.noise)

    @property
    def grid_steps(self) -> tuple[Step, ...]:
        return self.timesteps

    @property
    def grid_draws(self) -> int:
        return self.draws

    def key_parts(self) -> Mapping[str, Any]:
        settings = {"timesteps": list(self.timesteps), "draws": self.draws, "noise": self.noise}
        return {**super().key_parts(), **settings}

    @property
    def passes(self) -> int:
        return len(self.timesteps) * self.draws

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        from raymia.questions.asking.images import (
            captions_of,
            chunks,
            denoising_rows,
            encode,
            whole_records,
        )

        steps = [(t, draw) for t in self.timesteps for draw in range(self.draws)]

        def key(item: Item, t: Step, draw: int) -> int:
            own = item.neighbor if self.noise == "independent" else RECORD
            return stream_key(self.seed, "noise", item.record_id, own, t, draw)

        rows: list[dict[str, Any]] = []
        most = whole_records(model, len(self.indices()))
        for chunk in chunks(items, most):
            latents = encode(model, self.images(model, chunk))
            captions = captions_of(model, chunk)
            rows += denoising_rows(model, chunk, latents, captions, steps, key, most)
        return pa.Table.from_pylist(rows, schema=self.schema)


@register_question
class DenoisingAroundQuestion(DenoisingQuestion):
    """The same about the record's neighbors."""

    name = "neighbors"
    cost = "s t"


@register_question
@dataclass(frozen=True)
class ElboQuestion(TermsQuestion):
    """The terms of an autoencoder's objective on each latent draw; one pass of its encoder.

    A record and its neighbors, the target and its references are given the same draws.
    """

    draws: int
    families = frozenset({"autoencoder"})
    cost = "t"
    section = "elbo"
    columns = ELBO_TERMS
    kind: ClassVar[str] = "image.elbo"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(ELBO_TERMS)

    @classmethod
    def from_spec(cls, setup: Setup, neighborhood: Neighborhood | None) -> Self:
        return cls(setup.seed, neighborhood, setup.spec.probes.elbo.draws)

    @property
    def grid_draws(self) -> int:
        return self.draws

    def key_parts(self) -> Mapping[str, Any]:
        return {**super().key_parts(), "draws": self.draws}

    @property
    def passes(self) -> int:
        return self.draws

    def ask(self, model: Autoencoder, items: Sequence[Item]) -> pa.Table:
        from raymia.questions.asking.images import answer_row, chunks, columns_of, latent_noise

        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            images = self.images(model, chunk)
            noise = latent_noise(chunk, self.seed, self.draws, model.noise_size, images.device)
            answers = columns_of(model.terms(images, noise))
            rows += [answer_row(item, answer) for item, answer in zip(chunk, answers, strict=True)]
        return pa.Table.from_pylist(rows, schema=self.schema)


@register_question
class ElboAroundQuestion(ElboQuestion):
    """The same about the record's neighbors."""

    name = "neighbors"
    cost = "s t"


@register_question
@dataclass(frozen=True)
class PixelQuestion(TermsQuestion):
    """The mean negative log-likelihood per pixel of a model that predicts pixel by pixel."""

    families = frozenset({"pixels"})
    cost = "t"
    columns = PIXEL_TERMS
    kind: ClassVar[str] = "image.pixels"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(PIXEL_TERMS)

    @classmethod
    def from_spec(cls, setup: Setup, neighborhood: Neighborhood | None) -> Self:
        return cls(setup.seed, neighborhood)

    def ask(self, model: PixelModel, items: Sequence[Item]) -> pa.Table:
        from raymia.questions.asking.images import answer_row, chunks, columns_of

        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            images = self.images(model, chunk)

            def run(
                model: PixelModel, batch: list[int], images: torch.Tensor = images
            ) -> list[dict[str, Any]]:
                return columns_of({"loss": model.loss(images[batch])})

            answers = model.run(len(chunk), run)
            rows += [answer_row(item, answer) for item, answer in zip(chunk, answers, strict=True)]
        return pa.Table.from_pylist(rows, schema=self.schema)


@register_question
class PixelAroundQuestion(PixelQuestion):
    """The same about the record's neighbors."""

    name = "neighbors"
    cost = "s t"
