"""What the questions about images share that runs a model or computes on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from raymia.evidence.image import DISTANCES
from raymia.questions.base import RECORD, Item, row_key
from raymia.spec.images import Step
from raymia.util.draws import normals, stream_key

if TYPE_CHECKING:
    from raymia.models.denoisers.model import Denoiser

Tensor = torch.Tensor
Predict = Callable[[Tensor, Step], Tensor]

NOT_FINITE = "the model returned a number that is not finite"
LOW_PASS_RADIUS = 5
LOW_PASS_OUTSIDE = 0.2
"""FreMIA's low-pass keeps frequencies up to this index in both directions, and this share of the
others."""


def perturbed(
    images: Tensor, items: Sequence[Item], perturbation: str, strengths: Sequence[float], seed: int
) -> Tensor:
    """Each item's neighbor in place of its record: ``i`` is perturbed at strength ``i - 1``."""
    from raymia.perturbations.kinds import perturb

    keys = torch.tensor(
        [stream_key(seed, "perturbation", i.record_id, i.neighbor) for i in items]
    ).to(images.device)
    made = torch.empty_like(images)
    for place, strength in enumerate(strengths):
        rows = [n for n, item in enumerate(items) if item.neighbor == RECORD + 1 + place]
        if rows:
            made[rows] = perturb(images[rows], perturbation, strength, keys[rows])
    return made


def latent_noise(items: Sequence[Item], seed: int, draws: int, size: int, device: Any) -> Tensor:
    """The latent draws of each item's record, [items, draws, size]."""
    keys = torch.tensor(
        [[stream_key(seed, "latent", item.record_id, d) for d in range(draws)] for item in items]
    ).to(device)
    return normals(keys.flatten(), size).reshape(len(items), draws, -1)


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Items by so many, so that no more images are held as arrays at once."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def whole_records(model: Denoiser, each: int) -> int:
    """Images per pass: as many as the model takes, in whole records where one fits, so that the
    noise which the images of a record share is drawn once.

    Parameters
    ----------
    each : images of a record.
    """
    return model.batch_images // each * each or model.batch_images


def decode_pixels(items: Sequence[Item], model: Any) -> Tensor:
    """The records' images on the model's device, float32 [items, channels, height, width]."""
    pixels = np.stack([np.frombuffer(item.payload["pixels"], np.uint8) for item in items])
    images = torch.from_numpy(pixels.reshape(len(items), *model.shape).copy())
    return images.to(model.device).float() / 255


def captions_of(model: Denoiser, items: Sequence[Item]) -> list[str] | None:
    """The records' captions; None for a model without text."""
    if model.embed is None:
        return None
    return [model.caption_of(item.payload) for item in items]


def encode(model: Denoiser, images: Tensor) -> Tensor:
    """What the network sees of the images, in batches that fit."""

    def run(model: Denoiser, batch: list[int]) -> list[Tensor]:
        return list(model.encode(images[batch]))

    return torch.stack(model.run(len(images), run, budget=model.batch_images))


def denoising_rows(
    model: Denoiser,
    items: Sequence[Item],
    latents: Tensor,
    captions: Sequence[str] | None,
    steps: Sequence[tuple[Step, int]],
    key: Callable[[Item, Step, int], int],
    most: int,
) -> list[dict[str, Any]]:
    """The distances of each item's residual at each (timestep, draw), as rows.

    Items at one step stand together, so that the noise which neighbors share is drawn once.

    Parameters
    ----------
    most : images per pass.
    """
    work = [(n, step) for step in steps for n in range(len(items))]
    count = int(np.prod(model.latent_shape))

    def run(model: Denoiser, batch: list[int]) -> list[dict[str, float]]:
        places = [work[i][0] for i in batch]
        timesteps = model.at([work[i][1][0] for i in batch])
        keys = [key(items[n], *work[i][1]) for n, i in zip(places, batch, strict=True)]
        unique = list(dict.fromkeys(keys))
        noise = normals(torch.tensor(unique).to(model.device), count)
        order = {k: n for n, k in enumerate(unique)}
        noise = noise[[order[k] for k in keys]].reshape(len(batch), *model.latent_shape)
        noisy = model.path.add_noise(latents[places], noise, timesteps)
        given = None if captions is None else [captions[n] for n in places]
        seen = model.predict_noise(noisy, timesteps, given)
        return columns_of(distances(model.path.residual(noise, seen, timesteps)))

    answers = model.run(len(work), run, budget=most)
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


def move(model: Denoiser, noisy: Tensor, noise: Tensor, start: Step, end: Step) -> Tensor:
    """One deterministic DDIM step between timesteps, up or down (Song et al. 2021, eq. 12); on the
    path of a flow it is Euler's step along the velocity."""
    signal, sigma = model.path.coefficients(model.at([start]))
    to_signal, to_sigma = model.path.coefficients(model.at([end]))
    return to_signal * (noisy - sigma * noise) / signal + to_sigma * noise


def ask_of_latents(
    model: Denoiser,
    items: Sequence[Item],
    answer: Callable[[Tensor, Sequence[Item], Predict], dict[str, Tensor]],
    schema: pa.Schema,
) -> pa.Table:
    """Put a question whose answer on a record is made of several passes, one after another.

    Parameters
    ----------
    answer : given the records, as the network sees them and as items, and the network, returns the
        columns of the answers.
    """
    rows: list[dict[str, Any]] = []
    for chunk in chunks(items, model.batch_images):
        latents, captions = encode(model, decode_pixels(chunk, model)), captions_of(model, chunk)

        def run(
            model: Denoiser,
            batch: list[int],
            chunk: Sequence[Item] = chunk,
            latents: Tensor = latents,
            captions: list[str] | None = captions,
        ) -> list[dict[str, Any]]:
            given = None if captions is None else [captions[n] for n in batch]

            def predict(noisy: Tensor, t: Step) -> Tensor:
                return model.predict_noise(noisy, model.at([t] * len(noisy)), given)

            return columns_of(answer(latents[batch], [chunk[n] for n in batch], predict))

        answers = model.run(len(chunk), run, budget=model.batch_images)
        rows += [answer_row(item, found) for item, found in zip(chunk, answers, strict=True)]
    return pa.Table.from_pylist(rows, schema=schema)
