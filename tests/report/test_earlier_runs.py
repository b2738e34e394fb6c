"""Folders that earlier versions wrote are read: their metrics lack what is measured since."""

import json

import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores

from raymia.report.files import write_report, write_run
from raymia.results.compare import compare_runs
from raymia.results.folder import load_result
from raymia.results.gate import decide_again
from raymia.results.runs import StoredRun
from raymia.results.verdict import reach_verdict

SINCE = {"limits", "scores_sha256", "held_out_auc", "above_all", "calibration_tpr", "chosen_by",
         "undecided", "copies", "split", "null_spread", "content_sha256"}  # fmt: skip


def without(content):
    """The same JSON as it was before."""
    if isinstance(content, list):
        return [without(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    if content.get("method") == "held_out":
        content = {key: value for key, value in content.items() if key != "high"}
    kept = {key: without(value) for key, value in content.items() if key not in SINCE}
    return {**kept, "resamples": 2_000} if content.get("kind") == "measured" else kept


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier") / "run"
    scores = made_up_scores(n_members=300, n_non_members=300)
    write_run(str(folder), made_up_result(scores), [scores], made_up_curves(scores))
    file = folder / "metrics.json"
    file.write_text(json.dumps(without(json.loads(file.read_text()))))
    return str(folder)


def test_an_earlier_run_has_a_report_and_a_verdict(earlier):
    result = load_result(earlier)
    assert all(m.held_out_auc is None for m in result.metrics if m.kind == "measured")
    verdict = reach_verdict(result)
    assert verdict.finding == "leaks"
    assert any("Whether the leak is strong is not known" in limit for limit in verdict.limits)
    assert any("so its number is flattered" in limit for limit in verdict.limits)
    assert write_report(earlier).endswith("report.html")


def test_an_earlier_run_is_compared_with_one_of_now(earlier):
    comparison = compare_runs(StoredRun.open(earlier), StoredRun.open(earlier), {})
    assert {target.finding for target in comparison.targets} == {"no_change_shown"}


def test_a_gate_on_an_earlier_run_says_that_it_cannot_be_decided(earlier):
    outcomes = decide_again(load_result(earlier), ["ez@self_prompt.auc > 0.5", "loss.epsilon > 0"])
    assert {outcome.status for outcome in outcomes} == {"undecided"}
    assert "run the audit again" in outcomes[0].reason
    (met, _) = decide_again(load_result(earlier), ["verdict >= leaks"])
    assert met.status == "failed", "a verdict is there all the same"


def test_whether_an_earlier_run_leaks_strongly_is_not_decided_by_an_interval_without_correction(
    earlier,
):
    (strong, *_) = decide_again(load_result(earlier), ["verdict >= leaks_strongly"])
    assert strong.status == "not_evaluated"
    assert "kept no limits" in strong.reason
    assert "run it again" in strong.reason
