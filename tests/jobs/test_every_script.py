"""Every script of jobs/ finds what it imports; what each does is tested beside this."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.mark.parametrize("script", sorted(path.name for path in JOBS.glob("*.py")))
def test_script_can_be_read(script):
    assert runpy.run_path(str(JOBS / script), run_name="read, not run")["__doc__"]
