from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

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
