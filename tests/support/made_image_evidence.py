"""Evidence on images from random numbers, for tests of what reads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raymia.evidence.image import (
    DESCENT_TERMS,
    DISTANCES,
    ELBO_TERMS,
    Grid,
    ImageEvidence,
    ImageModelEvidence,
    ImageShadowEvidence,
    Labels,
)

TIMESTEPS = (50, 100, 200)
STRENGTHS = 5
DRAWS = 2
COUNT = 14
NO_ANSWER = 5
"""The record on which no model has an answer."""

PERTURBATIONS = ("crop", "blur")


def errors(draws, *shape, columns=DISTANCES, timesteps=TIMESTEPS):
    return Grid(timesteps, {c: draws.uniform(0.1, 2.0, shape) for c in columns})


def denoiser(seed, count=COUNT):
    """Random answers to every question that a denoiser can be asked."""
    draws, steps = np.random.default_rng(seed), len(TIMESTEPS)
    around = (count, STRENGTHS, steps, DRAWS)
    return ImageModelEvidence(
        terms=errors(draws, count, steps, DRAWS),
        neighbors={name: errors(draws, *around) for name in PERTURBATIONS},
        inversion=errors(draws, count, 1, 1, timesteps=(100,)),
        inversion_map=draws.uniform(0, 1, (count, 2, 4, 4)).astype(np.float32),
        proximal=errors(draws, count, steps, 1),
        proximal_normalized=errors(draws, count, steps, 1),
        clean=errors(draws, count, steps, 1),
        captions=errors(draws, count, 3, steps, DRAWS),
        averaged=errors(draws, count, steps, 1),
        other_captions=errors(draws, count, 2, steps, DRAWS),
    )


def autoencoder(seed, count=COUNT):
    draws = np.random.default_rng(seed)
    how = {"columns": ELBO_TERMS, "timesteps": (0,)}
    around = {name: errors(draws, count, STRENGTHS, 1, 4, **how) for name in PERTURBATIONS}
    terms = errors(draws, count, 1, 4, **how)
    descent = errors(draws, count, 1, 1, columns=DESCENT_TERMS, timesteps=(0,))
    return ImageModelEvidence(terms=terms, neighbors=around, descent=descent)


def pictures(seed, count, side=6, channels=1):
    shape = (count, channels, side, side)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def change_grids(model, change):
    """The same answers, each grid's columns changed by a function of the values."""

    def of(answers):
        return Grid(answers.timesteps, {c: change(v) for c, v in answers.values.items()})

    grids = {name: value for name, value in vars(model).items() if isinstance(value, Grid)}
    return replace(
        model,
        **{name: of(value) for name, value in grids.items()},
        neighbors={name: of(value) for name, value in model.neighbors.items()},
        inversion_map=None if model.inversion_map is None else change(model.inversion_map),
    )


def take(model, rows):
    return change_grids(model, lambda values: values[rows])


def without(model, row):
    """The same answers, but none on one record."""

    def drop(values):
        dropped = values.copy()
        dropped[row] = np.nan
        return dropped

    return change_grids(model, drop)


def take_records(given, rows):
    """Evidence on some of the records, or on all in another order."""
    shadows = [
        ImageShadowEvidence(take(s.model, rows), np.asarray(s.is_in)[rows]) for s in given.shadows
    ]
    labels = None
    if given.labels is not None:
        labels = Labels(
            [given.labels.is_member[i] for i in rows], [given.labels.units[i] for i in rows]
        )
    return replace(
        given,
        pixels=given.images[rows],
        target=take(given.target, rows),
        reference=None if given.reference is None else take(given.reference, rows),
        shadows=shadows,
        labels=labels,
    )


def everything(make=denoiser, count=COUNT, shadows=6):
    """What any attack may look at: answers, a reference, shadows, a population, samples, labels."""
    ids = [f"r{i}" for i in range(count)]
    models = [without(make(seed, count), NO_ANSWER) for seed in range(2 + shadows)]
    is_in = [
        np.array([i > 10 or (i != 6 and (i + k) % 2 == 0) for i in range(count)])
        for k in range(shadows)
    ]
    return ImageEvidence(
        pixels=pictures(1, count),
        target=models[0],
        reference=models[1],
        shadows=[ImageShadowEvidence(m, i) for m, i in zip(models[2:], is_in, strict=True)],
        population=ImageEvidence(pictures(2, 40), make(101, 40), make(102, 40)),
        samples=pictures(3, 60),
        labels=Labels([i % 2 == 0 for i in range(count)], ids),
        chosen="crop",
    )


def overfitted(count=120, seed=0, make=denoiser, strength=0.3):
    """A target that knows its members by heart, and shadows, population and samples to match.

    Errors on members are `strength` times those on others, and less low around them; what the
    target generated are its members with a little noise.
    """
    draws = np.random.default_rng(seed)
    is_member = draws.random(count) < 0.5
    images = pictures(seed, count)
    shadows = []
    for number in range(8):
        is_in = np.random.default_rng((seed, number)).random(count) < 0.5
        shadows.append(ImageShadowEvidence(known(make(number, count), is_in, strength), is_in))
    copies = np.repeat(images[is_member], 20, axis=0).astype(int)
    noise = draws.integers(-8, 9, copies.shape)
    return ImageEvidence(
        pixels=images,
        target=known(make(1_000 + seed, count), is_member, strength),
        shadows=shadows,
        population=ImageEvidence(pictures(seed + 77, 600), make(2_000 + seed, 600)),
        samples=np.clip(copies + noise, 0, 255).astype(np.uint8),
        labels=Labels(is_member.tolist(), [f"r{i}" for i in range(count)]),
        chosen="crop",
    )


def known(model, is_member, strength):
    """The model's answers, smaller on members but for neighbors and other captions; a little
    smaller without a caption."""

    def shrink(values, share):
        factors = np.where(is_member, share, 1.0)
        return (0.5 + values / 10) * factors.reshape(-1, *[1] * (values.ndim - 1))

    known = change_grids(model, lambda values: shrink(values, strength))
    others = change_grids(model, lambda values: shrink(values, 1.0))
    captions = None
    if model.captions is not None:
        share = np.where(is_member, (1 + strength) / 2, 1.0)[:, None, None, None]
        columns = {
            name: np.concatenate(
                [known.captions.values[name][:, :1], values[:, 1:-1], values[:, -1:] * share],
                axis=1,
            )
            for name, values in others.captions.values.items()
        }
        captions = Grid(model.captions.timesteps, columns)
    return replace(
        known,
        neighbors=others.neighbors,
        captions=captions,
        other_captions=others.other_captions,
    )
