"""A place that cannot be a folder is refused by its name, whoever opens or lists it."""

from __future__ import annotations

import pytest
from command_line import raymia

from raymia.storage.files import Folder, check_can_write
from raymia.util.errors import InputError


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("a\0b", "a NUL is in no name of a file"),
        ("nosuch://x/y", "Protocol not known: nosuch"),
        ("memory://a\0b", "a NUL is in no name of a file"),
    ],
)
def test_what_is_no_place_is_refused_when_it_is_opened(url, says):
    with pytest.raises(InputError, match=says):
        Folder(url)
    with pytest.raises(InputError, match=f"^output: .*{says}"):
        check_can_write(url, "output")


def test_links_in_a_circle_are_refused_when_they_are_listed_and_before(tmp_path):
    circle = tmp_path / "c"
    circle.symlink_to("c")
    with pytest.raises(InputError, match=r"c/evidence: cannot be opened: Too many levels of"):
        Folder(str(circle)).names("evidence", ".parquet")
    for place in (circle, circle / "inner"):
        with pytest.raises(InputError, match=r"^output: .* is a link to what is not there"):
            check_can_write(str(place), "output")


def test_an_error_of_a_listing_names_the_place(monkeypatch):
    folder = Folder("memory://store")

    def offline(*_):
        raise ValueError("no such repository")

    monkeypatch.setattr(type(folder.fs.fs), "invalidate_cache", offline)
    for call in (lambda: folder.names("rates", ".json"), lambda: folder.entries("rates")):
        with pytest.raises(InputError, match="memory://store/rates: cannot be opened: no such"):
            call()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "nosuch://x"),
        ("status", "a\0b"),
        ("report", "a\0b"),
        ("compare", "a\0b", "c"),
        ("gate", "nosuch://x", "--fail-if", "any.auc > 0.5"),
        ("store", "verify", "a\0b"),
        ("store", "ls", "nosuch://x"),
    ],
    ids=lambda given: " ".join(given).replace("\0", "0"),
)
def test_every_command_refuses_such_a_place_in_a_sentence(arguments):
    done = raymia(*arguments)
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
