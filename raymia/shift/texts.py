"""What blind guessers see of texts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.shift.cross_fitting import Bools, Floats, Rows
from raymia.shift.ngrams import characters, count_matrix, ngrams, words

WORD_NGRAMS, CHARACTER_NGRAMS = (1, 2), (3, 4)
COLUMNS = 2**18
DEVIATIONS = 3
_AT_ONCE = 100
CHARACTERS_READ = 4_000
"""Characters of each text that the classifier reads; the rest of a long text says little more."""


class TextFeatures:
    """Words, characters and lengths, each of the three weighing the same.

    N-grams of one and two words, and of three and four characters (case, digits and marks as they
    are), each as 1 + log of the count, times the inverse document frequency; and a text's lengths
    and shares of kinds of characters, standardized. Frequencies, means and deviations are of the
    records that are fitted on.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy import sparse

        read = [text[:CHARACTERS_READ] for text in texts]
        self.counts = [
            sparse.hstack([count_matrix(ngrams(units, n), COLUMNS) for n in sizes]).tocsr()
            for units, sizes in ((words(read), WORD_NGRAMS), (characters(read), CHARACTER_NGRAMS))
        ]
        self.shapes = np.array([shape_of(text) for text in texts])

    def similarities(self, fitted: Rows, judged: Rows) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(self.shapes[fitted])
        known, new = (scaler.transform(self.shapes[rows]) for rows in (fitted, judged))
        among, between = (rows @ known.T / self.shapes.shape[1] for rows in (known, new))
        for counts in self.counts:
            weights = TfidfTransformer(sublinear_tf=True).fit(counts[fitted])
            seen, unseen = (weights.transform(counts[rows]) for rows in (fitted, judged))
            among += (seen @ seen.T).toarray()
            between += (unseen @ seen.T).toarray()
        return among, between


class Markers:
    """Single words, and pairs of words, that stand in texts of one kind far more often.

    A year, a name or a phrase in a few of the texts tells little of all texts, but much of those
    few (Das et al. 2024). A word counts if the number of members it stands in is three standard
    deviations from what a random split gives; a text's guess is the sum of its words' log-odds.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy import sparse

        units = words(texts)
        counts = sparse.hstack([count_matrix(ngrams(units, n), COLUMNS) for n in WORD_NGRAMS])
        self.stands = (counts > 0).astype(np.float32).tocsr()

    def guess(self, fitted: Rows, judged: Rows, labels: Bools) -> Floats:
        seen = self.stands[fitted]
        # A word in fewer texts cannot be so far off, unless one kind of them is rare.
        usable = np.flatnonzero(np.asarray(seen.sum(axis=0)).ravel() >= DEVIATIONS**2)
        seen, new = seen[:, usable].tocsc(), self.stands[judged][:, usable]
        texts = np.asarray(seen.sum(axis=0)).reshape(-1, 1)
        guesses = [
            new @ _log_odds(seen, texts, labels[:, start : start + _AT_ONCE])
            for start in range(0, labels.shape[1], _AT_ONCE)
        ]
        return np.concatenate(guesses, axis=1)


def _log_odds(seen: Any, texts: Floats, labels: Bools) -> Floats:
    """Log-odds of a member for each word, 0 for words that are no markers; [words, labelings]."""
    size, members = len(labels), labels.sum(axis=0)
    within = seen.T @ labels.astype(np.float32)
    share = members / size
    spread = np.sqrt(texts * share * (1 - share) * (size - texts) / (size - 1))
    far = np.abs(within - texts * share) >= DEVIATIONS * np.maximum(spread, 1e-9)
    odds = np.log((within + 0.5) / (members + 1)) - np.log(
        (texts - within + 0.5) / (size - members + 1)
    )
    return np.where(far, odds, 0.0).astype(np.float32)


def shape_of(text: str) -> list[float]:
    """Lengths of a text and of its words, and shares of its kinds of characters."""
    size, count = len(text), len(text.split())
    kinds = (str.isupper, str.isdigit, str.isspace, str.isalnum, str.isascii)
    shares = [sum(map(kind, text)) / max(1, size) for kind in kinds]
    return [np.log1p(size), np.log1p(count), size / max(1, count), *shares]


def lengths(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Characters of each text."""
    return np.array([len(text) for text in texts], np.float64)


def compressed_sizes(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Bytes of each text as zlib compresses it."""
    return np.array([len(zlib.compress(text.encode())) for text in texts], np.float64)
