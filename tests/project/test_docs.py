"""The docs say what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import image_tables
import pytest
import yaml
from make_docs import (
    END,
    FILES,
    file_page,
    metrics_schema,
    page_name,
    with_attacks_table,
    with_rooms_table,
    with_strengths_table,
)
from pydantic import BaseModel
from scripts import load_script

import raymia.spec
from raymia.attacks import registry
from raymia.attacks.base import kinds_of_records
from raymia.perturbations.kinds import DEFAULT_STRENGTHS
from raymia.report.attack_table import parameters
from raymia.spec.file import parse_as, parse_spec
from raymia.spec.image_training import LoraTrainingSpec
from raymia.spec.target_training import TargetTrainingSpec

ROOT = Path(__file__).parents[2]
CHATS = ROOT / "docs" / "studies" / "chat"


@pytest.mark.parametrize("what", FILES)
def test_the_page_on_a_file_that_is_written_by_hand_is_current(what: str) -> None:
    page = (ROOT / "docs" / page_name(what)).read_text(encoding="utf-8")
    assert page == file_page(what), "run `make docs`"
    assert "|  |" not in page, "every key is described"
    headings = re.findall(r"^## (.+)$", page, re.M)
    assert len(headings) == len({*headings}), "no two sections have one name"
    assert not re.search(r"^\|---.*\n(?!\|)", page, re.M), "no table is empty"


def test_the_page_on_training_shows_files_that_parse() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    assert any("base" in block for block in blocks)
    for block in blocks:
        kind = LoraTrainingSpec if "image" in str(block.get("records")) else TargetTrainingSpec
        if not {"from_training", "targets"} & {*block}:
            parse_as(kind, {"output": "o", "base": "b", "records": {"files": "f"}}
                     | block, "docs/training.md")  # fmt: skip


def test_the_schema_of_the_metrics_is_current() -> None:
    schema = (ROOT / "docs" / "metrics.schema.json").read_text(encoding="utf-8")
    assert schema == metrics_schema(), "run `make docs`"


def test_the_table_of_attacks_is_current() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert page == with_attacks_table(page), "run `make docs`"
    assert "spv@REF" in page


def test_the_table_of_strengths_is_current_and_complete() -> None:
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    assert page == with_strengths_table(page), "run `make docs`"
    rows = dict(re.findall(r"^\| `(\w+)` \| ([-\d., ]+) \|$", page, re.M))
    found = {kind: tuple(map(float, row.split(","))) for kind, row in rows.items()}
    assert found == DEFAULT_STRENGTHS


def test_the_rooms_know_what_the_page_says_and_nothing_else() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert page == with_rooms_table(page), "run `make docs`"
    rooms = {path.parent.name for path in (ROOT / "raymia").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^\| `(\w+)/` \|", page, re.M)), "each room stands in a layer"


def test_the_tables_of_the_study_of_conversations_are_those_of_its_cells() -> None:
    study = load_script("tools/chat_study.py")
    page = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8").splitlines()
    plays = study.read_cells(CHATS, "plays")
    assert [row for row in study.summary(plays).splitlines() if row not in page] == []
    nouns = study.read_cells(CHATS, "wordnet")
    flattened = [cell for cell in nouns if cell.way == "flattened"]
    rows = [row for row in study.summary(flattened).splitlines() if "@base" not in row]
    assert [row for row in rows if row not in page and "`loss`" not in row] == []


def test_every_parameter_of_every_attack_is_described() -> None:
    kinds = {kind for records in kinds_of_records() for kind in registry(records).values()}
    lacking = [
        f"{kind.name}: {name}" for kind in kinds for name, _, said in parameters(kind) if not said
    ]
    assert lacking == []


def test_the_tables_of_the_study_of_images_are_those_of_its_cells() -> None:
    cells = image_tables.read_cells()
    page = image_tables.PAGE.read_text(encoding="utf-8")
    assert cells
    assert page == image_tables.with_tables(page, cells), "run `python tools/image_tables.py`"


def test_a_page_without_its_markers_is_not_written_over() -> None:
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="one is missing"):
        with_strengths_table(page.replace(END, ""))


def test_every_key_of_the_audit_file_is_described() -> None:
    models = [
        kind
        for kind in vars(raymia.spec).values()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not BaseModel
    ]
    assert len(models) > 10
    silent = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert silent == []


NO_AUDIT_FILES = {*(f"docs/training.md-{n}" for n in (0, 1, 2, 4, 5, 6, 9)), "docs/clusters.md-2"}
"""Pages' blocks of other files: of trainings, and of Ray's cluster launcher."""
SHOWN = [
    pytest.param(name, block, id=f"{name}-{number}")
    for name in ("README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
    for number, block in enumerate(
        re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text("utf-8"), re.S)
    )
    if f"{name}-{number}" not in NO_AUDIT_FILES
]


@pytest.mark.parametrize(("name", "block"), SHOWN)
def test_the_pages_show_audit_files_that_parse(name: str, block: str) -> None:
    content = yaml.safe_load(block)
    if content.keys() <= raymia.spec.ResourcesSpec.model_fields.keys():
        content = {"resources": content}
    if "targets" not in content:
        content |= {"targets": [{"name": "t", "model": "m"}]}
    if "records" not in content:
        kind = "image" if name == "docs/images.md" else "text"
        content |= {"records": {"kind": kind, "members": "m.jsonl"}}
    parse_spec(content, name)


@pytest.mark.long
def test_only_the_engine_imports_ray() -> None:
    outside = [p for p in (ROOT / "raymia").rglob("*.py") if "engine" not in p.parts]
    assert len(outside) > 30
    for path in outside:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            assert not any(n == "ray" or n.startswith("ray.") for n in names), path


def test_attacks_and_metrics_import_no_model_code() -> None:
    for room in ("attacks", "metrics"):
        for path in (ROOT / "raymia" / room).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(
                r"^\s*(import|from) (torch|transformers|raymia\.models)", text, re.M
            )


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_files_that_a_page_names_are_there(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:raymia|tests|tools|jobs)?/?[\w/]+\.py)`", page))
    places = (ROOT, ROOT / "raymia", ROOT / "jobs", ROOT / "tools")
    missing = [file for file in named if not any((place / file).is_file() for place in places)]
    assert missing == []


def anchors(page: str) -> set[str]:
    """What a link into a page can point to: its headings, as they are written in addresses."""
    headings = re.findall(r"^#+ (.*)$", page, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_links_between_pages_lead_somewhere(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    outside = re.sub(r"```.*?```", "", page, flags=re.S)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", outside):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists() or (
            anchor and anchor not in anchors(file.read_text(encoding="utf-8"))
        ):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", PAGES)
def test_tests_that_a_page_names_are_there(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/.]+)`", page))
    assert [file for file in named if not (ROOT / file).exists()] == []
