"""A run in an experiment tracker: all of its numbers, and nothing that should not leave."""

from __future__ import annotations

import time

import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores

from raymia.report import trackers
from raymia.report.files import write_run
from raymia.report.trackers import check_tracker, log_run, logged
from raymia.results.gate import decide_again
from raymia.results.result import Dropped
from raymia.results.text_result import TextExample, TextPiece
from raymia.results.verdict import reach_verdict
from raymia.util.errors import InputError, RaymiaError
from raymia.util.reasons import CAME

SECRET = "correct-horse"
AUDIT = f"""
name: reviews
seed: 7
targets:
- {{name: tuned, model: 's3://me:{SECRET}@bucket/model'}}
records: {{members: 'https://host/m.jsonl?token={SECRET}'}}
"""
TEXT = "universally acknowledged"


@pytest.fixture(scope="module")
def result(scores):
    found = made_up_result(
        scores,
        audit_yaml=AUDIT,
        dropped=[
            Dropped(stage="target", record_id="a", neighbor=None, reason=f"no answer{CAME}{TEXT}")
        ],
        text_examples=[
            TextExample(
                target="tuned", attack="loss", record_id="a", is_member=True, score=1.0, rank=1,
                of=60, outscored=0.9, reference=None, cut=0,
                pieces=[TextPiece(text=TEXT, log_prob=-1.0, typical=None)],
            )
        ],
    )  # fmt: skip
    judged = found.model_copy(update={"verdict": reach_verdict(found)})
    return judged.model_copy(update={"gate": decide_again(judged, ["any.auc > 0.6"])})


@pytest.fixture(scope="module")
def scores():
    return made_up_scores()


@pytest.fixture(scope="module")
def folder(result, scores, tmp_path_factory):
    place = str(tmp_path_factory.mktemp("run"))
    write_run(place, result, [scores], made_up_curves(scores))
    return place


def test_numbers_are_told_with_their_limits_by_names_that_trackers_take(result):
    told = logged(result)
    entry = next(m for m in result.metrics if (m.target, m.attack) == ("tuned", "ez@self_prompt"))
    at = entry.tpr[1].estimate
    place = "tuned/ez_at_self_prompt"
    assert {
        f"{place}/auc": entry.auc.value, f"{place}/auc_low": entry.auc.low,
        f"{place}/auc_high": entry.auc.high, f"{place}/tpr_at_1pctfpr": at.value,
        f"{place}/tpr_at_1pctfpr_low": at.low, f"{place}/tpr_at_1pctfpr_high": at.high,
        f"{place}/n_members": 60.0,
    }.items() <= told.metrics.items()  # fmt: skip
    assert told.tags["verdict"] == result.verdict.finding
    assert told.tags["gate"] == "closed"
    assert told.parameters["seed"] == "7"
    assert told.parameters["targets_tuned_.name"] == "tuned"
    assert told.parameters["number_of/members"] == "60"
    assert SECRET not in str(told)


def test_numbers_of_distinct_records_and_of_groups_are_told_beside_those_of_records(result):
    entry = next(m for m in result.metrics if m.attack == "ez@self_prompt")
    of_groups = entry.model_copy(update={"n_members": 30})
    distinct = entry.model_copy(update={"n_members": 50})
    changes = {"group_metrics": [of_groups], "distinct_metrics": [distinct]}
    told = logged(result.model_copy(update=changes)).metrics
    assert told["tuned_distinct_records/ez_at_self_prompt/n_members"] == 50
    assert told["tuned/ez_at_self_prompt/n_members"] == 60
    assert told["tuned_by_group/ez_at_self_prompt/n_members"] == 30
    assert told["tuned_by_group/ez_at_self_prompt/auc_low"] == entry.auc.low


def test_names_that_become_one_are_kept_apart():
    assert trackers._renamed([("a b", 1), ("a c", 2), ("a%b", 3), ("a b", 4)]) == {
        "a_b": 1, "a_c": 2, "apctb": 3, "a_b_2": 4,
    }  # fmt: skip


@pytest.mark.long
def test_mlflow_has_the_run_in_a_store_of_files(result, folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(trackers, "MLFLOW_METRICS", 20)
    monkeypatch.setattr(trackers, "MLFLOW_PARAMETERS", 2)
    assert "experiment raymia, run " in log_run(folder, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("raymia")
    (run,) = client.search_runs([experiment.experiment_id])
    told = logged(result)
    assert run.data.metrics == pytest.approx(dict(told.metrics))
    assert run.data.params == dict(told.parameters)
    assert dict(told.tags).items() <= run.data.tags.items()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "reviews")
    (artifact,) = client.list_artifacts(run.info.run_id)
    page = (tmp_path / client.download_artifacts(run.info.run_id, artifact.path)).read_text()
    assert "<title>reviews" in page
    assert all(TEXT not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert all(SECRET not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.long
def test_wandb_has_the_run_offline(folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("CACHE_DIR", str(tmp_path)),
                        ("DATA_DIR", str(tmp_path)), ("CONFIG_DIR", str(tmp_path))):  # fmt: skip
        monkeypatch.setenv(f"WANDB_{name}", value)
    log_run(folder, "wandb")
    wanted = b"tuned/ez_at_self_prompt/auc_low"
    deadline = time.monotonic() + 30  # W&B writes from a process of its own
    while True:
        files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        (written,) = [content for name, content in files.items() if name.endswith(".wandb")]
        if wanted in written or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert wanted in written
    assert b"report.html" in written
    assert not any(SECRET.encode() in content or TEXT.encode() in content
                   for content in files.values())  # fmt: skip


def test_a_tracker_that_does_not_answer_is_told_of_and_the_run_is_whole(folder, monkeypatch):
    def refuse(*_):
        raise ConnectionError(f"no answer from https://me:{SECRET}@host")

    monkeypatch.setattr(trackers, "TRACKERS", {"mlflow": refuse})
    with pytest.raises(RaymiaError) as refused:
        log_run(folder, "mlflow")
    assert f"the run is complete in {folder}, but mlflow did not take it (ConnectionError" in str(
        refused.value
    )
    assert SECRET not in str(refused.value)


def test_a_tracker_that_is_not_installed_is_refused_before_an_audit_begins(monkeypatch):
    monkeypatch.setattr("raymia.util.optional.is_installed", lambda _: False)
    with pytest.raises(InputError, match=r"--log-to: mlflow-skinny is not installed here.*pip"):
        check_tracker("mlflow")
