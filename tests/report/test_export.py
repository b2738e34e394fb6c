"""A stored run in other forms: every number as it stands in metrics.json, every sign as it is."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores
from made_up_verdicts import as_groups, shifted
from typer.testing import CliRunner

from raymia import load_run
from raymia.cli.main import app
from raymia.metrics.summary import AttackMetrics
from raymia.report.export import FORMS, draw, export
from raymia.report.files import write_run
from raymia.results.ranking import at_budget, held_out_area, rank
from raymia.results.verdict import reach_verdict
from raymia.results.wording import budget, percent, unit_interval
from raymia.shift.result import CopiesWithin
from raymia.util.errors import InputError

ODD = "a_b & 50 % | <b> #1"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    scores = made_up_scores()
    result = made_up_result(scores)
    result = result.model_copy(update={"verdict": reach_verdict(result)})
    write_run(str(folder), result, [scores], made_up_curves(scores))
    return load_run(folder)


@pytest.fixture(scope="module")
def grouped(run):
    """The same, with half as many groups as records, which were split as wholes."""
    groups = as_groups(made_up_result(made_up_scores(n_members=30, n_non_members=60)).metrics)
    result = run.result.model_copy(update={"group_metrics": groups, "split_by_group": True})
    return replace(run, result=result.model_copy(update={"verdict": reach_verdict(result)}))


def check_numbers(table: pd.DataFrame, run) -> None:
    assert len(table) == len(run.result.metrics)
    for entry in run.result.metrics:
        ((_, row),) = table[
            (table["target"] == entry.target) & (table["attack"] == entry.attack)
        ].iterrows()
        assert row["n_members"] == entry.n_members
        if not isinstance(entry, AttackMetrics):
            assert row["not_measured"] == entry.reason
            assert pd.isna(row["auc"])
            continue
        assert row["auc"] == entry.auc.value
        assert (row["auc_low"], row["auc_high"]) == (entry.auc.low, entry.auc.high)
        if entry.held_out_auc is not None:
            told = held_out_area(entry)
            assert (row["held_out_auc"], row["held_out_auc_high"]) == (told.value, told.high)
        for at in entry.tpr:
            name = f"{100 * at.max_fpr:g}%fpr"
            assert pd.isna(row[f"tpr@{name}"]) == (at.estimate is None)
            if at.estimate is not None:
                assert row[f"tpr@{name}"] == at.estimate.value
                assert row[f"tpr@{name}_low"] == at.estimate.low
            if at.held_out is not None:
                assert row[f"held_out_tpr@{name}"] == at.held_out.tpr.value
                assert row[f"held_out_fpr@{name}"] == at.held_out.fpr.value
        assert row["one_minus_eer"] == entry.one_minus_eer


def test_csv_parquet_and_pandas_have_every_number_bit_for_bit(run):
    check_numbers(run.metrics(as_="pandas"), run)
    check_numbers(pq.read_table(io.BytesIO(export(run, "parquet"))).to_pandas(), run)
    written = io.BytesIO(export(run, "csv"))
    check_numbers(pd.read_csv(written, float_precision="round_trip"), run)


def test_distinct_records_and_groups_have_rows_of_their_own(grouped):
    distinct = made_up_result(made_up_scores(n_members=50, n_non_members=110)).metrics
    result = grouped.result.model_copy(update={"distinct_metrics": distinct})
    grouped = replace(grouped, result=result)
    table = pd.read_csv(io.BytesIO(export(grouped, "csv")), float_precision="round_trip")
    assert len(table) == 3 * len(distinct)
    assert "tuned, distinct records" in export(grouped, "markdown").decode()
    for of, entries in (
        ("records", grouped.result.metrics),
        ("distinct", distinct),
        ("groups", grouped.result.group_metrics),
    ):
        rows = table[table["of"] == of].set_index(["target", "attack"])
        assert len(rows) == len(entries)
        for entry in entries:
            row = rows.loc[(entry.target, entry.attack)]
            assert row["n_members"] == entry.n_members
            if isinstance(entry, AttackMetrics):
                assert (row["auc"], row["auc_low"]) == (entry.auc.value, entry.auc.low)
    written = io.BytesIO(export(grouped, "parquet"))
    assert list(pq.read_table(written)["of"].to_pylist()) == list(table["of"])


def test_where_records_are_copies_the_table_of_a_model_card_is_of_distinct_ones(grouped):
    distinct = grouped.result.group_metrics
    copies = CopiesWithin(members=2, non_members=0, groups=1, proposed=[["a", "b"]])
    shift = shifted("no_shift_found").model_copy(update={"copies": copies})
    changes = {"group_metrics": [], "split_by_group": False, "distinct_metrics": distinct}
    result = grouped.result.model_copy(update={**changes, "shift": shift})
    verdict = reach_verdict(result)
    result = result.model_copy(update={"verdict": verdict})
    card = export(replace(grouped, result=result), "model-card").decode().replace("\\", "")
    assert "It is a table of distinct records, as the tests are." in card
    leader = next(m for m in distinct if m.attack == verdict.targets[0].attack)
    assert f"| {held_out_area(leader).value:.3f} [" in card


def test_where_groups_were_split_the_table_of_a_model_card_is_theirs(grouped):
    card = export(grouped, "model-card").decode().replace("\\", "")
    assert "those in the table of groups are the ones to read" in card
    assert "It is a table of groups of records, as the tests are." in card
    (judged, *_) = grouped.result.verdict.targets
    areas = [
        f"{area.value:.3f} {unit_interval(area)}"
        for metrics in (grouped.result.metrics, grouped.result.group_metrics)
        for m in metrics
        if (m.target, m.attack) == (judged.target, judged.attack)
        for area in [held_out_area(m)]
    ]
    assert [area in card for area in areas] == [False, True]


def test_of_one_attack_there_is_one_row_for_each_target(run):
    table = run.metrics(attack="loss", as_="pandas")
    assert list(table["attack"]) == ["loss"] * 2
    with pytest.raises(InputError, match="as_='objects' or 'pandas'"):
        run.metrics(as_="polars")


def test_signs_that_mean_something_are_escaped(tmp_path):
    scores = made_up_scores(lambda text: text if text != "tuned" else ODD)
    result = made_up_result(scores)
    write_run(str(tmp_path), result, [scores], made_up_curves(scores))
    odd = load_run(tmp_path)
    lines = export(odd, "markdown").decode().splitlines()
    unescaped = [line.replace("\\|", "").count("|") for line in lines]
    assert len(set(unescaped)) == 1
    assert "a\\_b & 50 % \\| \\<b\\> \\#1" in lines[2]
    latex = export(odd, "latex").decode()
    assert "a\\_b \\& 50 \\% | <b> \\#1" in latex
    assert latex.startswith("\\begin{tabular}")


def test_a_model_card_has_the_verdict_the_leading_attack_and_what_is_not_proven(run):
    card = export(run, "model-card").decode()
    verdict = run.result.verdict
    assert card.startswith("## ")
    for judged in verdict.targets:
        assert f"| {judged.target} |" in card
    plain = card.replace("\\", "")
    assert verdict.sentence in plain
    assert verdict.limits
    assert all(f"- {limit}" in plain for limit in verdict.limits)


def test_a_model_card_gives_the_rate_of_false_positives_and_the_level_that_it_has(run):
    result = run.result
    metrics = [
        one.model_copy(update={"confidence": 0.8}) if isinstance(one, AttackMetrics) else one
        for one in result.metrics
    ]
    other = replace(run, result=result.model_copy(update={"metrics": metrics}))
    card = export(other, "model-card").decode().replace("\\", "")
    assert "Brackets are 80 % intervals." in card
    (ranking, *_) = rank(metrics)
    judged = next(one for one in run.result.verdict.targets if one.target == ranking.target)
    leader = next(one for one in ranking.measured if one.attack == judged.attack)
    held = at_budget(leader, ranking.fpr).held_out
    told = f"{percent(held.tpr.value)} at {percent(held.fpr.value)} FPR ["
    assert told in card
    assert f"threshold for {budget(ranking.fpr)} FPR" in card


def test_the_command_writes_files_and_prints_texts(run, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, ["export", run.folder, *arguments])

    for form in FORMS:
        file = tmp_path / "deep" / f"file.{form}"
        done = call("--to", form, "--out", str(file))
        assert done.exit_code == 0, done.output
        assert file.read_bytes() == export(run, form)
    assert call("--to", "csv").stdout == export(run, "csv").decode()
    assert "name a file with --out" in str(call("--to", "parquet").exception)
    wrong = call("--to", "csv", "--out", str(tmp_path / "a.parquet"))
    assert "is called .parquet, and --to is csv; change one" in str(wrong.exception)
    assert "--target goes with" in str(call("--to", "csv", "--target", "tuned").exception)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("chromium") is None, reason="kaleido draws in a browser")
def test_curves_are_drawn_as_a_picture_of_one_target(run, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", shutil.which("chromium"))
    picture = draw(run, "tuned", "svg").decode()
    assert picture.startswith("<svg")
    assert "ez@self_prompt" in picture
    with pytest.raises(InputError, match="say which target"):
        draw(run, None, "svg")


def test_without_a_browser_the_reason_says_what_to_install(run, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    with pytest.raises(InputError, match=r"kaleido could not draw.*BROWSER_PATH"):
        draw(run, "tuned", "svg")
