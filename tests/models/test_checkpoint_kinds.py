"""The docs' table of checkpoints says what is done with each kind."""

from __future__ import annotations

import pytest
from checkpoint_kinds import table, written


@pytest.mark.long
def test_the_table_of_kinds_of_checkpoints_is_what_is_done_with_them():
    """If this fails, `PYTHONPATH=. python tests/support/checkpoint_kinds.py` writes it anew."""
    assert table().split("\n") == [*written().strip("\n").split("\n"), ""]
