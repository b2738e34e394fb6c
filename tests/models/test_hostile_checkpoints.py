"""A folder that cannot be a checkpoint is refused in a sentence, whatever lies in it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from importlib import import_module
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import save_tiny

from raymia.inputs.base import Problems
from raymia.models import source
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.source import locate, read_json
from raymia.spec import ModelSpec
from raymia.storage import remote
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError

WHERE = "targets[0].model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("whole") / "model", "gpt2")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refused(model):
    problems = Problems()
    spec = ModelSpec(model=str(model))
    problems.attempt(resolve_causal_lm, spec, WHERE, on_gpu=False)
    (problem,) = problems.found
    return problem


def dangling(path):
    path.symlink_to("nowhere")


def in_a_circle(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [dangling, in_a_circle, device, os.mkfifo, os.mkdir])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.json"]
)
def test_what_is_no_file_is_refused_and_not_waited_for(folder, name, make):
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    assert str(folder) in refused(folder)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP.encode(),
        b'{"a": ' + DEEP.encode() + b"}",
        b'{"vocab_size": ' + b"9" * 5_000 + b"}",
        b"\xff\xfe",
        b"",
        b"7",
        b"null",
    ],
    ids=["deep", "deep inside", "long number", "not UTF-8", "empty", "number", "null"],
)
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    found = refused(folder)
    assert found.startswith(f"{WHERE}: {folder}/config.json")
    assert len(found) < 500


@pytest.mark.parametrize("name", ["model", "folder"])
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nosuchscheme://x/y", "not known"),
        ("nul\0", ""),
        ("./nul\0", ""),
        ("x" * 5_000, ""),
        ("./" + "x" * 5_000, "name too long"),
        ("~nobody-of-this-name/model", "home"),
        ("memory://nowhere/at/all", "no such folder"),
    ],
)
def test_a_path_that_cannot_be_is_refused(path, says, name):
    with pytest.raises(InputError) as caught:
        locate(path, None, where=f"targets[0].{name}")
    assert str(caught.value).startswith(f"targets[0].{name}: ")
    assert says in str(caught.value).lower()


def test_links_to_nothing_are_named(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(InputError, match="a link to what is not there: nowhere"):
        locate(str(tmp_path / "gone"), None, where=WHERE)


def test_a_hub_that_cannot_be_reached_is_said_to_be_so(monkeypatch):
    from huggingface_hub import HfFileSystem

    tries = []
    http = import_module("httpx2" if find_spec("httpx2") else "httpx")  # by the hub's version

    def no_network(*_, **__):
        tries.append(1)
        raise http.ConnectError("no network here")

    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(HfFileSystem, "exists", no_network)
    with pytest.raises(remote.StorageError, match=r"failed 5 times .*ConnectError: no network"):
        source.locate("hf://someone/model", None, where=WHERE)
    assert len(tries) == remote.TRIES


# -------------------------------------------------------------------- safetensors


def write_header(path, header, rest=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)
    return path


GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


@pytest.mark.parametrize("odd", ["16", 16.0, None, True, [16], -16, float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["begin", "end", "shape", "offsets"])
def test_a_header_of_numbers_that_are_none_is_refused(tmp_path, odd, place):
    entry = {**GOOD["a"]}
    entry |= {
        "begin": {"data_offsets": [odd, 16]},
        "end": {"data_offsets": [0, odd]},
        "shape": {"shape": [2, odd]},
        "offsets": {"data_offsets": odd},
    }[place]
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        read_header(write_header(tmp_path / "m.safetensors", {"a": entry}), WHERE)


@pytest.mark.parametrize(
    "header",
    [b"[" * 50_000, b'{"a": {"a": ' + b"9" * 5_000, b"[]", b"{}", b"null", b"\xff", b'{"a": 1}',
     json.dumps(GOOD).encode()[:-1] + b', "a": {}}'],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(tmp_path, header):
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        read_header(write_header(tmp_path / "m.safetensors", header), WHERE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(JSON | st.binary(max_size=30), st.integers(0, 40))
def test_whatever_a_header_holds_it_is_read_or_refused(tmp_path_factory, header, rest):
    path = write_header(tmp_path_factory.mktemp("h") / "m.safetensors", header, b"\0" * rest)
    try:
        tensors = read_header(path, WHERE)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert tensors


@settings(max_examples=60, deadline=None)
@given(JSON.map(json.dumps) | st.text(max_size=20))
def test_whatever_a_config_holds_it_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("c") / "config.json"
    path.write_text(content)
    try:
        found = read_json(path, WHERE)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert isinstance(found, dict)
