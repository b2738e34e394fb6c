"""A manifest that lists checkpoints is read, or refused with the file, whatever is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raymia.inputs.checkpoints import in_manifest
from raymia.spec.from_training import read_training
from raymia.util.errors import InputError

WHERE = "targets[0]"


def read(folder, content):
    path = folder / "manifest.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path, lambda: in_manifest(str(path), WHERE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 100_000, "nested"),
        ({"checkpoints": 7}, "lists no checkpoints"),
        ({"checkpoints": [{"folder": 7}]}, "lists no checkpoints"),
        ({"checkpoints": [{"folder": "a", "privacy": 7}]}, "privacy of a"),
        ({"checkpoints": [{"folder": "a", "privacy": {"epsilon": "x"}}]}, "privacy of a: epsilon"),
        ({"checkpoints": [{"folder": "a", "privacy": {"x": 1}}]}, "unknown key"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_what_lists_no_checkpoints_is_refused(tmp_path, content, says):
    path, call = read(tmp_path, content)
    with pytest.raises(InputError) as caught:
        call()
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
ENTRIES = st.dictionaries(st.sampled_from(("folder", "privacy", "name")), VALUES)
KEYS = ("checkpoints", "kind", "seal", "sha256", "files", "path", "records")
CONTENTS = VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES | st.lists(ENTRIES, max_size=2))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENTS)
def test_any_manifest_is_read_or_refused(tmp_path, content):
    path, call = read(tmp_path, content)
    for one in (call, lambda: read_training(path, WHERE)):
        try:
            one()
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
