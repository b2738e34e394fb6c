"""No code but that of a kind of records asks of which kind records are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import raymia.modalities  # noqa: F401 (registers the kinds)
from raymia.evidence.answers import holder_of
from raymia.inputs.modality import modality_of
from raymia.questions.base import registered
from raymia.spec.records import RECORDS

PACKAGE = Path(__file__).parents[2] / "raymia"
OF_A_KIND = ("modalities", "models", "questions", "attacks", "prepare", "records", "neighbors",
             "perturbations")  # fmt: skip
"""Rooms where modules are each for one kind of records, but for those that all share."""
SHARED = {
    "attacks/base.py", "models/checkpoint.py", "models/loaders.py", "prepare/recipe.py",
    "questions/base.py", "questions/put.py", "questions/registry.py", "records/base.py",
}  # fmt: skip
SPEC_OF_A_KIND = {f"spec/{name}.py" for name in (
    "image_training", "images", "neighbors", "records", "references", "target_training", "training",
)}  # fmt: skip
KINDS = ("text", "image")
CLASSES = {
    **{one.__name__: kind for kind in KINDS for one in (
        RECORDS.tagged(kind), *RECORDS.tagged(kind).takes, RECORDS.tagged(kind).training_file,
        modality_of(kind), holder_of(kind),
    )},
    "CausalCheckpoint": "text", "SelfPromptRecipe": "text", "TextNeighbors": "text",
    "ImageCheckpoint": "image", "ImageModel": "image", "SelfGeneratedRecipe": "image",
}  # fmt: skip
"""The kind that each class is of."""
MANIFESTS = {RECORDS.tagged(kind).manifest.name for kind in KINDS}
FAMILIES = {f for kind in KINDS for question in registered(kind) for f in question.families}
LISTS = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.BinOp, ast.Subscript)


def names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def words(node: ast.AST) -> set[str]:
    found = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
    return {value for value in found if isinstance(value, str)}


def ladders(source: str) -> Iterator[str]:
    """Places where the kind is asked for: by a class of one kind, by what only one kind has, or by
    a list of what the kinds have."""
    for node in ast.walk(ast.parse(source)):
        found: set[str] = set()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass"):
                found = names(node.args[1]) & {*CLASSES}
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = words(node) & {*KINDS, *FAMILIES}
            if any(isinstance(side, ast.Constant) and side.value is None for side in sides):
                found |= {s.attr for s in sides if isinstance(s, ast.Attribute)} & {"shape"}
        elif isinstance(node, LISTS):
            classes, families = names(node) & {*CLASSES}, words(node) & FAMILIES
            if len({CLASSES[name] for name in classes}) > 1:
                found = classes
            elif isinstance(node, ast.Set) and len(families) > 1:
                found = families
        elif isinstance(node, ast.Constant):
            found = {node.value} & MANIFESTS
        if found:
            yield f"line {node.lineno}: {', '.join(sorted(found))}"


def asks_of_all() -> Iterator[str]:
    """The modules that know no kind of records."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = str(file.relative_to(PACKAGE))
        room = name.partition("/")[0]
        if name in SHARED or (room not in OF_A_KIND and name not in SPEC_OF_A_KIND):
            yield name


@pytest.mark.parametrize("name", asks_of_all())
def test_the_kind_of_records_is_not_asked_for(name: str) -> None:
    assert [*ladders((PACKAGE / name).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(x, ImageCheckpoint)",
        "isinstance(x, Checkpoint | ImageCheckpoint)",
        "isinstance(x, SelfPromptReference)",
        "x = 1 if inputs.shape is None else 2",
        "if inputs.shape is not None: pass",
        "spec.records.kind == 'image'",
        "spec.records.kind in ('image', 'number')",
        "only = needs & {'denoiser', 'autoencoder'}",
        "Training = Annotated[TrainingSpec, 1] | Annotated[ImageTrainingSpec, 2]",
        "BY_KIND = (TrainingSpec, ImageTrainingSpec)",
        "isinstance(spec, LoraTrainingSpec)",
        "OF_IMAGES = 'raymia training of images'",
    ],
)
def test_a_ladder_is_found(source: str) -> None:
    assert [*ladders(source)] != []
