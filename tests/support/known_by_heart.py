"""A target that knows its members by heart, and all that any attack on texts or images may ask.

One record has no answer from any model. All arrays are read-only, so that an attack that writes to
what it is given fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

import made_image_evidence as images
import numpy as np
from drawn_answers import drawn
from made_evidence import model_evidence

from raymia.attacks import Attack
from raymia.evidence.image import ImageEvidence, ImageShadowEvidence
from raymia.evidence.text import (
    GradientEvidence,
    LabelledScores,
    ModelEvidence,
    ShadowEvidence,
    TextEvidence,
    TokenCounts,
    TokenEvidence,
)
from raymia.questions.base import registered
from raymia.questions.registry import families_for

COUNT = 90
NO_ANSWER = images.NO_ANSWER
SHADOWS = 8
IS_MEMBER = np.random.default_rng(0).random(COUNT) < 0.5
WORDS = "it was a truth that every one of them knew and none would ever say aloud"
IDS = [f"r{i}" for i in range(COUNT)]
TELLING = ("tokens", "gradient", "samples", "other_answer")
"""Questions on texts whose answers tell members by themselves; those to any other are drawn."""
FOR_ALL = ("population", "samples", "corpus", "chosen")
"""Fields of all that an attack may look at that are not about the records."""


def in_shadow(number: int) -> np.ndarray:
    """Half of the shadows were trained on a record, whichever it is."""
    return (np.arange(COUNT) + number) % 2 == 0


# ------------------------------------------------------------------------------------- texts


def _texts(count: int) -> list[str]:
    words = WORDS.split()
    draws = np.random.default_rng(7)
    return [" ".join(draws.choice(words, 6 + i % 9)) for i in range(count)]


def _language_model(
    seed: int, texts: Sequence[str], known: np.ndarray, missing: int | None
) -> ModelEvidence:
    """Answers whose losses on known records are a seventh of those on others, and whose likeliest
    token is far more often the record's own."""
    draws = np.random.default_rng(seed)
    tokens: dict[str, Any] = {}
    for i, text in enumerate(texts):
        length = len(text.split())
        log_prob = -draws.uniform(6, 10, length) * (0.15 if known[i] else 1.0)
        mean, std = -draws.uniform(1.5, 4, length), draws.uniform(0.5, 2, length)
        answer = list(zip(log_prob.tolist(), mean.tolist(), std.tolist(), strict=True))
        tokens[f"r{i}"] = "no answer" if i == missing else answer
    plain = model_evidence([f"r{i}" for i in range(len(texts))], tokens)
    share = np.repeat(np.where(known, 0.9, 0.2), plain.tokens.counts)
    is_top1 = np.random.default_rng((seed, 1)).random(len(share)) < share

    def column(low: float, high: float) -> np.ndarray:
        values = draws.uniform(low, high, len(texts))
        if missing is not None:
            values[missing] = np.nan
        return values

    less = np.where(known, 0.2, 1.0)
    samples = []
    for i, text in enumerate(texts):
        start = len(" ".join(text.split()[:2]))
        written = text[start:] if known[i] else "nothing of this was in it"
        samples.append([(start, written), (start, "and other words")])
    if missing is not None:
        samples[missing] = []
    others = [name for name in ModelEvidence.names() if name not in TELLING]
    return replace(
        plain,
        **drawn("text", "causal", others, len(texts), missing, seed),
        tokens=replace(plain.tokens, is_top1=is_top1),
        gradient=GradientEvidence(column(1, 2) * less, column(1, 2) * less),
        samples=samples,
        other_answer=column(-60, -50) - 30.0 * known,
    )


@cache
def texts_known_by_heart(_families: frozenset[str] | None) -> TextEvidence:
    texts, others = _texts(COUNT), _texts(50)
    of_nobody = np.zeros(COUNT, bool)
    draws = np.random.default_rng(5)
    columns = {f"a{n}": draws.normal(size=COUNT) + 3 * IS_MEMBER for n in range(3)}
    for scores in columns.values():
        scores[NO_ANSWER] = np.nan
    return frozen(
        TextEvidence(
            texts=texts,
            target=_language_model(1, texts, IS_MEMBER, NO_ANSWER),
            reference=_language_model(2, texts, of_nobody, NO_ANSWER),
            shadows=[
                ShadowEvidence(
                    _language_model(10 + n, texts, in_shadow(n), NO_ANSWER), in_shadow(n)
                )
                for n in range(SHADOWS)
            ],
            population=TextEvidence(
                others,
                *(_language_model(seed, others, np.zeros(50, bool), None) for seed in (31, 32)),
                shadows=[
                    ShadowEvidence(
                        _language_model(40 + n, others, np.zeros(50, bool), None),
                        np.zeros(50, bool),
                    )
                    for n in range(SHADOWS)
                ],
            ),
            units=IDS,
            corpus=TokenCounts(np.arange(30, dtype=np.int64)),
            labelled=LabelledScores(columns, IS_MEMBER.tolist(), IDS),
            signs=np.ones(COUNT),
        )
    )


# ------------------------------------------------------------------------------------ images


@cache
def images_known_by_heart(families: frozenset[str] | None) -> ImageEvidence:
    """Of a denoiser; of another model for what can be run on no denoiser."""
    family = "denoiser" if families is None or "denoiser" in families else min(families)
    make = images.autoencoder if family == "autoencoder" else images.denoiser
    known = images.overfitted(COUNT, make=make)
    draws = np.random.default_rng(5)
    columns = {f"a{n}": draws.normal(size=COUNT) + 3 * np.array(known.labels.is_member)
               for n in range(3)}  # fmt: skip
    for scores in columns.values():
        scores[NO_ANSWER] = np.nan

    def whole(model: Any, seed: int, missing: int | None = None) -> Any:
        """With answers to what `make` knows nothing of."""
        can = {question.name for question in registered("image") if family in question.families}
        rest = [name for name in model.names() if name in can and getattr(model, name) is None]
        return replace(model, **drawn("image", family, rest, len(model.terms.loss), missing, seed))

    def answers(seed: int, is_in: np.ndarray) -> Any:
        known = images.known(make(seed, COUNT), is_in, 0.3)
        return whole(images.without(known, NO_ANSWER), seed, NO_ANSWER)

    return frozen(
        replace(
            known,
            target=whole(images.without(known.target, NO_ANSWER), 503, NO_ANSWER),
            reference=answers(500, np.zeros(COUNT, bool)),
            shadows=[ImageShadowEvidence(answers(n, in_shadow(n)), in_shadow(n))
                     for n in range(SHADOWS)],
            population=replace(
                take(known.population, range(40)),
                target=whole(make(501, 40), 501), reference=whole(make(502, 40), 502),
            ),
            samples=known.samples[::4],  # fewer than trees have bins, for which they compute long
            labelled=LabelledScores(columns, known.labels.is_member, IDS),
        )
    )  # fmt: skip


# ----------------------------------------------------------------------- evidence as a tree


def frozen(value: Any) -> Any:
    """The same evidence, with arrays that nobody can write to."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, Mapping):
        for item in value.values():
            frozen(item)
    elif isinstance(value, list):
        for item in value:
            frozen(item)
    elif is_dataclass(value):
        for field in fields(value):
            frozen(getattr(value, field.name))
    return value


def take(value: Any, rows: Sequence[int]) -> Any:
    """Evidence on some of the records, or on all in another order."""
    if isinstance(value, TokenEvidence):
        return _take_tokens(value, rows)
    if isinstance(value, np.ndarray):
        return value[np.asarray(rows)]
    if isinstance(value, list):
        return [value[row] for row in rows]
    if isinstance(value, Mapping):
        return {name: take(item, rows) for name, item in value.items()}
    if not is_dataclass(value):
        return value
    found = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    for name, item in found.items():
        if name == "shadows":
            found[name] = [take(shadow, rows) for shadow in item]
        elif not isinstance(value, TextEvidence | ImageEvidence) or name not in FOR_ALL:
            found[name] = take(item, rows)
    return replace(value, **found)  # type: ignore[type-var]


def _take_tokens(tokens: TokenEvidence, rows: Sequence[int]) -> TokenEvidence:
    pieces = [np.arange(tokens.offsets[row], tokens.offsets[row + 1]) for row in rows]
    picked = np.concatenate(pieces).astype(np.int64)
    columns = ("token_ids", "log_prob", "mean_log_prob", "std_log_prob", "is_top1")
    return TokenEvidence(
        np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        *(getattr(tokens, column)[picked] for column in columns),
    )


def relabeled(evidence: Any) -> Any:
    """The same evidence, but members are called non-members, and they members."""
    flipped = {
        name: replace(given, is_member=[not label for label in given.is_member])
        for name in ("labels", "labelled")
        if (given := getattr(evidence, name, None)) is not None
    }
    return replace(evidence, **flipped)


@dataclass(frozen=True)
class Kind:
    """A kind of records, for tests that hold of every attack on it.

    Attributes
    ----------
    known_by_heart : evidence for attacks on some families of models.
    is_member : whom the target knows.
    nothing : evidence without an answer.
    """

    known_by_heart: Callable[[frozenset[str] | None], Any]
    is_member: Sequence[bool]
    nothing: Any


KINDS = {
    "text": Kind(
        texts_known_by_heart,
        IS_MEMBER.tolist(),
        TextEvidence(_texts(COUNT), model_evidence(IDS, {})),
    ),
    "image": Kind(
        images_known_by_heart,
        [bool(label) for label in images.overfitted(COUNT).labels.is_member],
        ImageEvidence(images.pictures(0, COUNT), None),
    ),
}


def given(attack: type[Attack], records: str, beside_a_reference: bool) -> Any:
    """What an attack is given: a reference and shadows only where it runs with them."""
    evidence = KINDS[records].known_by_heart(families_for(attack(), records))
    return replace(
        evidence,
        reference=evidence.reference if beside_a_reference else None,
        shadows=evidence.shadows if "shadows" in attack.needs else (),
    )
