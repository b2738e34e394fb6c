"""Of the architectures of tools/architecture_sweep.py, those that a short look is worth."""

from __future__ import annotations

import warnings

import pytest
from architecture_sweep import ARCHITECTURES, FEW, FORMS, sweep


@pytest.mark.long
@pytest.mark.parametrize("name", FEW)
def test_every_form_of_an_architecture_is_answered_as_transformers_does(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {form: wrong for _, form, wrong in sweep([name], list(FORMS), seed=0)}
    assert found == dict.fromkeys(FORMS)


def test_the_long_look_is_at_more_than_thirty():
    assert len(ARCHITECTURES) > 30
    assert {*FEW} < {*ARCHITECTURES}
