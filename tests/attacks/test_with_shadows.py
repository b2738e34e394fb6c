"""RMIA, quantile regression and a classifier on shadows: their formulas, by plain loops."""

from __future__ import annotations

import math
import statistics
import zlib
from dataclasses import replace

import numpy as np
import pytest
from made_evidence import model_evidence
from scipy.optimize import linprog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from raymia.attacks import build
from raymia.evidence.text import ShadowEvidence, TextEvidence
from raymia.metrics.learning import fold_of

RECORDS, POPULATION, SHADOWS = 40, 30, 6
IDS = [f"r{n}" for n in range(RECORDS)]
TEXTS = [f"text number {n} " * (1 + n % 4) for n in range(RECORDS)]
OTHERS = [f"another text {n} " * (1 + n % 3) for n in range(POPULATION)]
IS_IN = (np.arange(RECORDS)[None] + np.arange(SHADOWS)[:, None]) % 2 == 0
IS_IN[:, 7] = False  # no shadow knows this one
IS_MEMBER = np.random.default_rng(3).random(RECORDS) < 0.5


def log_probs(seed, known):
    """Of the tokens of each text; known ones are likelier."""
    draws = np.random.default_rng(seed)
    return [-draws.uniform(0.5, 3, 4 + n % 7) * (0.5 if k else 1) for n, k in enumerate(known)]


TARGET = log_probs(0, IS_MEMBER)
OF_SHADOWS = [log_probs(1 + n, IS_IN[n]) for n in range(SHADOWS)]
NOBODY = np.zeros(POPULATION, bool)
TARGET_ON_OTHERS = log_probs(50, NOBODY)
SHADOWS_ON_OTHERS = [log_probs(51 + n, NOBODY) for n in range(SHADOWS)]


def model(tokens):
    ids = [f"r{n}" for n in range(len(tokens))]
    rows = {i: [(float(x), -2.0, 1.0) for x in own] for i, own in zip(ids, tokens, strict=True)}
    return model_evidence(ids, rows)


def shadows(tokens, is_in):
    return [ShadowEvidence(model(one), who) for one, who in zip(tokens, is_in, strict=True)]


EVIDENCE = TextEvidence(
    TEXTS,
    model(TARGET),
    shadows=shadows(OF_SHADOWS, IS_IN),
    population=TextEvidence(
        OTHERS, model(TARGET_ON_OTHERS), shadows=shadows(SHADOWS_ON_OTHERS, [NOBODY] * SHADOWS)
    ),
    units=IDS,
)


def score(name, evidence=EVIDENCE, **parameters):
    return build(name, parameters, "here").score(evidence)


def q(tokens):
    return math.exp(sum(map(float, np.float32(tokens))) / len(tokens))


@pytest.mark.parametrize(("gamma", "a"), [(1.0, 1.0), (1.3, 0.4)])
def test_rmia_is_the_share_of_the_population_that_is_dominated(gamma, a):
    def ratio(target, known, unknown):
        out = statistics.fmean(unknown)
        inside = statistics.fmean(known) if known else a * out + 1 - a
        return q(target) / ((inside + out) / 2)

    def of_record(n):
        sides = [[], []]
        for shadow in range(SHADOWS):
            sides[int(IS_IN[shadow, n])].append(q(OF_SHADOWS[shadow][n]))
        return ratio(TARGET[n], sides[1], sides[0])

    others = [
        ratio(TARGET_ON_OTHERS[z], [], [q(one[z]) for one in SHADOWS_ON_OTHERS])
        for z in range(POPULATION)
    ]
    expected = [
        sum(of_record(n) / other > gamma for other in others) / POPULATION for n in range(RECORDS)
    ]
    assert len(set(expected)) > 5
    assert score("rmia_shadows", gamma=gamma, a=a) == pytest.approx(expected)


def test_the_quantile_is_what_a_linear_program_finds():
    def covariates(text, values):
        size = len(zlib.compress(text.encode())) / len(text)
        return [1.0, statistics.fmean(values), statistics.stdev(values), size, math.log(len(text))]

    def log_q(tokens):
        return math.log(q(tokens))

    rows = np.array([
        covariates(OTHERS[z], [log_q(one[z]) for one in SHADOWS_ON_OTHERS])
        for z in range(POPULATION)
    ])  # fmt: skip
    y = np.array([log_q(tokens) for tokens in TARGET_ON_OTHERS])
    fpr = 0.2
    eye, width = np.eye(POPULATION), rows.shape[1]
    fitted = linprog(  # pinball loss: y = X b + above - below
        [*[0.0] * width, *[1 - fpr] * POPULATION, *[fpr] * POPULATION],
        A_eq=np.hstack([rows, eye, -eye]),
        b_eq=y,
        bounds=[(None, None)] * width + [(0, None)] * 2 * POPULATION,
    )
    expected = []
    for n in range(RECORDS):
        without = [log_q(OF_SHADOWS[k][n]) for k in range(SHADOWS) if not IS_IN[k, n]]
        expected.append(log_q(TARGET[n]) - np.dot(covariates(TEXTS[n], without), fitted.x[:width]))
    assert score("quantile_shadows", fpr=fpr) == pytest.approx(expected, abs=1e-4)


def test_the_classifier_learns_from_shadows_on_other_records():
    def features(tokens):
        tokens = [float(x) for x in np.float32(tokens)]
        lowest = sorted(tokens)[: max(1, int(0.2 * len(tokens)))]
        return [statistics.fmean(tokens), statistics.fmean(lowest), statistics.pstdev(tokens)]

    def row(tokens, n, without):
        others = [
            features(OF_SHADOWS[k][n]) for k in range(SHADOWS) if k != without and not IS_IN[k, n]
        ]
        own, mean = features(tokens), np.mean(others, axis=0)
        return [*own, *(np.array(own) - mean)]

    folds = fold_of(IDS, 5, "fold of a learned attack")
    pairs = [(k, m) for k in range(SHADOWS) for m in range(RECORDS)]
    rows = np.array([row(OF_SHADOWS[k][m], m, k) for k, m in pairs])
    known = np.array([IS_IN[k, m] for k, m in pairs])
    expected = np.zeros(RECORDS)
    for fold in range(5):
        learnt = np.array([folds[m] != fold for _, m in pairs])
        middle = np.median(rows[learnt], axis=0)
        scale = np.subtract(*np.percentile(rows[learnt], [75, 25], axis=0))
        learned = LogisticRegression(C=0.1, max_iter=5_000)
        learned.fit((rows[learnt] - middle) / scale, known[learnt])
        for n in np.flatnonzero(folds == fold):
            own = (np.array([row(TARGET[n], n, None)]) - middle) / scale
            expected[n] = learned.decision_function(own)[0]
    assert score("learned_shadows") == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["rmia_shadows", "quantile_shadows", "learned_shadows"])
def test_members_score_higher_and_no_label_is_looked_at(name):
    assert EVIDENCE.labelled is None
    assert roc_auc_score(IS_MEMBER, score(name)) > 0.9


@pytest.mark.parametrize("name", ["rmia_shadows", "quantile_shadows", "learned_shadows"])
def test_a_record_that_all_shadows_know_has_no_score(name):
    all_know = IS_IN.copy()
    all_know[:, 3] = True
    given = replace(EVIDENCE, shadows=shadows(OF_SHADOWS, all_know))
    assert np.flatnonzero(np.isnan(score(name, given))).tolist() == [3]
