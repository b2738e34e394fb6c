"""Folders that are finished under another name, and moved into place."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

TEMPORARY_PREFIX = ".incomplete-"
"""Readers pass over names with this prefix; a killed writer leaves nothing else behind."""


def rename_or_drop(staged: Path, final: Path, marker: str = "") -> None:
    """Move a finished folder into place, unless another process has finished the same one. What is
    left there without its marker, by one that was killed while it removed it, makes way."""
    try:
        staged.rename(final)
    except OSError:
        if not final.exists():
            raise
        if (final / marker).exists():
            shutil.rmtree(staged)
            return
        aside = final.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        final.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        rename_or_drop(staged, final, marker)
