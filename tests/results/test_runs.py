"""A stored run in a notebook."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores

import raymia
from raymia.report.files import write_run
from raymia.results.scores import SCORES_SCHEMA
from raymia.util.errors import InputError


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    scores = made_up_scores()
    write_run(str(folder), made_up_result(scores), [scores], made_up_curves(scores))
    return raymia.load_run(folder)


@pytest.fixture(scope="module")
def one_target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    scores = made_up_scores().slice(0, 3 * 180)  # of `tuned` alone
    write_run(str(folder), made_up_result(scores), [scores], made_up_curves(scores))
    return raymia.load_run(str(folder))


def test_importing_raymia_imports_neither_models_nor_ray_nor_tables():
    heavy = "{'ray', 'torch', 'pyarrow', 'numpy', 'plotly', 'pandas', 'pydantic'}"
    code = f"import raymia, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_run_says_what_it_is(stored):
    assert "reviews, 60 members, 120 non-members, 3 candidates, 2 targets, 3 attacks" in repr(
        stored
    )
    assert stored.targets == ["tuned", "base"]
    assert stored.attacks == ["loss", "ez@self_prompt", "zlib"]
    assert stored.result.name == "reviews"


def test_scores_come_by_target_and_attack_as_arrow_or_pandas(stored):
    assert stored.scores().num_rows == 2 * 3 * 180
    assert stored.scores("tuned").num_rows == 3 * 180
    one = stored.scores("tuned", "loss", as_="pandas")
    assert one.shape == (180, len(SCORES_SCHEMA))
    assert set(one["target"]) == {"tuned"}
    assert set(one["attack"]) == {"loss"}
    expected = made_up_scores().slice(0, 180)["score"].to_numpy()
    assert np.array_equal(one["score"], expected)


def test_scores_written_in_pieces_are_found(tmp_path):
    scores = made_up_scores()
    pieces = [scores.slice(start, 180) for start in range(0, scores.num_rows, 180)]
    write_run(str(tmp_path), made_up_result(scores), pieces, made_up_curves(scores))
    stored = raymia.load_run(tmp_path)
    assert (stored.targets, len(stored.scored)) == (["tuned", "base"], 6)
    assert stored.scores("base", "loss").equals(scores.slice(3 * 180, 180))


def test_the_curve_is_that_of_the_scores(stored):
    curve = stored.roc("ez@self_prompt", "tuned")
    table = stored.scores("tuned", "ez@self_prompt", as_="pandas")
    cut = curve.thresholds[40]
    called = table[table["score"] >= cut]
    assert curve.tpr[40] == called["is_member"].sum() / 60
    assert curve.fpr[40] == (~called["is_member"]).sum() / 120


def test_the_only_target_need_not_be_named(stored, one_target):
    assert one_target.roc("loss").n_members == 60
    assert one_target.plot().layout.title.text == "tuned"
    with pytest.raises(InputError, match="say which target: there are tuned, base"):
        stored.roc("loss")


def test_metrics_come_best_first(stored):
    ez, loss, zlib = stored.metrics("tuned")
    assert (ez.attack, loss.attack, zlib.attack) == ("ez@self_prompt", "loss", "zlib")
    assert zlib.kind == "not_measured"
    assert [m.target for m in stored.metrics(attack="loss")] == ["tuned", "base"]


def test_the_figure_has_the_curves_of_the_target(stored):
    figure = stored.plot("tuned")
    assert [trace.name for trace in figure.data] == ["ez@self_prompt", "loss"]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert figure.data[0].y[-1] == 1.0
    assert figure.data[0].x.min() == 0.5 / 120
    assert [trace.name for trace in stored.plot("base", "loss").data] == ["loss"]


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda run: run.roc("ez@selfprompt", "tuned"), "did you mean 'ez@self_prompt'?"),
        (lambda run: run.scores("tunes"), "no target 'tunes'; did you mean 'tuned'?"),
        (lambda run: run.metrics(attack="lost"), "no attack 'lost'; did you mean 'loss'?"),
        (lambda run: run.plot("nobody"), "no target 'nobody'; there are: tuned, base"),
        (lambda run: run.roc("zlib", "tuned"), "zlib on tuned has no ROC curve"),
        (lambda run: run.scores(as_="polars"), "as_='arrow' or 'pandas', but got 'polars'"),
    ],
)
def test_what_a_run_does_not_have_is_refused_with_the_nearest_name(stored, ask, says):
    with pytest.raises(InputError) as refused:
        ask(stored)
    assert says in str(refused.value)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is this a run's folder"):
        raymia.load_run(str(tmp_path))
