"""Whether two sets of texts are alike, and whether texts repeat themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from raymia.metrics.learning import fold_of, one_thread
from raymia.shift.cross_fitting import FOLDS, KernelRidge, guess_out_of_fold
from raymia.shift.labelings import aucs
from raymia.shift.ngrams import ngrams, words
from raymia.shift.texts import TextFeatures
from raymia.util.draws import generator

MIN_TEXTS = 25
"""Of each set, below which nothing is said."""
REPEATED = 4
"""Words of the n-grams that a text repeats (Welleck et al., ICLR 2020, seq-rep-4)."""
BEGINNING = 3
"""Words that a beginning has."""


def separation_auc(first: Sequence[str], second: Sequence[str]) -> float | None:
    """AUC at which a classifier tells texts of two sets apart, by words and characters.

    Texts are cut to the size that nine in ten of either set have, so that it is not their
    lengths that tell. Each is judged by a classifier that was fitted on others.

    Returns
    -------
    0.5 where nothing tells them apart; None where a set has fewer than 25 texts.
    """
    if min(len(first), len(second)) < MIN_TEXTS:
        return None
    size = int(min(np.quantile([len(text) for text in texts], 0.1) for texts in (first, second)))
    texts = [text[:size] for text in (*first, *second)]
    labels = (np.arange(len(texts)) < len(first))[:, None]
    folds = fold_of(texts, FOLDS, "fold of texts that are told apart")
    draws = generator(0, "what is fitted on to tell texts apart")
    with one_thread():
        guesses = guess_out_of_fold(KernelRidge(TextFeatures(texts)), labels, folds, draws)
    return float(aucs(guesses, labels)[0])


def repetition(texts: Sequence[str]) -> list[float]:
    """Which share of each text's four words in a row stood in it before; 0 where there are none.

    Examples
    --------
    >>> repetition(["one two three four", "no no no no no no", ""])
    [0.0, 0.6666666666666667, 0.0]
    """
    grams = ngrams(words(texts), REPEATED)
    pairs = np.unique(np.stack([grams.owners.astype(np.uint64), grams.hashes]), axis=1)
    different = np.bincount(pairs[0].astype(np.int64), minlength=len(texts))
    shares: list[float] = (1 - different / np.maximum(grams.counts, 1)).tolist()
    return [s if n else 0.0 for s, n in zip(shares, grams.counts.tolist(), strict=True)]


def commonest_beginning(texts: Sequence[str]) -> float:
    """Which share of the texts begins with the same three words, of those that most begin with.

    Examples
    --------
    >>> commonest_beginning(["I am sorry, but no", "I am sorry. No", "Here it is", "Yes"])
    0.5
    """
    counts = Counter(tuple(words([text]).codes[:BEGINNING].tolist()) for text in texts)
    return counts.most_common(1)[0][1] / len(texts) if texts else 0.0
