"""What blind guessers see of texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.shift.cross_fitting import Bools, Floats, Rows
from raymia.shift.ngrams import Units, characters, count_matrix, ngrams, words

WORD_NGRAMS, CHARACTER_NGRAMS = (1, 2), (3, 4)
COLUMNS = 2**18
DEVIATIONS = 3
_AT_ONCE = 100
"""Labelings."""
_TEXTS_AT_ONCE = 1_000
"""Texts whose n-grams are counted at once, beside those that are fitted on."""
CHARACTERS_READ = 4_000
"""Characters of each text that the classifier reads; the rest of a long text says little more."""


class TextFeatures:
    """Words, characters and lengths, each of the three weighing the same.

    N-grams of one and two words, and of three and four characters (case, digits and marks as they
    are), each as 1 + log of the count, times the inverse document frequency; and a text's lengths
    and shares of kinds of characters, standardized. Frequencies, means and deviations are of the
    records that are fitted on. N-grams are counted anew where they are needed: those of all texts
    together would take a gigabyte.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.read = [text[:CHARACTERS_READ] for text in texts]
        self.shapes = np.array([shape_of(text) for text in texts])

    def similarities(self, fitted: Rows, judged: Rows) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(self.shapes[fitted])
        known, new = (scaler.transform(self.shapes[rows]) for rows in (fitted, judged))
        among, between = known @ known.T, new @ known.T
        among /= self.shapes.shape[1]
        between /= self.shapes.shape[1]
        for units, sizes in ((words, WORD_NGRAMS), (characters, CHARACTER_NGRAMS)):
            counts = self._counts(fitted, units, sizes)
            weights = TfidfTransformer(sublinear_tf=True).fit(counts)
            seen = weights.transform(counts)
            among += (seen @ seen.T).toarray()
            for start in range(0, len(judged), _TEXTS_AT_ONCE):
                rows = slice(start, start + _TEXTS_AT_ONCE)
                unseen = weights.transform(self._counts(judged[rows], units, sizes))
                between[rows] += (unseen @ seen.T).toarray()
        return among, between

    def _counts(
        self, rows: Rows, units: Callable[[Sequence[str]], Units], sizes: Sequence[int]
    ) -> Any:
        return _counted(units([self.read[row] for row in rows.tolist()]), sizes)


def _counted(units: Units, sizes: Sequence[int]) -> Any:
    """How often each n-gram of these sizes stands in each text, CSR."""
    from scipy import sparse

    return sparse.hstack([count_matrix(ngrams(units, n), COLUMNS) for n in sizes]).tocsr()


class Markers:
    """Single words, and pairs of words, that stand in texts of one kind far more often.

    A year, a name or a phrase in a few of the texts tells little of all texts, but much of those
    few (Das et al. 2024). A word counts if the number of members it stands in is three standard
    deviations from what a random split gives; a text's guess is the sum of its words' log-odds.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def guess(self, fitted: Rows, judged: Rows, labels: Bools) -> Floats:
        from scipy import sparse

        seen = self._stands(fitted)
        # A word in fewer texts cannot be so far off, unless one kind of them is rare.
        usable = np.flatnonzero(np.asarray(seen.sum(axis=0)).ravel() >= DEVIATIONS**2)
        pieces = [
            self._stands(judged[start : start + _TEXTS_AT_ONCE])[:, usable]
            for start in range(0, len(judged), _TEXTS_AT_ONCE)
        ]
        seen, new = seen[:, usable].tocsc(), sparse.vstack(pieces).tocsr()
        texts = np.asarray(seen.sum(axis=0)).reshape(-1, 1)
        guesses = np.empty((len(judged), labels.shape[1]), np.float32)
        for start in range(0, labels.shape[1], _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            guesses[:, some] = new @ _log_odds(seen, texts, labels[:, some])
        return guesses

    def _stands(self, rows: Rows) -> Any:
        """Whether each word, or pair of words, stands in some texts, CSR."""
        counts = _counted(words([self.texts[row] for row in rows.tolist()]), WORD_NGRAMS)
        return (counts > 0).astype(np.float32)


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
