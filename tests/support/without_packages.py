"""Processes in which packages are missing, as if they had never been installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[2]

SITE = '''
import sys
from importlib.machinery import PathFinder

MISSING = {missing!r}


class Without(PathFinder):
    """Finds what the usual finder finds, but for some packages and their metadata."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0].lower() in MISSING:
            return None
        return super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        found = super().find_distributions(*context)
        return (one for one in found if one.name.lower().replace("-", "_") not in MISSING)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
'''
"""A sitecustomize, which every Python started with its folder in PYTHONPATH runs first: Ray's
workers too."""


def without(missing: Collection[str], folder: Path) -> dict[str, str]:
    """The environment of a process in which packages are missing.

    Parameters
    ----------
    missing : names as imported and as installed, in lower case.
    folder : for the file that hides them.
    """
    hiding = folder / "hiding"
    path = os.pathsep.join([str(hiding), str(ROOT)])
    hiding.mkdir(exist_ok=True)
    (hiding / "sitecustomize.py").write_text(SITE.format(missing=set(missing)), encoding="utf-8")
    return {**os.environ, "COLUMNS": "400", "PYTHONPATH": path}


def raymia_without(
    missing: Collection[str], folder: Path, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a command of raymia where packages are missing."""
    return subprocess.run(
        [sys.executable, "-m", "raymia", *arguments], env=without(missing, folder),
        capture_output=True, text=True, timeout=300, check=False, cwd=folder,
    )  # fmt: skip
