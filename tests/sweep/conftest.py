from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from ray_fixtures import ensure_local_ray


@pytest.fixture
def local_ray() -> None:
    ensure_local_ray()
