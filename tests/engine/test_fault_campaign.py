"""The audits that tools/chaos.py breaks are audits that can be planned."""

from __future__ import annotations

import pytest
from faults.audits import EACH, VARIANTS, Audit


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_can_be_planned(tmp_path, variant):
    audit = Audit(tmp_path / "audit", "", variant)
    # Of the text audit each record and its two neighbors are asked about; what is asked of a
    # reference is known when it is made.
    assert audit.missing() == (2 * EACH * 5 if variant == "texts" else None)
