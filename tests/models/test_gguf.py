"""GGUF files: what is refused before one is read, and what its fingerprint is of."""

from __future__ import annotations

import importlib.util

import pytest
from tiny_models import checkpoint, fingerprint

from raymia.models.causal.resolver import resolve_causal_lm
from raymia.spec import ModelSpec
from raymia.util.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.Q4_1.gguf").write_bytes(b"GGUF one")
    return tmp_path


def resolve(folder, name):
    spec = ModelSpec(model=str(folder), gguf_file=name)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


def test_file_that_is_not_there_is_named_with_those_that_are(folder):
    with pytest.raises(InputError) as caught:
        resolve(folder, "large.gguf")
    (problem,) = caught.value.problems
    assert problem.startswith("targets[0].model: no file large.gguf in ")
    assert "small.Q4_1.gguf" in problem


def test_missing_package_is_named_with_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="gguf is not installed here, and GGUF files need it"):
        resolve(folder, "small.Q4_1.gguf")


def test_fingerprint_is_of_the_files_content(folder):
    there = checkpoint(folder, gguf_file="small.Q4_1.gguf")
    before = fingerprint(there)
    (folder / "other.gguf").write_bytes(b"another file changes nothing")
    assert fingerprint(there) == before
    (folder / "small.Q4_1.gguf").write_bytes(b"GGUF two")
    assert fingerprint(there) != before
