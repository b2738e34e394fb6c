"""The made-up run as fixtures."""

import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores


@pytest.fixture(scope="session")
def scores():
    return made_up_scores()


@pytest.fixture(scope="session")
def result(scores):
    return made_up_result(scores)


@pytest.fixture(scope="session")
def curves(scores):
    return made_up_curves(scores)
