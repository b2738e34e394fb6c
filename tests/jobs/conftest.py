from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cluster_head import Head, running_head
from ray_fixtures import ensure_local_ray
from small_audit import Models, make_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.getbasetemp() / "small-models"
    if not folder.exists():
        return make_models(folder)
    return Models(folder / "target", folder / "other", folder / "broken")


@pytest.fixture
def local_ray() -> None:
    ensure_local_ray()


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with running_head(tmp_path_factory.mktemp("head") / "output.txt") as head:
        yield head
