"""Every script of jobs/ and tools/ finds what it imports; what each does is tested beside this."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    str(p.relative_to(ROOT)) for d in ("jobs", "tools") for p in (ROOT / d).glob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_can_be_read(script):
    assert runpy.run_path(str(ROOT / script), run_name="read, not run")["__doc__"]
