"""Attacks that ask more than tokens and neighbors: their formulas, transcribed with plain loops."""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import replace

import numpy as np
import pytest
from made_answers import (
    IDS,
    NO_TOKENS,
    REFERENCE,
    TARGET,
    TEXTS,
    evidence,
    f32,
    mean_log_prob,
    neighbor_means,
)

from raymia.attacks import build
from raymia.evidence.text import (
    GradientEvidence,
    NeighborEvidence,
    ShadowEvidence,
    TextEvidence,
    TokenCounts,
)

DRAWS = random.Random(7)
NO_ANSWER = IDS.index("r5")


def per_record(low, high):
    values = np.array([DRAWS.uniform(low, high) for _ in IDS])
    values[NO_ANSWER] = np.nan
    return values


def around(seed):
    draws = random.Random(seed)
    values = np.array([[-draws.uniform(1, 4) for _ in range(6)] for _ in IDS])
    values[NO_ANSWER] = np.nan
    values[2, 3] = np.nan
    return NeighborEvidence(values)


COPIES = [
    [np.array([-DRAWS.uniform(0, 6) for _ in range(DRAWS.randint(2, 40))], np.float32)
     for _ in range(0 if i == NO_ANSWER else 3)]
    for i in range(len(IDS))
]  # fmt: skip
SAMPLES = [
    [] if i == NO_ANSWER else [(4, "words text words"), (4, "same again 1"), (4, "")]
    for i in range(len(IDS))
]
LOWERCASE, PREFIXED, MEMBER_PREFIXED = (per_record(-5, -1) for _ in range(3))
NORMS = GradientEvidence(per_record(0, 3), per_record(0, 3))
COUNTS = TokenCounts(np.array([DRAWS.randint(0, 50) for _ in range(20)]))


def everything():
    plain = evidence()
    target = replace(
        plain.target,
        noise=around(1),
        lowercase=LOWERCASE,
        prefixed=PREFIXED,
        member_prefixed=MEMBER_PREFIXED,
        swaps=COPIES,
        gradient=NORMS,
        samples=SAMPLES,
    )
    return replace(
        plain,
        target=target,
        reference=replace(plain.reference, noise=around(2)),
        population=population(40),
        corpus=COUNTS,
        shadows=shadows(6),
    )


def other_answers(seed, count):
    draws = random.Random(seed)
    return {
        f"z{i}": [(-draws.uniform(0.5, 5), -2.0, 1.0) for _ in range(draws.randint(2, 9))]
        for i in range(count)
    }


def population(count):
    ids = [f"z{i}" for i in range(count)]
    texts = [f"text {i} " * (1 + i % 5) for i in range(count)]
    answers = [(other_answers(seed, count), {}) for seed in (11, 12)]
    return evidence(*answers, ids, texts, 0)


def shadows(count):
    found = []
    for number in range(count):
        draws = random.Random(100 + number)
        tokens = {r: [(-draws.uniform(0.1, 5), -2.0, 1.0)] * 3 for r in IDS}
        model = evidence((tokens, {}), (tokens, {}), count=0).target
        is_in = np.array([i > 8 or (i != 6 and (i + number) % 2 == 0) for i in range(len(IDS))])
        found.append(ShadowEvidence(model, is_in))
    return found


def scores(name, given=None, **parameters):
    return build(name, parameters, "here").score(given or everything())


def q(answers, record):
    return math.exp(mean_log_prob(answers, record))


# ------------------------------------------------------------ the formulas, once more


def lowercase(i):
    return mean_log_prob(TARGET, IDS[i]) / abs(LOWERCASE[i])


def recall(i):
    return PREFIXED[i] / mean_log_prob(TARGET, IDS[i])


def con_recall(gamma):
    def score(i):
        own = mean_log_prob(TARGET, IDS[i])
        return (PREFIXED[i] - gamma * MEMBER_PREFIXED[i]) / own

    return score


def distance(log_prob, high, low):
    ordered = sorted(log_prob)
    tops, bottoms = (max(1, int(k * len(ordered))) for k in (high, low))
    return sum(ordered[len(ordered) - tops :]) / tops - sum(ordered[:bottoms]) / bottoms


def pac(high, low):
    def score(i):
        tokens = TARGET[0][IDS[i]]
        if isinstance(tokens, str) or not COPIES[i]:
            return math.nan
        own = distance([f32(t[0]) for t in tokens], high, low)
        copies = [distance([float(x) for x in copy], high, low) for copy in COPIES[i]]
        return sum(copies) / len(copies) - own

    return score


def grad_norm(norms):
    return lambda i: -norms[i]


def samia(n):
    def score(i):
        if not SAMPLES[i]:
            return math.nan
        rest = TEXTS[i][4:].split()
        grams = [tuple(rest[j : j + n]) for j in range(len(rest) - n + 1)]
        if not grams:
            return math.nan
        recalls = []
        for _, sample in SAMPLES[i]:
            words = sample.split()
            left = [tuple(words[j : j + n]) for j in range(len(words) - n + 1)]
            found = 0
            for gram in grams:
                if gram in left:
                    left.remove(gram)
                    found += 1
            recalls.append(found / len(grams))
        return sum(recalls) / len(recalls)

    return score


def dc_pdd(bound):
    def score(i):
        tokens = TARGET[0][IDS[i]]
        if isinstance(tokens, str):
            return math.nan
        total, vocabulary = int(COUNTS.counts.sum()), len(COUNTS.counts)
        seen, terms = set(), []
        for token, (log_prob, _, _) in enumerate(tokens):
            if token not in seen:
                seen.add(token)
                frequency = (1 + int(COUNTS.counts[token])) / (total + vocabulary)
                terms.append(min(math.exp(f32(log_prob)) * math.log(1 / frequency), bound))
        return sum(terms) / len(terms)

    return score


def rmia(gamma, a):
    target, reference = (other_answers(seed, 40) for seed in (11, 12))

    def ratio(own, other):
        return own / (0.5 * ((1 + a) * other + (1 - a)))

    others = [
        ratio(q((target, {}), z), q((reference, {}), z)) for z in (f"z{i}" for i in range(40))
    ]

    def score(i):
        own = ratio(q(TARGET, IDS[i]), q(REFERENCE, IDS[i]))
        return math.nan if math.isnan(own) else sum(own / z > gamma for z in others) / 40

    return score


def variation(answers, noise, i, symmetric, change):
    own = change(mean_log_prob(answers, IDS[i]))
    found = noise.mean_log_prob[i]
    found = [x for k, x in enumerate(found) if not math.isnan(x) and (symmetric or k % 2 == 0)]
    return sum(change(x) for x in found) / len(found) - own if found else math.nan


def spv_embedding(symmetric, change):
    def score(i):
        v = [
            variation(answers, around(seed), i, symmetric, change)
            for answers, seed in ((TARGET, 1), (REFERENCE, 2))
        ]
        return -(v[0] - v[1])

    return score


def neighbor_probability(i):
    means = [math.exp(m) for m in neighbor_means(TARGET, IDS[i])]
    return q(TARGET, IDS[i]) - sum(means) / len(means) if means else math.nan


def logit(value):
    return math.log(value / (1 - value))


def shadow_logits(i, wanted):
    return [
        logit(math.exp(float(shadow.model.tokens.mean()[i])))
        for shadow in shadows(6)
        if shadow.is_in[i] == wanted
    ]


def spread(i, wanted, fixed):
    """Variance around each record's own mean: of one record, or pooled over all."""
    squares, free = 0.0, 0
    for j in range(len(IDS)) if fixed else [i]:
        values = shadow_logits(j, wanted)
        if values:
            mean = sum(values) / len(values)
            squares += sum((v - mean) ** 2 for v in values)
            free += len(values) - 1
    return squares / free if free else math.nan


def lira(fixed):
    def score(i):
        phi = logit(q(TARGET, IDS[i])) if IDS[i] != NO_TOKENS else math.nan
        parts = []
        for wanted in (True, False):
            values = shadow_logits(i, wanted)
            if not values:
                return math.nan
            mean, variance = sum(values) / len(values), spread(i, wanted, fixed)
            parts.append(-((phi - mean) ** 2) / (2 * variance) - math.log(variance) / 2)
        return parts[0] - parts[1]

    return score


def lira_offline(fixed):
    def score(i):
        values = shadow_logits(i, False)
        if not values or IDS[i] == NO_TOKENS:
            return math.nan
        return (logit(q(TARGET, IDS[i])) - sum(values) / len(values)) / math.sqrt(
            spread(i, False, fixed)
        )

    return score


FORMULAS = [
    ("lowercase", {}, lowercase),
    ("recall", {}, recall),
    ("con_recall", {}, con_recall(0.5)),
    ("con_recall", {"gamma": 1.0}, con_recall(1.0)),
    ("pac", {}, pac(0.05, 0.3)),
    ("pac", {"high": 0.5, "low": 0.1}, pac(0.5, 0.1)),
    ("grad_norm", {}, grad_norm(NORMS.largest)),
    ("grad_norm", {"norm": 2}, grad_norm(NORMS.l2)),
    ("samia", {}, samia(1)),
    ("samia", {"n": 2}, samia(2)),
    ("dc_pdd", {}, dc_pdd(0.01)),
    ("dc_pdd", {"bound": 2.0}, dc_pdd(2.0)),
    ("rmia", {}, rmia(1.0, 1.0)),
    ("rmia", {"gamma": 1.5, "a": 0.3}, rmia(1.5, 0.3)),
    ("spv_embedding", {}, spv_embedding(True, math.exp)),
    ("spv_embedding", {"symmetric": False}, spv_embedding(False, math.exp)),
    ("spv_embedding", {"space": "log"}, spv_embedding(True, float)),
    ("neighbor", {"space": "probability"}, neighbor_probability),
    ("lira", {}, lira(True)),
    ("lira", {"fixed_variance": False}, lira(False)),
    ("lira_offline", {}, lira_offline(True)),
    ("lira_offline", {"fixed_variance": False}, lira_offline(False)),
]


@pytest.mark.parametrize(
    ("name", "parameters", "formula"), FORMULAS, ids=lambda x: x if isinstance(x, str) else None
)
def test_attack_is_its_formula(name, parameters, formula):
    expected = [formula(i) for i in range(len(IDS))]
    found = scores(name, **parameters)
    assert sum(math.isfinite(x) for x in expected) >= 7, "too little to compare"
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert found.dtype == np.float64


# ------------------------------------------------------------------------- quantiles


def test_quantile_is_what_a_linear_program_finds():
    """The pinball loss minimized by scipy, on covariates that are computed here once more."""
    from scipy.optimize import linprog

    given, fpr = everything(), 0.25
    x = np.column_stack([np.ones(40), covariates(given.population)])
    y = given.population.target.tokens.mean()
    level, (rows, columns) = 1 - fpr, x.shape
    solved = linprog(
        np.concatenate([np.zeros(columns), np.full(rows, level), np.full(rows, 1 - level)]),
        A_eq=np.hstack([x, np.eye(rows), -np.eye(rows)]),
        b_eq=y,
        bounds=[(None, None)] * columns + [(0, None)] * (2 * rows),
    )
    predicted = np.column_stack([np.ones(12), covariates(given)]) @ solved.x[:columns]
    expected = given.target.tokens.mean() - predicted
    found = scores("quantile", fpr=fpr)
    assert np.isnan(found).tolist() == np.isnan(expected).tolist()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def covariates(given):
    return np.array(
        [
            [m, len(zlib.compress(t.encode())) / len(t), math.log(len(t))]
            for t, m in zip(given.texts, given.reference.tokens.mean(), strict=True)
        ]
    )


def test_quantile_of_a_small_population_is_not_fitted():
    found = scores("quantile", replace(everything(), population=population(19)))
    assert np.isnan(found).all()


NAMES = sorted({name for name, _, _ in FORMULAS} | {"quantile"})


# ----------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("samia", "grad_norm")])
def test_record_without_tokens_has_no_score(name):
    assert np.isnan(scores(name)[IDS.index(NO_TOKENS)])


@pytest.mark.parametrize(
    "name",
    ["lowercase", "recall", "con_recall", "pac", "grad_norm", "samia", "spv_embedding"],
)
def test_record_without_an_answer_has_no_score(name):
    found = scores(name)
    assert np.isnan(found[NO_ANSWER])
    assert np.isfinite(found[4])


def test_record_that_all_shadows_or_none_know_has_no_online_score():
    online, offline = scores("lira"), scores("lira_offline")
    assert np.isnan(online[[6, 9, 10, 11]]).all()
    assert np.isfinite(offline[6])
    assert np.isnan(offline[[9, 10, 11]]).all()


def test_one_shadow_without_the_record_is_enough_offline():
    given = replace(everything(), shadows=shadows(6)[:1])
    found, is_in = scores("lira_offline", given), given.shadows[0].is_in
    expected = [
        logit(q(TARGET, r)) - logit(math.exp(float(given.shadows[0].model.tokens.mean()[i])))
        if not is_in[i] and r != NO_TOKENS
        else math.nan
        for i, r in enumerate(IDS)
    ]
    assert sum(map(math.isfinite, expected)) >= 3
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rest_shorter_than_an_n_gram_has_no_score():
    given = everything()
    short = replace(given, texts=["a b c d"] * len(IDS))
    assert np.isnan(scores("samia", short, n=3)[0])


def test_repeated_word_is_found_as_often_as_it_was_written():
    given = everything()
    one = TextEvidence(["go the the the end"], replace(given.target, samples=[[(3, "the the")]]))
    assert scores("samia", one)[0] == pytest.approx(2 / 4)


def test_token_that_the_corpus_lacks_is_rare_and_finite():
    given = replace(everything(), corpus=TokenCounts(np.zeros(20, np.int64)))
    assert np.isfinite(scores("dc_pdd", given)[4])


def test_token_outside_the_tokenizer_has_no_score():
    given = replace(everything(), corpus=TokenCounts(np.ones(3, np.int64)))
    assert np.isnan(scores("dc_pdd", given)[4])


def test_population_without_evidence_gives_no_score():
    empty = replace(everything(), population=evidence(({}, {}), ({}, {}), ["z"], ["t"], 0))
    assert np.isnan(scores("rmia", empty)).all()
    assert np.isnan(scores("quantile", empty)).all()
