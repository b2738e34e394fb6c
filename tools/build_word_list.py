"""Make the word list that word substitution draws from: `python tools/build_word_list.py`.

The words are those of the shipped Austen passages that the demo does not audit, commonest first.
The file is the same on every machine; a test compares it with what this makes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

import raymia
from raymia.neighbors.word_list import WORD, WORD_LIST

PASSAGES = Path(raymia.__file__).parent / "demo" / "assets" / "text" / "austen.parquet"
LEAST = 2
"""Times that a word must occur."""


def common_words() -> list[str]:
    """Words by falling frequency, then by alphabet, in lower case but for "I".

    A word must occur twice, and oftener in lower case than capitalized: names are left out.
    """
    table = pq.read_table(PASSAGES).to_pylist()
    texts = (row["text"] for row in table if row["split"] == "paraphraser")
    found = Counter(m.group().replace("’", "'") for text in texts for m in WORD.finditer(text))
    counts = {
        word: times + found[word.capitalize()]
        for word, times in found.items()
        if word.islower() and times > found[word.capitalize()]
    } | {"I": found["I"]}
    common = (word for word, count in counts.items() if count >= LEAST)
    return sorted(common, key=lambda word: (-counts[word], word))


if __name__ == "__main__":
    WORD_LIST.write_text("\n".join(common_words()) + "\n", encoding="utf-8")
