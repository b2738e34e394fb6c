"""The passes per image that the page on images promises are those of the questions by default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raymia.attacks import registry
from raymia.questions.base import Question, Setup, registered
from raymia.spec import AuditSpec

PAGE = Path(__file__).parents[2] / "docs" / "images.md"
ROW = re.compile(r"^\| (?:`\w+`: |the same, )[^|]*\| ([^|]+) \| (\d+)( more)?\b[^|]*\|$", re.M)


def promised() -> dict[tuple[str, str], int]:
    """Passes of each attack of the table, by its name and the family that is asked."""
    section = PAGE.read_text(encoding="utf-8").split("## What is asked, and what it costs")[-1]
    found, before = {}, 0
    for attacks, passes, more in ROW.findall(section):
        before = int(passes) + (before if more else 0)
        family = "autoencoder" if "autoencoders" in attacks else "denoiser"
        found |= {(name, family): before for name in re.findall(r"`(\w+)`", attacks)}
    return found


@pytest.fixture(scope="module")
def asked() -> dict[tuple[str, str], list[Question]]:
    """What each family is asked by each name, as an audit without settings sets it up."""
    spec = AuditSpec.model_validate(
        {
            "records": {"kind": "image", "members": ["m"], "non_members": ["n"]},
            "targets": [{"name": "t", "model": "t"}],
            "neighbors": {"kind": "crop"},
        }
    )
    found: dict[tuple[str, str], list[Question]] = {}
    for kind in registered("image"):
        for family in kind.families:
            found[kind.name, family] = [*kind.set_up(Setup(spec, family))]
    return found


@pytest.mark.parametrize(("attack", "family"), promised())
def test_an_attack_costs_what_the_page_says(
    attack: str, family: str, asked: dict[tuple[str, str], list[Question]]
) -> None:
    questions = [one for name in registry("image")[attack].asks for one in asked[name, family]]
    passes = sum(len(one.indices()) * one.passes for one in questions)
    assert passes == promised()[attack, family]


def test_every_question_to_denoisers_and_autoencoders_stands_in_the_table(
    asked: dict[tuple[str, str], list[Question]],
) -> None:
    named = {(name, of) for attack, of in promised() for name in registry("image")[attack].asks}
    of_pixels = {key for key in asked if key[1] == "pixels"}
    as_its_record = {("neighbors", "autoencoder")}
    assert {*asked} - of_pixels - as_its_record == named
