"""The check: every guesser is asked, and the strongest is what attacks have to beat."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy

from raymia.metrics.comparison import holm
from raymia.metrics.delong import auc_variance, placements
from raymia.metrics.learning import fold_of, one_thread
from raymia.metrics.summary import Estimate
from raymia.shift.copies import copied_images, copied_texts, copies_within
from raymia.shift.cross_fitting import FOLDS, Classifier, KernelRidge, guess_out_of_fold
from raymia.shift.images import AnyImages, ImageFeatures, png_size, statistics, thumbnails
from raymia.shift.labelings import aucs, p_value, random_labelings, widening
from raymia.shift.overlap import near_duplicate_images, near_duplicate_texts, ngram_overlap
from raymia.shift.result import BlindGuess, CopiesWithin, NearDuplicates, NgramOverlap, ShiftCheck
from raymia.shift.texts import Markers, TextFeatures, compressed_sizes, lengths
from raymia.util.draws import generator

MIN_UNITS = 25
"""Members, and non-members, below which nothing is checked; groups count once. Even so few show
nothing but a gross shift."""
LABELINGS = 999
TIMES_LARGER, NEVER_CUT_BELOW = 10, 2_000
"""What one kind of records has beyond ten times the other, and beyond 2,000, tells little more."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class KnownRecords:
    """The members and non-members of an audit.

    Attributes
    ----------
    ids, is_member : [records].
    units : [records], a record's group, or what names it alone: what must not be split.
    texts : [records]; for images their captions, empty where there is none at all.
    images : of the records, each uint8 [channels, height, width]; None for texts. They are gone
        through one by one, so that of many, read when they are looked at, few are ever held.
    otherwise : [records], the same of what else targets are scored on, by a name of the choice.
    prompts : [records], what stands in them and is not scored; empty where there is no such thing.
    references : for each reference that exists already, the score of the record by the loss under
        it alone, [records]; NaN for none.
    left_out : members and non-members that are not among them.
    """

    ids: Sequence[str]
    is_member: Bools
    units: Sequence[str]
    texts: Sequence[str]
    images: AnyImages | None
    references: Mapping[str, Floats]
    left_out: int = 0
    prompts: Sequence[str] = ()
    otherwise: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def at(self, rows: npt.NDArray[np.int64]) -> KnownRecords:
        """Some of the records."""
        places = rows.tolist()
        return KnownRecords(
            [self.ids[row] for row in places],
            self.is_member[rows],
            [self.units[row] for row in places],
            [self.texts[row] for row in places],
            None if self.images is None else self.images[rows],
            {name: scores[rows] for name, scores in self.references.items()},
            prompts=[self.prompts[row] for row in places] if self.prompts else (),
            otherwise={on: [own[row] for row in places] for on, own in self.otherwise.items()},
        )


@dataclass(frozen=True)
class Blind:
    """What the gate found.

    Attributes
    ----------
    scores : of the strongest guesser by record id, a higher one for a member; empty where nothing
        was checked.
    wider : how much more its AUC scatters than DeLong's standard deviation says, at least 1.
    clusters : a name for each cluster of near-copies on one side, by record id.
    """

    check: ShiftCheck
    scores: Mapping[str, float]
    wider: float = 1.0
    clusters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Guesser:
    """A classifier, or one value per record that is taken as it is."""

    name: str
    title: str
    classifier: Classifier | None = None
    values: Floats | None = None


@dataclass(frozen=True)
class _Guessed:
    """Scores of the records in ``rows``, turned so that a higher one is a member's."""

    guess: BlindGuess
    rows: npt.NDArray[np.int64]
    scores: Floats
    wider: float


def most_for_guessers(is_member: Bools) -> int:
    """How many records of each kind, at most, guessers are asked about."""
    members = int(np.count_nonzero(is_member))
    return max(NEVER_CUT_BELOW, TIMES_LARGER * min(members, len(is_member) - members))


def sampled_rows(is_member: Bools, most: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose records by row, in their order: of each kind, ``most`` at most."""
    kinds = [np.flatnonzero(is_member), np.flatnonzero(~is_member)]
    draws = generator(seed, "sample of the shift check")
    kept = [draws.choice(rows, most, replace=False) if len(rows) > most else rows for rows in kinds]
    return np.sort(np.concatenate(kept))


def check_shift(
    records: KnownRecords, *, error_rate: float, seed: int, confidence: float = 0.95
) -> Blind:
    """Let guessers that see no target tell members from non-members.

    Copies on one side are looked for among all the records, also where these are too few for
    guessers. Where one kind has far more, guessers are asked about some of it.

    The verdict is `shift` if one of them does better than on all but a few random labelings of the
    same records, corrected by Holm for their number.

    Parameters
    ----------
    error_rate : chance of the verdict `shift` on a random split, at most.
    confidence : nominal level of the intervals.
    """
    searched, records = records, _for_guessers(records, seed)
    is_member = records.is_member
    reason = _too_few(searched) or _too_few(records)
    if reason is not None:
        return not_checked(searched, error_rate, reason)
    with one_thread():
        guessers = list(_guessers(records))
        labelings = random_labelings(
            is_member,
            records.units,
            max(LABELINGS, math.ceil(2 * len(guessers) / error_rate)),
            generator(seed, "random labelings"),
        )
        found = [
            guessed
            for guesser in guessers
            if (guessed := _guess(guesser, records, labelings, seed, confidence)) is not None
        ]
        overlap, duplicates = _overlaps(records)
        copies, clusters = _copies(searched)
    corrected = holm(np.array([one.guess.p_value for one in found])).tolist()
    guesses = [
        one.guess.model_copy(update={"corrected_p_value": p})
        for one, p in zip(found, corrected, strict=True)
    ]
    order = sorted(
        range(len(found)),
        key=lambda n: (
            corrected[n] > error_rate,
            not guesses[n].stops(len(guesses)),
            -guesses[n].auc.value,
        ),
    )
    best = found[order[0]]
    return Blind(
        ShiftCheck(
            state="shift" if min(corrected) <= error_rate else "no_shift_found",
            error_rate=error_rate,
            labelings=labelings.shape[1] - 1,
            n_members=int(is_member.sum()),
            n_non_members=int((~is_member).sum()),
            left_out=records.left_out,
            guesses=[guesses[n] for n in order],
            ngram_overlap=overlap,
            near_duplicates=duplicates,
            same_text=_same_texts(records),
            searched=len(searched.ids),
            copies=copies,
        ),
        {records.ids[row]: float(s) for row, s in zip(best.rows, best.scores, strict=True)},
        best.wider,
        clusters,
    )


def _for_guessers(records: KnownRecords, seed: int) -> KnownRecords:
    rows = sampled_rows(records.is_member, most_for_guessers(records.is_member), seed)
    beyond = len(records.ids) - len(rows)
    return replace(records.at(rows), left_out=records.left_out + beyond) if beyond else records


def not_checked(records: KnownRecords, error_rate: float, reason: str) -> Blind:
    """What is found where no guesser is asked: copies on one side, which tests against chance rest
    on and which the fewest of records may have."""
    with one_thread():
        copies, clusters = _copies(records)
    members = int(records.is_member.sum())
    check = ShiftCheck(
        state="not_checked",
        reason=reason,
        error_rate=error_rate,
        n_members=members,
        n_non_members=len(records.ids) - members,
        left_out=records.left_out,
        searched=len(records.ids),
        copies=copies,
    )
    return Blind(check, {}, clusters=clusters)


def _too_few(records: KnownRecords) -> str | None:
    counts = []
    for kind, name in ((True, "members"), (False, "non-members")):
        rows = np.flatnonzero(records.is_member == kind)
        if not len(rows):
            return f"there are no {name}"
        units = {records.units[row] for row in rows.tolist()}
        grouped = "" if len(units) == len(rows) else f" in {len(units):,} groups"
        counts.append((len(units), f"{len(rows):,} {name}{grouped}"))
    if min(count for count, _ in counts) >= MIN_UNITS:
        return None
    return (
        f"it takes at least {MIN_UNITS} members and {MIN_UNITS} non-members, each group "
        f"counting once; there are {' and '.join(text for _, text in counts)}"
    )


def _guessers(records: KnownRecords) -> Iterator[_Guesser]:
    images = records.images
    if images is None:
        yield from _on_texts(records.texts)
        for choice, texts in records.otherwise.items():
            for one in _on_texts(texts):
                yield replace(one, name=f"{one.name}:{choice}", title=f"{one.title} of {choice}")
        if records.prompts:
            title = "prompts (which are not scored)"
            yield _Guesser("prompt", title, _ridge_on(records.prompts))
    else:
        looks = KernelRidge(ImageFeatures(statistics(images)))
        yield _Guesser("statistics", "colors, frequencies and compression", looks)
        small = KernelRidge(ImageFeatures(thumbnails(images)))
        yield _Guesser("thumbnail", "thumbnails", small)
        if any(records.texts):
            yield _Guesser("caption", "captions", _ridge_on(records.texts))
        sizes = np.array([png_size(image) for image in images], np.float64)
        yield _Guesser("png", "the size as a PNG", values=sizes)
    for name, scores in records.references.items():
        yield _Guesser(f"loss@{name}", f"the loss under {name} alone", values=scores)


def _on_texts(texts: Sequence[str]) -> Iterator[_Guesser]:
    yield _Guesser("text", "words, characters and lengths", _ridge_on(texts))
    yield _Guesser("markers", "single words", Markers(texts))
    yield _Guesser("length", "the length of the text", values=lengths(texts))
    sizes = compressed_sizes(texts)
    yield _Guesser("zlib", "the compressed size of the text", values=sizes)


def _ridge_on(texts: Sequence[str]) -> KernelRidge:
    return KernelRidge(TextFeatures(texts))


def _guess(
    guesser: _Guesser, records: KnownRecords, labelings: Bools, seed: int, confidence: float
) -> _Guessed | None:
    """Ask one guesser; None where it has a value for too few records."""
    if guesser.classifier is not None:
        folds = fold_of(records.units, FOLDS, f"fold of a blind guesser, {seed}")
        draws = generator(seed, "what a blind guesser is fitted on", guesser.name)
        scores: Any = guess_out_of_fold(guesser.classifier, labelings, folds, draws)
        rows = np.arange(len(records.ids))
    else:
        assert guesser.values is not None
        rows = np.flatnonzero(np.isfinite(guesser.values))
        if _too_few(records.at(rows)) is not None:
            return None
        scores, labelings = guesser.values[rows], labelings[rows]
        # A labeling may leave no member, or no other, among those with a value.
        labelings = labelings[:, labelings.any(axis=0) & ~labelings.all(axis=0)]
    # A classifier learns which side is which; one value alone may be off to either.
    sides: Literal[1, 2] = 2 if guesser.classifier is None else 1
    of_labelings = aucs(scores, labelings)
    higher = sides == 1 or bool(of_labelings[0] >= 0.5)
    own = np.asarray(scores if scores.ndim == 1 else scores[:, 0], np.float64)
    own, is_member = own if higher else -own, labelings[:, 0]
    members, others = int(is_member.sum()), int((~is_member).sum())
    p, wider = p_value(of_labelings, sides), widening(of_labelings, members, others)
    guess = BlindGuess(
        name=guesser.name,
        title=guesser.title,
        fitted=sides == 1,
        sides=sides,
        higher_is_member=higher,
        n_members=members,
        n_non_members=others,
        auc=_estimate(own, is_member, confidence, wider),
        p_value=p,
        corrected_p_value=p,
        null_spread=float(of_labelings[1:].std()),
    )
    return _Guessed(guess, rows, own, wider)


def _estimate(scores: Floats, is_member: Bools, confidence: float, wider: float) -> Estimate:
    placed = placements(scores, is_member)
    deviations = float(scipy.stats.norm.ppf(0.5 + confidence / 2))
    reach = deviations * math.sqrt(auc_variance(placed)) * wider
    area = placed.auc
    return Estimate(value=area, low=max(0.0, area - reach), high=min(1.0, area + reach))


def _copies(records: KnownRecords) -> tuple[CopiesWithin, dict[str, str]]:
    """Near-copies within members and within non-members, and the cluster of each."""
    sides = [records.at(np.flatnonzero(records.is_member == kind)) for kind in (True, False)]
    clusters = [
        copied_texts(side.texts) if side.images is None else copied_images(side.images)
        for side in sides
    ]
    ids = [side.ids for side in sides]
    names = {
        own[row]: f"copies of {own[cluster[0]]}"
        for own, found in zip(ids, clusters, strict=True)
        for cluster in found
        for row in cluster
    }
    return copies_within(clusters, ids, [side.units for side in sides]), names


def _overlaps(records: KnownRecords) -> tuple[NgramOverlap | None, NearDuplicates]:
    members, others = (
        records.at(np.flatnonzero(records.is_member == kind)) for kind in (True, False)
    )
    if members.images is not None and others.images is not None:
        return None, near_duplicate_images(members.images, others.images, members.ids, others.ids)
    return (
        ngram_overlap(members.texts, others.texts, others.ids),
        near_duplicate_texts(members.texts, others.texts, members.ids, others.ids),
    )


def _same_texts(records: KnownRecords) -> int:
    """Non-members that are scored on the very text of a member."""
    if records.images is not None:
        return 0
    pairs = list(zip(records.texts, records.is_member.tolist(), strict=True))
    members = {text for text, is_member in pairs if is_member and text.strip()}
    return sum(text in members for text, is_member in pairs if not is_member)
