"""How a process ends that is raymia's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

ABORTS = """
import atexit, os, sys
from raymia.util.ending import end_with

class Held:
    def __del__(self):  # as what lets go of Python's objects when the interpreter is taken down
        os.abort()

held = Held()

def main():
    atexit.register(print, "what was registered")
    print("what was done")
    print("what was wrong", file=sys.stderr)
    {ending}

end_with(main)
"""


@pytest.mark.parametrize(
    ("ending", "code", "traced"),
    [
        ("return None", 0, ""),
        ("return 4", 4, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no such file')", 1, "no such file"),
        ("raise ValueError('seen')", 1, "ValueError: seen"),
    ],
)
def test_a_process_ends_with_its_own_code_and_all_that_it_wrote(ending, code, traced):
    script = ABORTS.format(ending=ending)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stdout == "what was done\nwhat was registered\n"
    assert ended.stderr.startswith("what was wrong\n")
    assert traced in ended.stderr
