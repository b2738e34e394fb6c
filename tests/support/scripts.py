"""The scripts of jobs/ and tools/, as modules whose functions a test can call and interrupt."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

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


def interrupted(training: Callable[..., Any], at: int) -> Callable[..., Any]:
    """A training that is interrupted when it has taken so many steps."""

    def begun(*given: Any, progress: Callable[[int, int], None], **named: Any) -> Any:
        def stop(done: int, total: int) -> None:
            if done == at:
                raise KeyboardInterrupt
            progress(done, total)

        return training(*given, progress=stop, **named)

    return begun
