"""The docs say what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import raymia.spec
from raymia.docs import audit_file_page, with_attacks_table
from raymia.spec_file import parse_spec

ROOT = Path(__file__).parents[1]


def test_the_page_on_the_audit_file_is_current() -> None:
    page = (ROOT / "docs" / "audit-file.md").read_text(encoding="utf-8")
    assert page == audit_file_page(), "run `make docs`"


def test_the_table_of_attacks_is_current() -> None:
    page = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert page == with_attacks_table(page), "run `make docs`"
    assert "spv@REF" in page


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


@pytest.mark.parametrize(
    "block", re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
)
def test_the_readme_shows_audit_files_that_parse(block: str) -> None:
    content = yaml.safe_load(block)
    if "records" not in content:
        content |= {"records": {"members": "m.jsonl"}, "targets": [{"name": "t", "model": "m"}]}
    parse_spec(content, "README.md")


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
