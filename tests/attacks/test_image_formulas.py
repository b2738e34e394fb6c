"""Attacks on images equal their formulas, transcribed once more with plain loops."""

from __future__ import annotations

import io
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from made_image_evidence import (
    COUNT,
    NO_ANSWER,
    STRENGTHS,
    TIMESTEPS,
    autoencoder,
    denoiser,
    everything,
    without,
)
from PIL import Image

from raymia.attacks import build
from raymia.evidence.image import ImageEvidence

GIVEN = everything()
ALONE = replace(GIVEN, reference=None)
AUTOENCODERS = everything(autoencoder)


def scores(name, given=GIVEN, **parameters):
    return build(name, parameters, "here", "image").score(given)


def average(values):
    values = list(values)
    return sum(values) / len(values)


def over(answers, column, i, timestep=None):
    """All numbers of one record in a column, or those at one timestep."""
    rows = answers.values[column][i].tolist()
    chosen = range(len(rows)) if timestep is None else [answers.timesteps.index(timestep)]
    return [x for t in chosen for x in rows[t]]


def error(question, column, timestep=None):
    return lambda model, i: average(over(getattr(model, question), column, i, timestep))


def alone(statistic):
    return lambda given, i: -statistic(given.target, i)


def calibrated(statistic):
    return lambda given, i: math.log(statistic(given.reference, i) / statistic(given.target, i))


def curve(model, i, column):
    return [average(draws) for draws in model.terms.values[column][i].tolist()]


def peak_of_gap(column):
    def score(given, i):
        both = zip(curve(given.reference, i, column), curve(given.target, i, column), strict=True)
        return max(math.log(reference / target) for reference, target in both)

    return score


def size_as_png(image):
    """Bytes of the channels, each as a gray PNG."""
    size = 0
    for channel in image:
        file = io.BytesIO()
        Image.fromarray(channel).save(file, format="PNG")
        size += len(file.getvalue())
    return size


def per_byte(column="l2", timestep=None, question="terms"):
    def score(given, i):
        loss = average(over(getattr(given.target, question), column, i, timestep))
        if given.reference is not None:
            loss -= average(over(getattr(given.reference, question), column, i, timestep))
        return -loss / size_as_png(given.images[i])

    return score


def fluctuation(model, i, around, column, form, strengths):
    """Mean change over the strengths, timesteps and draws."""
    own, others = model.terms.values[column][i], model.neighbors[around].values[column][i]
    changes = []
    for j in strengths:
        for t in range(own.shape[0]):
            for d in range(own.shape[1]):
                change = others[j, t, d] - own[t, d]
                changes.append(change / own[t, d] if form == "ratio" else change)
    return average(changes)


def pfami(around="crop", column="l2", form="ratio", strengths=range(STRENGTHS), reference=False):
    how = (around, column, form, strengths)

    def score(given, i):
        found = fluctuation(given.target, i, *how)
        return found - fluctuation(given.reference, i, *how) if reference else found

    return score


def caption_gap(model, i, column):
    values = model.captions.values[column][i]
    full, reduced = values[0], values[1:]
    gaps = []
    for other in reduced:
        for t in range(full.shape[0]):
            for d in range(full.shape[1]):
                gaps.append(other[t, d] - full[t, d])
    return average(gaps)


def without_caption(model, i, column):
    return average(model.captions.values[column][i, -1].ravel())


def pair_gap(model, i):
    own, others = model.captions.values["l2"][i, 0], model.other_captions.values["l2"][i]
    return average(others.ravel()) - average(own.ravel())


def pairing(*, reference=False):
    def score(given, i):
        found = pair_gap(given.target, i)
        return found - pair_gap(given.reference, i) if reference else found

    return score


def clid(column="l2", reference=False):
    def score(given, i):
        found = caption_gap(given.target, i, column)
        return found - caption_gap(given.reference, i, column) if reference else found

    return score


def clid_mixed(alpha):
    population = GIVEN.population.target
    gaps = [caption_gap(population, z, "l2") for z in range(40)]
    losses = [-average(population.captions.values["l2"][z, 0].ravel()) for z in range(40)]

    def scaled(value, others):
        low, middle, high = statistics.quantiles(others, n=4, method="inclusive")
        return (value - middle) / (high - low)

    def score(given, i):
        loss = -average(given.target.captions.values["l2"][i, 0].ravel())
        gap = caption_gap(given.target, i, "l2")
        return alpha * scaled(gap, gaps) + (1 - alpha) * scaled(loss, losses)

    return score


def shadow_phis(given, i, wanted):
    return [
        -math.log(average(over(s.model.terms, "l2", i)))
        for s in given.shadows
        if s.is_in[i] == wanted and i != NO_ANSWER
    ]


def spread(given, i, wanted, fixed):
    squares, free = 0.0, 0
    for j in range(COUNT) if fixed else [i]:
        values = shadow_phis(given, j, wanted)
        if values:
            squares += sum((v - average(values)) ** 2 for v in values)
            free += len(values) - 1
    return squares / free if free else math.nan


def lira(fixed):
    def score(given, i):
        phi = -math.log(average(over(given.target.terms, "l2", i)))
        parts = []
        for wanted in (True, False):
            values = shadow_phis(given, i, wanted)
            if not values:
                return math.nan
            variance = spread(given, i, wanted, fixed)
            parts.append(-((phi - average(values)) ** 2) / (2 * variance) - math.log(variance) / 2)
        return parts[0] - parts[1]

    return score


def lira_offline(fixed):
    def score(given, i):
        values = shadow_phis(given, i, False)
        if not values:
            return math.nan
        phi = -math.log(average(over(given.target.terms, "l2", i)))
        return (phi - average(values)) / math.sqrt(spread(given, i, False, fixed))

    return score


def both(name, parameters, statistic):
    return [
        (name, parameters, ALONE, alone(statistic)),
        (name, parameters, GIVEN, calibrated(statistic)),
    ]


FORMULAS = [
    *both("loss", {}, error("terms", "l2")),
    *both("loss", {"timestep": 100}, error("terms", "l2", 100)),
    *both("loss", {"low_pass": True}, error("terms", "low_l2")),
    *both("secmi", {}, error("inversion", "l2")),
    *both("secmi", {"low_pass": True}, error("inversion", "low_l2")),
    *both("pia", {}, error("proximal", "l4")),
    *both("pia", {"p": 2, "timestep": 50}, error("proximal", "l2", 50)),
    *both("pia", {"low_pass": True}, error("proximal", "low_l4")),
    *both("pian", {}, error("proximal_normalized", "l4")),
    *both("sima", {}, error("clean", "l4")),
    *both("sima", {"timestep": 200, "low_pass": True}, error("clean", "low_l4", 200)),
    *both("sima_mc", {}, error("averaged", "l4")),
    ("sima_mc", {"per_byte": True, "p": 2}, ALONE, per_byte("l2", None, "averaged")),
    ("sima_mc", {"per_byte": True, "timestep": 50}, GIVEN, per_byte("l4", 50, "averaged")),
    ("peak_error", {}, ALONE, lambda given, i: -max(curve(given.target, i, "l2"))),
    ("peak_error", {"low_pass": True}, GIVEN, peak_of_gap("low_l2")),
    ("loss_per_byte", {}, ALONE, per_byte()),
    ("loss_per_byte", {"timestep": 100, "low_pass": True}, GIVEN, per_byte("low_l2", 100)),
    ("pfami", {}, ALONE, pfami()),
    ("pfami", {}, GIVEN, pfami(reference=True)),
    ("pfami", {"strengths": "one"}, ALONE, pfami(strengths=[2])),
    ("pfami", {"form": "difference"}, GIVEN, pfami(form="difference", reference=True)),
    ("pfami", {"perturbation": "blur", "low_pass": True}, ALONE, pfami("blur", "low_l2")),
    ("clid", {}, ALONE, clid()),
    ("clid", {"low_pass": True}, GIVEN, clid("low_l2", reference=True)),
    *both("uncaptioned", {}, lambda model, i: without_caption(model, i, "l2")),
    *both("uncaptioned", {"low_pass": True}, lambda model, i: without_caption(model, i, "low_l2")),
    ("pairing", {}, ALONE, pairing()),
    ("pairing", {}, GIVEN, pairing(reference=True)),
    ("clid_mixed", {}, ALONE, clid_mixed(0.9)),
    ("clid_mixed", {"alpha": 0.3}, ALONE, clid_mixed(0.3)),
    ("lira", {}, ALONE, lira(True)),
    ("lira", {"fixed_variance": False}, ALONE, lira(False)),
    ("lira_offline", {}, ALONE, lira_offline(True)),
    ("lira_offline", {"fixed_variance": False}, ALONE, lira_offline(False)),
]
OF_AUTOENCODERS = [
    ("loss", {}, calibrated(error("terms", "loss"))),
    ("loss_per_byte", {}, per_byte("loss")),
    ("reconstruction", {}, calibrated(error("terms", "reconstruction"))),
    ("co_membership", {}, calibrated(error("descent", "squared_error"))),
    ("pfami", {}, pfami(column="loss", reference=True)),
]


@pytest.mark.parametrize(
    ("name", "parameters", "given", "formula"),
    FORMULAS + [(name, parameters, AUTOENCODERS, f) for name, parameters, f in OF_AUTOENCODERS],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_attack_is_its_formula(name, parameters, given, formula):
    expected = [formula(given, i) for i in range(COUNT)]
    found = scores(name, given, **parameters)
    assert sum(math.isfinite(x) for x in expected) >= 9, "too little to compare"
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert math.isnan(found[NO_ANSWER])
    assert found.dtype == np.float64


def test_middle_strength_of_ten_is_the_sixth():
    draws = np.random.default_rng(0)
    model = denoiser(0, 1)
    crops = model.neighbors["crop"]
    ten = replace(crops, values={"l2": draws.uniform(0.1, 2, (1, 10, 3, 2))})
    model = replace(model, neighbors={"crop": ten})
    given = replace(ALONE, pixels=GIVEN.images[:1], target=model)
    assert scores("pfami", given, strengths="one")[0] == pytest.approx(
        fluctuation(model, 0, "crop", "l2", "ratio", [5])
    )


def test_loss_of_zero_gives_finite_scores():
    for model in (denoiser(0), denoiser(1)):
        for answers in (model.terms, model.inversion, model.proximal, model.clean):
            for values in answers.values.values():
                values[3] = 0.0
        for given in (replace(ALONE, target=model), replace(GIVEN, target=model)):
            for name in ("loss", "secmi", "pia", "sima", "pfami", "lira", "quantile"):
                assert np.isfinite(scores(name, given)[3]), name


# ------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", ["loss", "secmi", "pia", "pian", "sima", "clid", "pfami"])
def test_record_that_only_the_reference_has_no_answer_on_has_a_score_alone(name):
    target, reference = denoiser(0), without(denoiser(1), 2)
    with_gap = replace(GIVEN, target=target, reference=reference)
    assert np.isnan(scores(name, with_gap)).nonzero()[0].tolist() == [2]
    assert np.isfinite(scores(name, replace(with_gap, reference=None))).all()


def test_missing_draw_takes_the_score_of_its_record_alone():
    target = denoiser(0)
    target.terms.values["l2"][4, 1, 0] = np.nan
    target.neighbors["crop"].values["l2"][7, 0, 0, 0] = np.nan
    given = replace(ALONE, target=target)
    assert np.isnan(scores("loss", given)).nonzero()[0].tolist() == [4]
    assert np.isfinite(scores("loss", given, timestep=50)).all()
    assert np.isnan(scores("pfami", given)).nonzero()[0].tolist() == [4, 7]
    one = scores("pfami", given, strengths="one")
    assert np.isnan(one).nonzero()[0].tolist() == [4], "the first strength is not used"


def test_record_that_all_shadows_or_none_know_has_no_online_score():
    online, offline = scores("lira", ALONE), scores("lira_offline", ALONE)
    assert np.isnan(online[[6, 11, 12, 13]]).all()
    assert np.isfinite(offline[6])
    assert np.isnan(offline[[11, 12, 13]]).all()


# ------------------------------------------------------------------------- the quantile


def covariates(given):
    rows = []
    for i, image in enumerate(given.images):
        gray = [[[x / 255 for x in row] for row in channel.tolist()] for channel in image]
        flat = [x for channel in gray for row in channel for x in row]
        steps = [(r[k + 1] - r[k]) ** 2 for c in gray for r in c for k in range(len(r) - 1)]
        steps += [
            (c[k + 1][j] - c[k][j]) ** 2
            for c in gray
            for k in range(len(c) - 1)
            for j in range(len(c[0]))
        ]
        share = size_as_png(image) / len(gray[0]) ** 2
        row = [average(flat), statistics.pstdev(flat), average(steps), share]
        if given.reference is not None:
            row.append(-math.log(average(over(given.reference.terms, "l2", i))))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("given", [ALONE, GIVEN], ids=["alone", "with a reference"])
def test_quantile_is_what_a_linear_program_finds(given):
    """The pinball loss minimized by scipy, on covariates that are computed here once more."""
    from scipy.optimize import linprog

    fpr, population = 0.25, given.population
    if given.reference is None:
        population = replace(population, reference=None)
    x = np.column_stack([np.ones(40), covariates(population)])
    y = [-math.log(average(over(population.target.terms, "l2", z))) for z in range(40)]
    level, (rows, columns) = 1 - fpr, x.shape
    solved = linprog(
        np.concatenate([np.zeros(columns), np.full(rows, level), np.full(rows, 1 - level)]),
        A_eq=np.hstack([x, np.eye(rows), -np.eye(rows)]),
        b_eq=y,
        bounds=[(None, None)] * columns + [(0, None)] * (2 * rows),
    )
    predicted = np.column_stack([np.ones(COUNT), covariates(given)]) @ solved.x[:columns]
    own = [-math.log(average(over(given.target.terms, "l2", i))) for i in range(COUNT)]
    found = scores("quantile", replace(given, population=population), fpr=fpr)
    np.testing.assert_allclose(found, np.array(own) - predicted, atol=1e-5)
    assert np.isnan(found).nonzero()[0].tolist() == [NO_ANSWER]


def test_quantile_of_a_small_population_is_not_fitted():
    few = ImageEvidence(GIVEN.population.images[:19], denoiser(101, 19))
    assert np.isnan(scores("quantile", replace(ALONE, population=few))).all()


# ------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["loss", "pia", "pian", "sima", "quantile", "lira"])
def test_timestep_that_was_not_asked_about_is_refused_with_those_that_were(name):
    with pytest.raises(ValueError, match=r"\(50, 100, 200\), but got 75"):
        scores(name, timestep=75)
    assert set(TIMESTEPS) == {50, 100, 200}


@pytest.mark.parametrize("name", ["loss", "pfami", "pfami_nns", "quantile", "lira"])
def test_low_pass_of_an_autoencoder_is_refused(name):
    with pytest.raises(ValueError, match="leave out low_pass, which is for denoisers"):
        scores(name, AUTOENCODERS, low_pass=True)


@pytest.mark.parametrize("name", ["pfami", "pfami_nns"])
def test_perturbation_that_was_not_asked_about_is_refused_with_those_that_were(name):
    with pytest.raises(ValueError, match="'hue'; given: crop, blur"):
        scores(name, perturbation="hue")


def test_neighbors_at_other_timesteps_are_refused():
    crops = replace(denoiser(0).neighbors["crop"], timesteps=(1, 2, 3))
    target = replace(GIVEN.target, neighbors={"crop": crops})
    with pytest.raises(ValueError, match="same timesteps"):
        scores("pfami", replace(ALONE, target=target))
