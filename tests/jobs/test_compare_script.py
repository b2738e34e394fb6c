"""What jobs/compare.py prints and returns."""

from __future__ import annotations

import json

import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores
from scripts import load_script

from raymia.report.files import write_run


@pytest.fixture(scope="module")
def script():
    return load_script("jobs/compare.py")


def test_the_last_line_sums_the_comparison_up(script, tmp_path, capsys):
    scores = made_up_scores()
    write_run(str(tmp_path), made_up_result(scores), [scores], made_up_curves(scores))
    assert script.main([str(tmp_path), str(tmp_path)]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["records"] == {"common": 180, "relabelled": 0, "added": 0, "removed": 0}
    assert [target["finding"] for target in line["targets"]] == ["no_change_shown"] * 2
    assert line["problems"] == []


def test_wrong_input_is_summed_up(script, tmp_path, capsys):
    assert script.main([str(tmp_path / "none"), str(tmp_path)]) == 2
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["targets"] is None
    assert "is this a run's folder?" in line["problems"][0]
