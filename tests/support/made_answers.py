"""Answers of two made models on ragged records, for tests of attacks."""

from __future__ import annotations

import math
import random

import numpy as np
from made_evidence import model_evidence

from raymia.attacks import build
from raymia.evidence.text import TextEvidence

COUNT = 4
IDS = [f"r{i}" for i in range(12)]
TEXTS = [f"{'the same words again ' * (i % 4)}text {i} é🦄" for i in range(12)]
NO_TOKENS, NO_NEIGHBORS = "r3", "r7"


def made_answers(seed):
    """Answers of one model as plain dictionaries; one record without tokens, one without neighbors,
    and some neighbors that could not be made."""
    draws = random.Random(seed)
    tokens, neighbors = {}, {}
    for number, record in enumerate(IDS):
        length = 1 + (number * 5) % 13
        tokens[record] = [
            (-draws.expovariate(0.4), -draws.uniform(1, 4), draws.uniform(0.3, 2.5))
            for _ in range(length)
        ]
        for n in range(1, COUNT + 1):
            count = draws.randint(3, 15)
            gone = record == NO_NEIGHBORS or (number + n) % 5 == 0
            neighbors[record, n] = "not filled" if gone else (-count * draws.uniform(1, 4), count)
    tokens[NO_TOKENS] = "fewer than two tokens"
    return tokens, neighbors


TARGET, REFERENCE = made_answers(1), made_answers(2)


def evidence(target=TARGET, reference=REFERENCE, ids=IDS, texts=TEXTS, count=COUNT):
    return TextEvidence(
        texts, model_evidence(ids, *target, count), model_evidence(ids, *reference, count),
        signs=np.array([-1.0 if record.endswith("1") else 1.0 for record in ids]),
    )  # fmt: skip


def scores(name, given_evidence=None, **parameters):
    attack = build(name, parameters, "attacks[0]")
    return attack.score(given_evidence or evidence())


def f32(x):
    """What is left of a number in the store."""
    return float(np.float32(x))


def mean_log_prob(answers, record):
    tokens = answers[0][record]
    if isinstance(tokens, str):
        return math.nan
    return sum(f32(log_prob) for log_prob, _, _ in tokens) / len(tokens)


def neighbor_means(answers, record):
    found = (answers[1][record, n] for n in range(1, COUNT + 1))
    return [a[0] / a[1] for a in found if not isinstance(a, str)]


def average(values):
    return sum(values) / len(values) if values else math.nan


def one(log_prob, mean=-3.0, std=1.0, length=8):
    return [(log_prob, mean, std)] * length
