"""What was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FREED = """
from pathlib import Path
from raymia.util.memory import hand_back_memory

def held():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) // 1024

pieces = [bytes(4_000) for _ in range(30_000)]
last = pieces.pop()  # above all others, so that the heap cannot shrink by itself
del pieces
before = held()
hand_back_memory()
print(before - held())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_what_lies_below_something_that_is_held_is_handed_back():
    found = subprocess.run(
        [sys.executable, "-c", FREED], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) > 100  # of 114 MiB
