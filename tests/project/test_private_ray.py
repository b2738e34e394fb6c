"""What Ray does not promise to keep is named in one module alone."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import raymia
from raymia.engine.on_ray.ray_private import TRIED

ROOT = Path(raymia.__file__).parent
GUARDED = ROOT / "engine" / "on_ray" / "ray_private.py"
PRIVATE = re.compile(r"ray\.(\w+\.)*(_\w+|core\.generated|experimental|autoscaler\.v2)\b")


def private_names(file: Path) -> list[str]:
    """Names of private Ray in imports, attributes and strings that are looked up."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value.replace(":", "."))
    return [name for name in found if PRIVATE.match(name)]


def test_one_module_alone_names_private_ray() -> None:
    assert len(private_names(GUARDED)) > 5
    others = {file: private_names(file) for file in ROOT.rglob("*.py") if file != GUARDED}
    assert {str(file): names for file, names in others.items() if names} == {}


def test_private_ray_is_used_with_the_versions_that_may_be_installed() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (ray,) = (d for d in project["project"]["dependencies"] if d.startswith("ray["))
    assert ray.endswith(f"]>={TRIED[0][0]}.{TRIED[0][1]},<{TRIED[1][0]}.{TRIED[1][1]}")
