"""Probes for image models: errors of denoisers, terms of autoencoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from raymia.evidence.image import DISTANCES, ELBO_TERMS, PIXEL_TERMS
from raymia.models.batching import run_on_images
from raymia.models.denoisers.model import Denoiser
from raymia.models.pixels.model import PixelModel
from raymia.perturbations.kinds import perturb
from raymia.questions.base import RECORD, AboutRecord, Item, variants
from raymia.questions.text import KEY_FIELDS, row_key
from raymia.util.draws import normals, stream_key

Tensor = torch.Tensor

NOT_FINITE = "the model returned a number that is not finite"
LOW_PASS_RADIUS = 5
LOW_PASS_OUTSIDE = 0.2
"""FreMIA's low-pass keeps frequencies up to this index in both directions, and this share of the
others."""


def list_schema(columns: Sequence[str]) -> pa.Schema:
    values = [(column, pa.list_(pa.float32())) for column in columns]
    return pa.schema([*KEY_FIELDS, *values, ("error", pa.string())])


@dataclass(frozen=True)
class Neighborhood:
    """Which neighbors of an image are asked about: one perturbation at rising strengths."""

    perturbation: str
    strengths: tuple[float, ...]


@dataclass(frozen=True)
class _AboutImage(AboutRecord):
    """Base of probes that ask about an image, or about its neighbors in its place.

    Neighbor ``i`` is the image perturbed at strength ``i - 1`` of the neighborhood; it is made from
    the record, where the model is.
    """

    seed: int
    neighborhood: Neighborhood | None

    def indices(self) -> range:
        if self.neighborhood is None:
            return range(RECORD, RECORD + 1)
        return variants(len(self.neighborhood.strengths))

    def key_parts(self) -> Mapping[str, Any]:
        parts: dict[str, Any] = {"seed": self.seed}
        if self.neighborhood is not None:
            parts["perturbation"] = self.neighborhood.perturbation
            parts["strengths"] = list(self.neighborhood.strengths)
        return parts

    def images(self, model: Any, items: Sequence[Item]) -> Tensor:
        """The items' images, float32 [items, channels, height, width] in [0, 1]."""
        images = decode_pixels(items, model)
        if self.neighborhood is None:
            return images
        keys = torch.tensor(
            [stream_key(self.seed, "perturbation", i.record_id, i.neighbor) for i in items]
        ).to(images.device)
        made = torch.empty_like(images)
        for place, strength in enumerate(self.neighborhood.strengths):
            rows = [n for n, item in enumerate(items) if item.neighbor == RECORD + 1 + place]
            if rows:
                made[rows] = perturb(
                    images[rows], self.neighborhood.perturbation, strength, keys[rows]
                )
        return made


@dataclass(frozen=True)
class DenoisingProbe(_AboutImage):
    """The denoising error at each timestep and noise draw (PFAMI, arXiv 2308.12143, section 4).

    The residual is ``epsilon - epsilon_theta(x_t, t)``, x_t = sqrt(abar_t) x + sqrt(1 - abar_t)
    epsilon. A record and its neighbors, the target and its references are given the same noise,
    unless ``noise`` is "independent", which gives each neighbor its own.
    """

    timesteps: tuple[int, ...]
    draws: int
    noise: str
    kind: ClassVar[str] = "image.denoising"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    def key_parts(self) -> Mapping[str, Any]:
        settings = {"timesteps": list(self.timesteps), "draws": self.draws, "noise": self.noise}
        return {**super().key_parts(), **settings}

    @property
    def passes(self) -> int:
        return len(self.timesteps) * self.draws

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        steps = [(t, draw) for t in self.timesteps for draw in range(self.draws)]

        def key(item: Item, t: int, draw: int) -> int:
            own = item.neighbor if self.noise == "independent" else RECORD
            return stream_key(self.seed, "noise", item.record_id, own, t, draw)

        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            latents = encode(model, self.images(model, chunk))
            captions = captions_of(model, chunk)
            rows += denoising_rows(model, chunk, latents, captions, steps, key)
        return pa.Table.from_pylist(rows, schema=self.schema)


@dataclass(frozen=True)
class CaptionProbe(AboutRecord):
    """Denoising errors with reduced captions (CLiD, arXiv 2405.14800).

    Index 0 is the full caption; index i of n keeps the first ``1 - i / n`` of its words, so that
    the last is the empty caption. All are given the same noise.
    """

    timesteps: tuple[int, ...]
    reductions: int
    seed: int
    kind: ClassVar[str] = "image.captions"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    def indices(self) -> range:
        return range(RECORD, RECORD + 1 + self.reductions)

    def key_parts(self) -> Mapping[str, Any]:
        return {
            "timesteps": list(self.timesteps),
            "reductions": self.reductions,
            "seed": self.seed,
        }

    @property
    def passes(self) -> int:
        return len(self.timesteps)

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        steps = [(t, 0) for t in self.timesteps]

        def key(item: Item, t: int, draw: int) -> int:
            return stream_key(self.seed, "noise", item.record_id, RECORD, t, draw)

        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            latents = encode(model, decode_pixels(chunk, model))
            captions = [
                reduced(item.payload["caption"] or "", 1 - item.neighbor / self.reductions)
                for item in chunk
            ]
            rows += denoising_rows(model, chunk, latents, captions, steps, key)
        return pa.Table.from_pylist(rows, schema=self.schema)


def reduced(caption: str, share: float) -> str:
    """The first words of a caption, rounded to a whole number of them."""
    words = caption.split()
    return caption if share >= 1 else " ".join(words[: round(share * len(words))])


@dataclass(frozen=True)
class ElboProbe(_AboutImage):
    """The terms of an autoencoder's objective on each latent draw; one pass of its encoder.

    A record and its neighbors, the target and its references are given the same draws.
    """

    draws: int
    kind: ClassVar[str] = "image.elbo"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(ELBO_TERMS)

    def key_parts(self) -> Mapping[str, Any]:
        return {**super().key_parts(), "draws": self.draws}

    @property
    def passes(self) -> int:
        return self.draws

    def ask(self, model: Any, items: Sequence[Item]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            images = self.images(model, chunk)
            keys = torch.tensor(
                [
                    [stream_key(self.seed, "latent", item.record_id, d) for d in range(self.draws)]
                    for item in chunk
                ]
            ).to(images.device)
            noise = normals(keys.flatten(), model.noise_size)
            terms = model.terms(images, noise.reshape(len(chunk), self.draws, -1))
            answers = columns_of(terms)
            rows += [answer_row(item, answer) for item, answer in zip(chunk, answers, strict=True)]
        return pa.Table.from_pylist(rows, schema=self.schema)


@dataclass(frozen=True)
class PixelProbe(_AboutImage):
    """The mean negative log-likelihood per pixel of a model that predicts pixel by pixel."""

    kind: ClassVar[str] = "image.pixels"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(PIXEL_TERMS)

    def ask(self, model: PixelModel, items: Sequence[Item]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            images = self.images(model, chunk)

            def run(batch: list[int], images: Tensor = images) -> list[dict[str, Any]]:
                return columns_of({"loss": model.loss(images[batch])})

            answers = run_on_images(len(chunk), run, budget=model.batch_images)
            rows += [answer_row(item, answer) for item, answer in zip(chunk, answers, strict=True)]
        return pa.Table.from_pylist(rows, schema=self.schema)


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Items by so many, so that no more images are held as arrays at once."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def decode_pixels(items: Sequence[Item], model: Any) -> Tensor:
    """The records' images on the model's device, float32 [items, channels, height, width]."""
    pixels = np.stack([np.frombuffer(item.payload["pixels"], np.uint8) for item in items])
    images = torch.from_numpy(pixels.reshape(len(items), *model.shape).copy())
    return images.to(model.device).float() / 255


def captions_of(model: Denoiser, items: Sequence[Item]) -> list[str] | None:
    """The records' captions; None for a model without text."""
    if model.embed is None:
        return None
    return [item.payload["caption"] or "" for item in items]


def encode(model: Denoiser, images: Tensor) -> Tensor:
    """What the network sees of the images, in batches that fit."""
    parts = run_on_images(
        len(images), lambda batch: list(model.encode(images[batch])), budget=model.batch_images
    )
    return torch.stack(parts)


def denoising_rows(
    model: Denoiser,
    items: Sequence[Item],
    latents: Tensor,
    captions: Sequence[str] | None,
    steps: Sequence[tuple[int, int]],
    key: Callable[[Item, int, int], int],
) -> list[dict[str, Any]]:
    """The distances of each item's residual at each (timestep, draw), as rows.

    Items at one step stand together, so that the noise which neighbors share is drawn once.
    """
    work = [(n, step) for step in steps for n in range(len(items))]
    count = int(np.prod(model.latent_shape))

    def run(batch: list[int]) -> list[dict[str, float]]:
        places = [work[i][0] for i in batch]
        timesteps = torch.tensor([work[i][1][0] for i in batch])
        keys = [key(items[n], *work[i][1]) for n, i in zip(places, batch, strict=True)]
        unique = list(dict.fromkeys(keys))
        noise = normals(torch.tensor(unique).to(model.device), count)
        order = {k: n for n, k in enumerate(unique)}
        noise = noise[[order[k] for k in keys]].reshape(len(batch), *model.latent_shape)
        noisy = model.add_noise(latents[places], noise, timesteps)
        given = None if captions is None else [captions[n] for n in places]
        residual = noise - model.predict_noise(noisy, timesteps, given)
        return columns_of(distances(residual))

    answers = run_on_images(len(work), run, budget=model.batch_images)
    per_item: list[dict[str, list[float]]] = [{c: [] for c in DISTANCES} for _ in items]
    for (n, _), answer in zip(work, answers, strict=True):
        for column in DISTANCES:
            per_item[n][column].append(answer[column])
    return [answer_row(item, answer) for item, answer in zip(items, per_item, strict=True)]


def distances(residual: Tensor) -> dict[str, Tensor]:
    """The mean of |r|^2 and |r|^4 over the elements, plain and after the low-pass; [batch] each."""
    found = {}
    for name, r in (("", residual), ("low_", low_pass(residual))):
        squares = r.square().flatten(1)
        found[f"{name}l2"] = squares.mean(1)
        found[f"{name}l4"] = squares.square_().mean(1)
    return found


def low_pass(residual: Tensor) -> Tensor:
    """FreMIA's filter. It is linear, so that of a difference is the difference of both filtered."""
    height, width = residual.shape[-2:]
    rows = torch.fft.fftfreq(height, 1 / height, device=residual.device).abs()
    columns = torch.fft.rfftfreq(width, 1 / width, device=residual.device)
    inside = (rows[:, None] <= LOW_PASS_RADIUS) & (columns[None] <= LOW_PASS_RADIUS)
    scale = torch.where(inside, 1.0, LOW_PASS_OUTSIDE)
    spectrum = torch.fft.rfft2(residual).mul_(scale)
    filtered: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return filtered


def columns_of(answers: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """From one tensor per column to one mapping per row."""
    lists = {name: values.float().cpu().tolist() for name, values in answers.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def answer_row(item: Item, answer: Mapping[str, Any]) -> dict[str, Any]:
    """A row of evidence, with the error of an answer that is none."""
    lists = {name: np.atleast_1d(values) for name, values in answer.items()}
    if not all(np.isfinite(values).all() for values in lists.values()):
        return {**row_key(item), "error": NOT_FINITE}
    return {**row_key(item), **lists, "error": None}
