"""Token frequencies of a corpus, counted once per tokenizer and kept in the store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raymia.evidence.sealed import read_counts, write_counts
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import TokenCounts
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.records.tables import read_rows
from raymia.records.texts import MAX_TEXT, is_unicode, texts_among
from raymia.spec import CorpusSpec
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.pieces import pieces

VERSION = 2


def check_corpus(spec: CorpusSpec) -> None:
    """Read every file as far as its first row.

    Raises
    ------
    InputError
        If one cannot be read, or has no row.
    """
    for path in spec.files:
        if next(read_rows(path, {"text_column": spec.text_column}), None) is None:
            raise InputError(f"corpus.files: {path} has no rows")


def counts_file(spec: CorpusSpec, checkpoint: CausalCheckpoint) -> str:
    """Where in the store the counts are kept."""
    key = digest(
        {
            "version": VERSION,
            "corpus": digest([digest(text) for text in _texts(spec)]),
            "tokenizer": checkpoint.tokenizer_content,
            "trust_remote_code": checkpoint.trust_remote_code,
        }
    )
    return f"corpus/{key}.npy"


def token_counts(
    spec: CorpusSpec, checkpoint: CausalCheckpoint, store: EvidenceStore
) -> TokenCounts:
    """Count the tokens of a corpus under a checkpoint's tokenizer, every occurrence of each.

    Rows that are no texts are left out.

    Raises
    ------
    InputError
        If the files cannot be read, or have not one text.
    RaymiaError
        If counts that were kept are damaged.
    """
    name = counts_file(spec, checkpoint)
    if not store.folder.exists(name):
        write_counts(store, name, _count(spec, checkpoint))
    return TokenCounts(read_counts(store, name))


def _count(spec: CorpusSpec, checkpoint: CausalCheckpoint) -> np.ndarray:
    tokenizer = checkpoint.tokenizer_source.load()
    counts = np.zeros(len(tokenizer), np.int64)
    for some in pieces(_texts(spec)):
        for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
            np.add.at(counts, ids, 1)
    if not counts.any():
        raise InputError(f"corpus: not one text in {', '.join(spec.files)}")
    return counts


def _texts(spec: CorpusSpec) -> Iterator[str]:
    for path in spec.files:
        for text in texts_among(path, spec.text_column):
            if text.strip() and is_unicode(text):
                yield from (text[n : n + MAX_TEXT] for n in range(0, len(text), MAX_TEXT))
