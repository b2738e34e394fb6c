"""What is not installed is refused by name, with the command that installs it."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from raymia.report.figure import roc_figure
from raymia.util.errors import InputError
from raymia.util.optional import install_command, is_installed, require


@pytest.fixture
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_what_is_installed_is_let_through() -> None:
    require("json", "tests")
    assert not is_installed("no_such_package")


def test_looking_imports_nothing() -> None:
    assert "wave" not in sys.modules
    assert is_installed("wave")
    assert "wave" not in sys.modules


@pytest.mark.usefixtures("nothing_is_installed")
def test_one_sentence_says_what_is_missing_and_how_to_install_it() -> None:
    with pytest.raises(InputError) as caught:
        require("kornia", "neighbors of images", "neighbors")
    assert caught.value.problems == [
        "neighbors: kornia is not installed here, and neighbors of images need it; install it with "
        "`pip install 'kornia<1,>=0.9'`"
    ]


@pytest.mark.usefixtures("nothing_is_installed")
def test_a_package_is_named_as_pip_knows_it() -> None:
    with pytest.raises(InputError, match="pillow is not installed here"):
        require("PIL", "images")


def test_the_command_asks_for_the_versions_that_raymia_takes() -> None:
    assert install_command("PIL") == "pip install 'pillow<15,>=11'"
    assert install_command("s3fs") == "pip install 's3fs>=2024.6'"
    assert install_command("raymia_plugin") == "pip install 'raymia_plugin'"


@pytest.mark.usefixtures("nothing_is_installed")
def test_a_figure_for_a_notebook_takes_plotly() -> None:
    with pytest.raises(InputError, match="plotly is not installed here, and figures need it"):
        roc_figure("target", {"members": 1, "nonMembers": 1, "curves": []})
