"""What a run's metrics.json holds is read or refused with the file, whatever is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_run import made_up_curves, made_up_result, made_up_scores

from raymia import load_run
from raymia.report.files import write_report, write_run
from raymia.results.compare import compare_runs
from raymia.results.folder import _own_hash
from raymia.util.errors import InputError


@pytest.fixture
def run(tmp_path):
    scores = made_up_scores()
    write_run(str(tmp_path / "run"), made_up_result(scores), [scores], made_up_curves(scores))
    return tmp_path / "run"


def change(run, **values):
    """Change a run's metrics, with a hash that fits."""
    content = {**json.loads((run / "metrics.json").read_text()), **values}
    content["content_sha256"] = _own_hash(content)
    (run / "metrics.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("audit_yaml", "says"),
    [
        ("a: " + "[" * 1_000 + "]" * 1_000, "nested too deeply"),
        ("{", "not valid YAML"),
        ("[1]", "should be a mapping of keys, but is [1]"),
        ("a: !!timestamp 2024-13-45", "not valid YAML"),
    ],
    ids=("deep", "cut", "list", "date"),
)
def test_an_audit_file_that_cannot_be_taken_is_refused(run, audit_yaml, says):
    change(run, audit_yaml=audit_yaml)
    stored = load_run(str(run))
    for call in (
        lambda: compare_runs(stored, stored),
        lambda: write_report(str(run), redacted=True),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(f"{run / 'metrics.json'}: audit_yaml")
        assert says in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_metrics_are_read_or_refused(run, data):
    whole = (run / "metrics.json").read_bytes()
    key = data.draw(st.sampled_from(sorted(json.loads(whole))))
    change(run, **{key: data.draw(VALUES)})
    try:
        load_run(str(run))
    except InputError as error:
        assert str(run) in str(error)  # noqa: PT017
    finally:
        (run / "metrics.json").write_bytes(whole)
