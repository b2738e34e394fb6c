"""No code but that of a kind of records asks of which kind records are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "raymia"
OF_A_KIND = (
    "modalities", "models", "questions", "attacks", "spec", "prepare", "records", "neighbors",
    "perturbations",
)  # fmt: skip
"""Rooms where modules are each for one kind of records."""
NAMES = {
    "ImageCheckpoint", "ImageNeighbors", "ImageRecordsSpec", "SelfGeneratedRecipe",
    "SelfGeneratedReference", "SelfPromptRecipe", "SelfPromptReference", "TextNeighbors",
    "TextRecordsSpec", "Texts", "Images", "ModelEvidence", "ImageModelEvidence",
}  # fmt: skip


def ladders(source: str) -> Iterator[str]:
    """Places where the kind is asked for: by a class of one kind, or by what only one kind has."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass"):
                named = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                yield from (f"line {node.lineno}: {name}" for name in sorted(named & NAMES))
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            nothing = any(isinstance(s, ast.Constant) and s.value is None for s in sides)
            attributes = {s.attr for s in sides if isinstance(s, ast.Attribute)}
            texts = {s.value for s in sides if isinstance(s, ast.Constant)}
            if nothing and "shape" in attributes:
                yield f"line {node.lineno}: shape"
            if texts & {"text", "image"}:
                yield f"line {node.lineno}: {', '.join(map(str, texts))}"


@pytest.mark.parametrize("file", [
    pytest.param(file, id=str(file.relative_to(PACKAGE)))
    for file in sorted(PACKAGE.rglob("*.py")) if file.relative_to(PACKAGE).parts[0] not in OF_A_KIND
])  # fmt: skip
def test_the_kind_of_records_is_not_asked_for(file: Path) -> None:
    assert list(ladders(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(x, ImageCheckpoint)",
        "isinstance(x, Checkpoint | ImageCheckpoint)",
        "x = 1 if inputs.shape is None else 2",
        "if inputs.shape is not None: pass",
        "spec.records.kind == 'image'",
    ],
)
def test_a_ladder_is_found(source: str) -> None:
    assert len(list(ladders(source))) == 1
