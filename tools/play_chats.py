"""Conversations made of plays, turn by turn.

    python tools/play_chats.py --play plays.txt --out chats.jsonl

A play is plain text: the speaker's name on a line of its own, with a colon, a full stop or nothing
after it, the speech below it, then an empty line. What stands in brackets is a stage direction and
is left out. Four speeches that follow each other are a conversation: the first and the third are
the user's, the other two the assistant's. No speech is in two conversations.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

TURNS = 4
MIN_WORDS = 15
"""So many words the assistant must say."""
MAX_WORDS = 80
"""A conversation has no more words: some 130 tokens, which no trainer cuts."""
SPEAKER = re.compile(r"(?!(?i:scene|act|exeunt)\b)[A-Z][A-Za-z']*(?: [A-Za-z']+){0,2}[.:]?")
DIRECTION = re.compile(r"\[[^\]]*\]")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--play", type=Path, nargs="+", required=True, help="text files of plays")
    parser.add_argument("--out", type=Path, required=True, help="JSONL to write")
    given = parser.parse_args()
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in given.play]
    lines = [json.dumps(chat, ensure_ascii=False) for text in texts for chat in chats(text)]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines):,} conversations: {given.out}")


def chats(text: str) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Conversations of the speeches of a text, in their order."""
    said = list(speeches(text))
    for start in range(0, len(said) - TURNS + 1, TURNS):
        turns = said[start : start + TURNS]
        words = [len(turn.split()) for turn in turns]
        if sum(words[1::2]) >= MIN_WORDS and sum(words) <= MAX_WORDS:
            roles = ("user", "assistant") * (TURNS // 2)
            yield {
                "messages": [
                    {"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)
                ]
            }


def speeches(text: str) -> Iterator[str]:
    """What is said, without the names; what has no name above it, as stage directions, is left."""
    for paragraph in re.split(r"\n\s*\n", DIRECTION.sub("", text)):
        name, _, speech = paragraph.strip().partition("\n")
        if SPEAKER.fullmatch(name.strip()) and speech.strip():
            yield " ".join(speech.split())


if __name__ == "__main__":
    main()
