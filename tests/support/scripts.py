"""The scripts of jobs/ and tools/, as modules whose functions a test can call."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import raymia

ROOT = Path(raymia.__file__).parents[1]


def load_script(path: str) -> ModuleType:
    """Run a script of the repository, of which ``__name__`` is not that of a program."""
    name = f"raymia_script_{path.removesuffix('.py').replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
