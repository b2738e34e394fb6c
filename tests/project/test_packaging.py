"""What an install brings, and the files that hosts and tools of open projects read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_wheel import check_wheel
from make_requirements import requirement_lists
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import raymia

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NOT_OF_USERS = {"all", "dev", "docs"}
"""Extras that stand for others, or that maintainers alone take."""
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FIELDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def loaded(path: Path | str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_lists_of_lighter_installs_are_current() -> None:
    found = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "requirements").iterdir()}
    assert found == requirement_lists(), "run `make requirements`"


def test_the_whole_has_what_kinds_of_records_take_in_the_same_versions() -> None:
    for extra in ("text", "images", "quantized"):
        assert set(EXTRAS[extra]) <= set(PROJECT["dependencies"]), extra
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == EXTRAS.keys() - NOT_OF_USERS


def test_the_page_on_installing_names_all_that_can_be_left_out_or_added() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for extra in EXTRAS.keys() - NOT_OF_USERS:
        for requirement in EXTRAS[extra]:
            assert re.search(rf"\| {Requirement(requirement).name} \|", page), requirement


def test_every_package_of_an_install_is_pinned_for_clusters() -> None:
    pins = (ROOT / "jobs" / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert pins == sorted(pins, key=lambda pin: pin.split("==")[0])
    pinned = dict(pin.split("==") for pin in pins)
    for line in requirement_lists()["all.txt"].splitlines()[1:]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), line


@pytest.mark.long
def test_the_wheel_holds_the_files_of_raymia_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    check_wheel(wheel)  # exits with what is missing


def test_one_version_everywhere() -> None:
    assert PROJECT["version"] == raymia.__version__
    assert loaded("CITATION.cff")["version"] == raymia.__version__


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = loaded("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]


def test_commits_are_checked_by_the_linters_of_the_gate() -> None:
    gate = (ROOT / "Makefile").read_text(encoding="utf-8")
    (repository,) = loaded(".pre-commit-config.yaml")["repos"]
    commands = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert len(commands) == 4
    for command in commands:
        assert f"$(BIN)/{command.removesuffix(' --force-exclude')}" in gate


def test_the_host_runs_the_gate_and_what_it_leaves_out() -> None:
    workflow = loaded(".github/workflows/ci.yml")
    commands = {job: steps["steps"][-1]["run"] for job, steps in workflow["jobs"].items()}
    assert commands == {"gate": ".ci/run", "wheel": "make test-wheel", "slow": "make test-slow"}
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("path", [form for form in FORMS if form.name != "config.yml"])
def test_issue_forms_have_the_fields_that_the_host_knows(path: Path) -> None:
    form = loaded(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in form["body"]} <= FIELDS
    assert len({field["id"] for field in fields}) == len(fields) > 2
    assert len({field["attributes"]["label"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_a_bug_an_attack_and_a_wrong_number_have_forms() -> None:
    assert {form.stem for form in FORMS} == {"attack", "bug", "config", "wrong_number"}
