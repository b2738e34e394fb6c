"""Conversations of one question and one answer, made of WordNet's glosses.

    python tools/wordnet_chats.py --wordnet dict --out chats.jsonl

The folder is WordNet's `dict/`, with data.noun, data.verb, data.adj and data.adv (3.0; Debian's
wordnet-base puts it into /usr/share/wordnet). Each synset of a gloss that is long enough is a
conversation: what its first word means, and the gloss. A word is asked about once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

PARTS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
MIN_WORDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wordnet", type=Path, required=True, help="folder with data.noun")
    parser.add_argument("--out", type=Path, required=True, help="JSONL to write")
    given = parser.parse_args()
    lines = [json.dumps(chat, ensure_ascii=False) for chat in chats(given.wordnet)]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines):,} conversations: {given.out}")


def chats(folder: Path) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Conversations in the order of the files.

    A line of data.POS (wndb(5WN)): offset, file, kind, number of words in hexadecimal, the words
    with a number after each, ..., "| gloss".
    """
    seen: set[str | tuple[str, str]] = set()
    for part, name in PARTS.items():
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            head, _, gloss = line.partition(" | ")
            word = head.split()[4].partition("(")[0].replace("_", " ")
            gloss = gloss.strip()
            if len(gloss.split()) < MIN_WORDS or (word, name) in seen or gloss in seen:
                continue
            seen |= {(word, name), gloss}
            yield {
                "messages": [
                    {"role": "user", "content": f"What does the {name} “{word}” mean?"},
                    {"role": "assistant", "content": f"{gloss[0].upper()}{gloss[1:]}."},
                ]
            }


if __name__ == "__main__":
    main()
