"""An audit file that cannot be taken is refused in a sentence, whatever is wrong with it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.spec.file import load_spec
from raymia.spec.strict_yaml import parse_yaml
from raymia.util.credentials import sayable
from raymia.util.errors import InputError

GOOD = """
records: {members: m.jsonl, non_members: n.jsonl}
targets: [{name: t, model: ./model}]
metrics: {resamples: 100}
"""


def refused(path):
    with pytest.raises(InputError) as caught:
        load_spec(path)
    assert str(caught.value).startswith(sayable(str(path)))
    return str(caught.value)


def refused_text(folder, text):
    path = Path(folder, "audit.yaml")
    path.write_text(text)
    return refused(path)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
        ("a: " + "{b: " * 5_000 + "}" * 5_000, "nested too deeply"),
        ("name: " + "7" * 5_000, "line 1"),
        ("a: !!timestamp 2024-13-45", "line 1"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        (BOMB, "more than 100,000 keys and values"),
        ("a: &a [*a]", "more than 100,000 keys and values"),
        ("2024: x", "a key should be a text, but got 2024; quote it"),
        ("? [a, b]\n: x", "a key should be a text"),
        ("name: a\0b", "not valid YAML"),
        ("? {a: b}\n: x", "a key should be a text"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path, text, says):
    found = refused_text(tmp_path, text)
    assert says in found
    assert len(found) < 6_000


def test_a_date_is_a_text(tmp_path):
    """As the name of a target it is nothing else."""
    (tmp_path / "audit.yaml").write_text(GOOD.replace("name: t", "name: 2024-01-31"))
    assert load_spec(tmp_path / "audit.yaml").targets[0].name == "2024-01-31"


def test_merged_keys_are_taken(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}"
    assert parse_yaml(text, tmp_path)["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"seed: {10**400}", "seed should be a number of at most"),
        (f"seed: {-(10**30)}", "seed should be a number of at most"),
        (f"metrics: {{resamples: {10**12}}}", "resamples should be a number of at most"),
        ("metrics: {resamples: 100000000}", "metrics.resamples"),
        ("metrics: {confidence: .nan}", "metrics.confidence"),
        ("metrics: {fprs: [.inf]}", "metrics.fprs"),
        ("shift: {error_rate: .nan}", "shift.error_rate"),
        (f"probes: {{swaps: {{count: {10**18}}}}}", "count should be a number of at most"),
        ("resources: {wait_minutes: .inf}", "resources.wait_minutes"),
    ],
)
def test_numbers_without_sense_are_refused(tmp_path, text, says):
    body = GOOD if not text.startswith("metrics") else GOOD.replace("metrics:", "shift: {} #")
    found = refused_text(tmp_path, body + text + "\n")
    assert says in found
    assert len(found) < 500


def test_a_large_seed_is_taken(tmp_path):
    (tmp_path / "audit.yaml").write_text(f"{GOOD}seed: {2**63 - 1}\n")
    assert load_spec(tmp_path / "audit.yaml").seed == 2**63 - 1


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    assert "a named pipe" in refused(tmp_path / "pipe.yaml")
    assert "Too many levels" in refused(tmp_path / "circle.yaml")
    assert "a device" in refused("/dev/zero")
    assert refused(tmp_path / ("x" * 300))
    assert refused(f"{tmp_path}/a\0b")


@pytest.mark.parametrize(
    "path", ["'~nobody-of-this-name/x'", '"a\\0b.jsonl"', "x" * 5_000, "circle/m.jsonl"]
)
def test_a_path_that_cannot_be_is_no_traceback(tmp_path, path):
    """Here, or where it is read."""
    (tmp_path / "circle").symlink_to("circle")
    for old in ("m.jsonl", "./model"):
        (tmp_path / "audit.yaml").write_text(GOOD.replace(old, path))
        with suppress(InputError):
            assert load_spec(tmp_path / "audit.yaml").name == "audit"


def test_a_link_keeps_its_name_and_its_folder_is_found(tmp_path):
    """A link to a blob says by its own name what it is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "blob").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "m.jsonl").symlink_to("blob")
    (tmp_path / "audit.yaml").write_text(GOOD.replace("m.jsonl", "link/../real/m.jsonl"))
    spec = load_spec(tmp_path / "audit.yaml")
    assert spec.records.members == [str(tmp_path / "real" / "m.jsonl")]


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates().map(str)
    | st.sampled_from(["*", "~", "1e400", "-", "0x", "a\0b", "://", "hf://x", "=", "<<"])
    | st.text(max_size=5)
)  # fmt: skip
KEYS = st.sampled_from(
    ["records", "targets", "members", "model", "metrics", "resources", "store", "neighbors",
     "kind", "references", "attacks", "seed", "adapter", "endpoint", "samples", "models"]
) | st.text(max_size=3)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=4) | st.text(max_size=40))
def test_whatever_is_written_it_is_taken_or_refused(tmp_path_factory, content):
    import yaml

    text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)
    path = tmp_path_factory.mktemp("y") / "audit.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with suppress(InputError):
        assert load_spec(path).targets
