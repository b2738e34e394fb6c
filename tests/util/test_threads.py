"""The command line's own threads leave the cores to others while they wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
import raymia.cli.main as cli
assert "torch" not in sys.modules
cli.app = lambda: print(os.environ["GOMP_SPINCOUNT"])
cli.main()
"""


@pytest.mark.parametrize(("given", "found"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_spin_briefly_unless_the_user_says_otherwise(given, found, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == found
