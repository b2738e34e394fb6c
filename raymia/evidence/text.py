"""Evidence on text records, laid out for attacks: arrays over records, aligned by record id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.evidence.answers import AnswersByQuestion, holds_answers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenEvidence:
    """Token answers of one model, ragged: record i owns ``offsets[i]:offsets[i + 1]``.

    Attributes
    ----------
    offsets : int64 [records + 1]. A record without evidence owns nothing.
    token_ids : int32 [tokens].
    log_prob, mean_log_prob, std_log_prob : float32 [tokens], natural logarithms.
    is_top1 : bool [tokens].
    is_cut : bool [records], whether the model read a part of the record alone; None for none.
    """

    offsets: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    log_prob: npt.NDArray[np.float32]
    mean_log_prob: npt.NDArray[np.float32]
    std_log_prob: npt.NDArray[np.float32]
    is_top1: npt.NDArray[np.bool_]
    is_cut: npt.NDArray[np.bool_] | None = None
    _ordered: dict[Callable[[TokenEvidence], npt.NDArray[np.floating]], Floats] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Scored tokens per record, [records]."""
        return np.diff(self.offsets)

    def per_record(self, values: npt.NDArray[np.floating]) -> list[npt.NDArray[np.floating]]:
        """Cut an array over tokens into one array per record."""
        return np.split(values, self.offsets[1:-1])

    def lowest_first(self, values: Callable[[TokenEvidence], npt.NDArray[np.floating]]) -> Floats:
        """Values of the tokens, the lowest of each record first, float64 [tokens].

        They are sorted once, since a sweep asks for the lowest share of the same tokens again and
        again.

        Parameters
        ----------
        values : what is sorted, an array over tokens.
        """
        if values not in self._ordered:
            records = np.repeat(np.arange(len(self.counts)), self.counts)
            found = values(self).astype(np.float64)
            self._ordered[values] = found[np.lexsort((found, records))]
        return self._ordered[values]

    def sums(self) -> Floats:
        """Summed log-probability of each record, [records]; NaN without evidence."""
        return self.mean() * self.counts

    def mean(self) -> Floats:
        """Mean log-probability per token of each record, [records]; NaN without evidence."""
        return segment_mean(self.log_prob, self.offsets)


@dataclass(frozen=True)
class NeighborEvidence:
    """Summed answers of one model on each record's neighbors; NaN where there is none.

    Attributes
    ----------
    mean_log_prob : float64 [records, neighbors], mean log-probability per token.
    """

    mean_log_prob: Floats


@dataclass(frozen=True)
class GradientEvidence:
    """Norms of the gradient of each record's loss, [records]; NaN where there is none."""

    l2: Floats
    largest: Floats


@holds_answers("text")
@dataclass(frozen=True)
class ModelEvidence(AnswersByQuestion):
    """What one model answered; a question that was not asked is None.

    Attributes
    ----------
    tokens : the record's tokens.
    neighbors : the neighbors that a paraphraser made; of several kinds of them, those that the
        attack runs with.
    lowercase : the record in lower case, mean log-probability per token [records].
    prefixed : the record after texts of the population; as ``lowercase``.
    member_prefixed : the record after known members; as ``lowercase``.
    swaps : per record, the token log-probabilities of each copy with words swapped.
    noise : the record under noise on its embeddings; columns are x + z_1, x - z_1, x + z_2, ...
    gradient : the gradient of the record's loss.
    samples : per record, what the model wrote when given its beginning, each with the place in the
        record, in characters, from which on the model had not seen it.
    other_answer : the other answer of a preference, summed log-probability [records]; NaN where the
        model read a part of it alone.
    """

    tokens: TokenEvidence
    neighbors: NeighborEvidence | None = None
    lowercase: Floats | None = None
    prefixed: Floats | None = None
    member_prefixed: Floats | None = None
    swaps: list[list[npt.NDArray[np.float32]]] | None = None
    noise: NeighborEvidence | None = None
    gradient: GradientEvidence | None = None
    samples: list[list[tuple[int, str]]] | None = None
    other_answer: Floats | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any], count: int) -> Self:
        """From answers by name; a model that was not asked about tokens has none of any record."""
        if "tokens" not in found:
            found = {"tokens": token_evidence(None, [""] * count), **found}
        return super().of(found, count)

    def with_neighbors(self, name: str) -> Self:
        """The same with the neighbors of one name alone, where they have names."""
        laid_out: Any = self.neighbors  # a mapping where the questions have a name each
        if not isinstance(laid_out, Mapping):
            return self
        return replace(self, neighbors=laid_out.get(name))


@dataclass(frozen=True)
class ShadowEvidence:
    """What a shadow answered.

    Attributes
    ----------
    model : its answers.
    is_in : bool [records], whether the shadow was trained on the record.
    """

    model: ModelEvidence
    is_in: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenCounts:
    """How often each token of a tokenizer occurs in a corpus.

    Attributes
    ----------
    counts : int64 [vocabulary].
    """

    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledScores:
    """What other attacks found, and what is known, for attacks that learn from both. Attacks that
    were fitted on what is known are not among them.

    Attributes
    ----------
    scores : per attack, float64 [records].
    is_member : [records]; None for candidates.
    units : [records], the record's group, or its id where it has none: what must not be split.
    """

    scores: Mapping[str, Floats]
    is_member: Sequence[bool | None]
    units: Sequence[str]


@dataclass(frozen=True)
class TextEvidence:
    """What an attack on text records may look at.

    Attributes
    ----------
    texts : the records' texts, [records].
    target : answers of the checkpoint under audit.
    reference : answers of the reference that the attack runs with, where it runs with one.
    shadows : answers of the audit's shadows, for attacks that use them.
    population : the same on texts that are no members and are not judged, for attacks that use a
        population; tokens only.
    corpus : token frequencies, for attacks that use a corpus.
    labelled : scores and labels, for attacks that combine.
    units : [records], the record's group, or its id where it has none, for attacks that are fitted.
    signs : 1 for an answer that was wanted, -1 for one that was not, [records]; None where records
        do not say it.
    """

    texts: Sequence[str]
    target: ModelEvidence
    reference: ModelEvidence | None = None
    shadows: Sequence[ShadowEvidence] = ()
    population: TextEvidence | None = None
    corpus: TokenCounts | None = None
    labelled: LabelledScores | None = None
    units: Sequence[str] | None = None
    signs: Floats | None = None


def token_evidence(table: pa.Table | None, record_ids: Sequence[str]) -> TokenEvidence:
    """Align a table of ``text.tokens`` with records; rows with an error count as no evidence."""
    rows: dict[str, int] = {}
    if table is not None:
        usable = zip(table["record_id"].to_pylist(), table["error"].to_pylist(), strict=True)
        rows = {record: i for i, (record, error) in enumerate(usable) if error is None}
    picked = [rows[r] for r in record_ids if r in rows]

    def column(name: str, dtype: type[Any]) -> npt.NDArray[Any]:
        if table is None or not picked:
            return np.zeros(0, dtype)
        chunk = table[name].take(pa.array(picked)).combine_chunks()
        flat: npt.NDArray[Any] = chunk.flatten().to_numpy(zero_copy_only=False)
        return flat.astype(dtype, copy=False)

    lengths = np.zeros(len(record_ids), np.int64)
    is_cut = np.zeros(len(record_ids), np.bool_)
    if table is not None and picked:
        sizes = table["log_prob"].take(pa.array(picked)).combine_chunks().value_lengths()
        have = np.array([r in rows for r in record_ids])
        lengths[have] = sizes.to_numpy(zero_copy_only=False)
        is_cut[have] = [bool(cut) for cut in table["truncated"].take(pa.array(picked)).to_pylist()]
    return TokenEvidence(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        token_ids=column("token_ids", np.int32),
        log_prob=column("log_prob", np.float32),
        mean_log_prob=column("mean_log_prob", np.float32),
        std_log_prob=column("std_log_prob", np.float32),
        is_top1=column("is_top1", np.bool_),
        is_cut=is_cut,
    )


def neighbor_evidence(
    table: pa.Table | None, record_ids: Sequence[str], count: int
) -> NeighborEvidence:
    """Align a table of summed answers with records, neighbors 1 to ``count``."""
    mean = np.full((len(record_ids), count), np.nan)
    for place, neighbor, total, tokens in _rows(
        table, record_ids, "neighbor", "log_prob_sum", "token_count"
    ):
        if 1 <= neighbor <= count:
            mean[place, neighbor - 1] = total / tokens
    return NeighborEvidence(mean)


def record_means(table: pa.Table | None, record_ids: Sequence[str]) -> Floats:
    """Align a table of summed answers on the records themselves: mean log-probability per token,
    [records]; NaN without evidence."""
    means = np.full(len(record_ids), np.nan)
    for place, total, tokens in _rows(table, record_ids, "log_prob_sum", "token_count"):
        means[place] = total / tokens
    return means


def record_sums(table: pa.Table | None, record_ids: Sequence[str]) -> Floats:
    """Align a table of summed answers on the records themselves: the sums, [records]; NaN without
    evidence, and where the model read a part alone."""
    sums = np.full(len(record_ids), np.nan)
    for place, total, is_cut in _rows(table, record_ids, "log_prob_sum", "truncated"):
        sums[place] = np.nan if is_cut else total
    return sums


def swap_evidence(
    table: pa.Table | None, record_ids: Sequence[str], count: int
) -> list[list[npt.NDArray[np.float32]]]:
    """Align a table of ``text.swaps`` with records, copies 1 to ``count``."""
    copies: list[list[npt.NDArray[np.float32]]] = [[] for _ in record_ids]
    for place, neighbor, log_prob in _rows(table, record_ids, "neighbor", "log_prob"):
        if 1 <= neighbor <= count:
            copies[place].append(np.array(log_prob, np.float32))
    return copies


def gradient_evidence(table: pa.Table | None, record_ids: Sequence[str]) -> GradientEvidence:
    """Align a table of ``text.gradient`` with records."""
    norms = GradientEvidence(np.full(len(record_ids), np.nan), np.full(len(record_ids), np.nan))
    for place, l2, largest in _rows(table, record_ids, "l2", "largest"):
        norms.l2[place], norms.largest[place] = l2, largest
    return norms


def sample_evidence(
    table: pa.Table | None, record_ids: Sequence[str], count: int
) -> list[list[tuple[int, str]]]:
    """Align a table of ``text.samples`` with records, samples 1 to ``count``."""
    samples: list[list[tuple[int, str]]] = [[] for _ in record_ids]
    for place, neighbor, start, sample in _rows(table, record_ids, "neighbor", "start", "sample"):
        if 1 <= neighbor <= count:
            samples[place].append((start, sample))
    return samples


def _rows(
    table: pa.Table | None, record_ids: Sequence[str], *columns: str
) -> Iterator[tuple[Any, ...]]:
    """The usable rows of a table: the record's place, and the columns."""
    if table is None:
        return
    places = {record: i for i, record in enumerate(record_ids)}
    for record, error, *values in zip(
        *(table[c].to_pylist() for c in ("record_id", "error", *columns)), strict=True
    ):
        if error is None and record in places:
            yield (places[record], *values)


def segment_mean(values: npt.NDArray[np.floating], offsets: npt.NDArray[np.int64]) -> Floats:
    """Mean of each segment of a ragged array, in float64; NaN for an empty segment.

    Each segment is summed by itself, so that a record's mean does not depend on the others.

    Examples
    --------
    >>> segment_mean(np.array([-1.0, -3.0, -2.0]), np.array([0, 2, 2, 3])).tolist()
    [-2.0, nan, -2.0]
    """
    counts = np.diff(offsets)
    means = np.full(len(counts), np.nan)
    filled = counts > 0
    if filled.any():
        sums = np.add.reduceat(values.astype(np.float64), offsets[:-1][filled])
        means[filled] = sums / counts[filled]
    return means
