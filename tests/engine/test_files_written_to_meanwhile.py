"""Of a checkpoint that is written to while its model is loaded or asked, no answer is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_audit import Models, console, passages, write_small_audit

from raymia.engine import stage
from raymia.engine.base import engine
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal import family
from raymia.plan.planning import plan_audit
from raymia.run.asking import ask
from raymia.spec.file import load_spec
from raymia.util.errors import RaymiaError

WEIGHTS = "model.safetensors"


@pytest.fixture
def asked(tmp_path: Path, models: Models) -> tuple[Path, Callable[[], list[str]]]:
    """A target's folder, and what asks it and gives the kinds of evidence that are stored then."""
    folder = tmp_path / "target"
    shutil.copytree(models.target, folder)
    texts = passages()
    file = write_small_audit(
        tmp_path, replace(models, target=folder), engine="local", members=texts[:3],
        non_members=texts[24:27], references=None, neighbors=None,
    )  # fmt: skip
    spec = load_spec(file)
    inputs = resolve_inputs(spec)

    def go() -> list[str]:
        store = EvidenceStore(spec.store)
        with engine(inputs.spec.resources, spec.store, console()) as start:
            ask(plan_audit(inputs, store), store, start)
        return stored(tmp_path)

    return folder, go


def stored(folder: Path) -> list[str]:
    return sorted({part.parent.name for part in (folder / "store").rglob("*.parquet")})


def overwrite(folder: Path, models: Models) -> None:
    """Put another model's weights in the place of a folder's."""
    shutil.copy(models.other / WEIGHTS, folder / "new")
    (folder / "new").replace(folder / WEIGHTS)


def after(call: Callable[..., Any], then: Callable[[], None], times: int) -> Callable[..., Any]:
    """A function that does something else after so many calls."""
    left = [times]

    def called(*arguments: Any, **options: Any) -> Any:
        found = call(*arguments, **options)
        left[0] -= 1
        if left[0] == 0:
            then()
        return found

    return called


def refused(folder: Path) -> str:
    return f"^{folder}: these are no longer the files .*: {folder / WEIGHTS} was written to"


def test_of_the_answers_those_are_kept_that_were_given_before(
    tmp_path: Path,
    models: Models,
    asked: tuple[Path, Callable[[], list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, go = asked
    monkeypatch.setattr(stage, "put", after(stage.put, lambda: overwrite(folder, models), 2))
    with pytest.raises(RaymiaError, match=refused(folder)):
        go()
    assert len(stored(tmp_path)) == 1


def test_what_is_written_between_the_hashes_and_the_load_is_seen(
    tmp_path: Path,
    models: Models,
    asked: tuple[Path, Callable[[], list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, go = asked

    def late(*arguments: Any, **options: Any) -> Any:
        overwrite(folder, models)
        return load(*arguments, **options)

    load = family.load_causal_lm
    monkeypatch.setattr(family, "load_causal_lm", late)
    with pytest.raises(RaymiaError, match=refused(folder)):
        go()
    assert not stored(tmp_path)


def test_rights_and_links_may_change(
    asked: tuple[Path, Callable[[], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, go = asked

    def back_up() -> None:
        os.link(folder / WEIGHTS, folder.parent / "backup")
        (folder / WEIGHTS).chmod(0o440)

    monkeypatch.setattr(stage, "put", after(stage.put, back_up, 1))
    assert len(go()) == 2
