"""Paths are of the folder of the file they stand in; a section says which of its texts are some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from raymia.spec import AuditSpec, DataPath, Paths, Strict, Weights
from raymia.spec.file import load_spec
from raymia.spec.paths import with_absolute_paths, with_paths


class Inner(Strict):
    model: Weights
    note: str = "a/b"


class Section(Strict):
    """What a kind of records from elsewhere may bring."""

    file: DataPath | None = None
    files: Paths = Field(default=[])
    choice: bool | Paths = False
    inside: list[Inner] = Field(default=[])
    by_name: dict[str, Inner] = Field(default={})
    free: dict[str, Any] = Field(default={})


def audit(folder: Path, **changes: Any) -> AuditSpec:
    content = {
        "records": {"members": "m.jsonl"},
        "targets": [{"name": "t", "model": "org/model"}],
        **changes,
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(content))
    return load_spec(folder / "audit.yaml")


def test_each_section_says_which_of_its_texts_are_paths_and_of_what() -> None:
    section = Section.model_validate({
        "file": "f", "files": "g", "choice": ["h"], "inside": [{"model": "m"}],
        "by_name": {"a/b": {"model": "n"}}, "free": {"a": ["b", {"c": "d"}]},
    })  # fmt: skip
    found = with_paths(section, "data {}".format, "weights {}".format)
    assert found.model_dump() == {
        "file": "data f", "files": ["data g"], "choice": ["data h"],
        "inside": [{"model": "weights m", "note": "a/b"}],
        "by_name": {"a/b": {"model": "weights n", "note": "a/b"}},
        "free": {"a": ["b", {"c": "d"}]},
    }  # fmt: skip


def test_what_a_section_does_not_say_stays_unsaid(tmp_path: Path) -> None:
    section = with_absolute_paths(Section(file="f"), tmp_path)
    assert section.file == str(tmp_path / "f")
    assert section.model_fields_set == {"file"}


def test_words_that_stand_for_no_path_are_left(tmp_path: Path) -> None:
    spec = audit(
        tmp_path,
        training={"template": "base"},
        references={"base": {"model": "org/base"},
                    "own": {"kind": "self_prompt", "prompts": "none"}},
        plugins=["some_package", "own.py"],
    )  # fmt: skip
    words = {"training": {"template"}, "references": {"own": {"prompts"}}}
    assert spec.model_dump(include=words) == {
        "training": {"template": "base"}, "references": {"own": {"prompts": "none"}},
    }  # fmt: skip
    assert spec.plugins == ["some_package", str(tmp_path / "own.py")]


def test_a_pattern_is_of_the_files_folder_and_a_name_of_the_hub_is_none(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    pattern, revisions = audit(
        tmp_path,
        records={"kind": "image", "members": "m"},
        targets=[{"model": "runs/*", "config": "parts"},
                 {"model": "org/model", "revisions": "main"}],
    ).targets  # fmt: skip
    assert pattern.model_dump(include={"model", "config"}) == {
        "model": str(tmp_path / "runs" / "*"),
        "config": str(tmp_path / "parts"),
    }
    assert revisions.model_dump(include={"model", "revisions"}) == {
        "model": "org/model",
        "revisions": ["main"],
    }
