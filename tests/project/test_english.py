"""What is said is said so that it is read once."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for folder, kind in (
        ("raymia", "*.py"),
        ("raymia", "*.html"),
        ("jobs", "*.py"),
        ("docs", "*.md"),
    )
    for path in sorted((ROOT / folder).rglob(kind))
] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NOWHERE = (
    "still adds",
    "stands or falls",
    "while wrongly accusing",
    "something to ask",
    "That hold",
    "would have been missed",
    "not to be had",
    "slightly flattered",
)


@pytest.mark.parametrize("words", NOWHERE)
def test_sentences_that_had_to_be_read_twice_are_nowhere(words: str) -> None:
    assert [str(path) for path in FILES if words in path.read_text(encoding="utf-8")] == []
