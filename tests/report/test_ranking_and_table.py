"""One order everywhere, and a table that fits the terminal."""

import io

import numpy as np
import pytest
from made_up_run import made_up_result, made_up_scores
from rich.console import Console

from raymia.metrics.measuring import measure
from raymia.metrics.summary import NotMeasured
from raymia.report.alike import gate_rows
from raymia.report.table import gate_table, metrics_table
from raymia.results.gate_result import GateOutcome
from raymia.results.ranking import rank
from raymia.results.result import AttackCard


def measured(attack, strength, n_non_members=200, fprs=(0.1, 0.01, 0.001)):
    draws = np.random.default_rng(0)
    is_member = np.arange(200 + n_non_members) < 200
    scores = draws.normal(size=is_member.size) + strength * is_member
    return measure(scores, is_member, target="t", attack=attack, fprs=fprs)


def printed(result, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(metrics_table(result, width))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("n_non_members", "fprs", "expected"),
    [
        (200, (0.1, 0.01, 0.001), 0.01),
        (5000, (0.1, 0.01, 0.001), 0.01),
        (99, (0.2, 0.1, 0.01), 0.1),
        (5000, (0.1, 0.05), 0.05),
        (9, (0.1, 0.01), None),
    ],
)
def test_attacks_are_ranked_at_one_percent_or_what_can_be_resolved(n_non_members, fprs, expected):
    (ranking,) = rank([measured("a", 1.0, n_non_members, fprs)])
    assert ranking.fpr == expected


def test_best_attack_comes_first():
    weak, strong, middling = (measured(str(s), s) for s in (0.1, 3.0, 1.5))
    (ranking,) = rank([weak, strong, middling])
    assert [attack.attack for attack in ranking.measured] == ["3.0", "1.5", "0.1"]


def test_attack_that_cannot_resolve_the_budget_comes_after_those_that_can():
    few_scored = measured("few", 3.0, n_non_members=50)
    (ranking,) = rank([few_scored, measured("all", 0.5)])
    assert [attack.attack for attack in ranking.measured] == ["all", "few"]


def test_table_fits_100_columns_and_loses_nothing(result):
    text = printed(result)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    assert text.index("ez@self_prompt") < text.index("loss")
    assert "0.1 % FPR: not resolvable (needs >= 1,000 non-members)." in text
    assert "TPR at 1 % FPR rests on 1 non-member: it is rough" in text
    assert "zlib: not measured, at least 2 members must have a score; there are 0." in text


def test_each_attack_takes_one_line(result):
    lines = [line for line in printed(result).splitlines() if line.startswith("ez@self_prompt")]
    assert len(lines) == 2
    assert all(line.count("[") == 3 and line.count("]") == 3 for line in lines)


def test_names_are_not_read_as_markup():
    scores = made_up_scores(lambda text: f"[red]{text}[/red]")
    assert "[red]tuned[/red]" in printed(made_up_result(scores))


def test_the_ranking_budget_is_among_the_columns():
    fprs = (0.5, 0.4, 0.3, 0.2, 0.1, 0.01)
    result = made_up_result(made_up_scores(), metrics=[measured("a", 1.0, fprs=fprs)])
    assert "TPR@1 % FPR" in printed(result)


def test_attacks_that_score_members_lower_are_named_below_the_table():
    metrics = [
        measured(name, strength) for name, strength in (("a", -3.0), ("b", 3.0), ("c", -2.0))
    ]
    text = printed(made_up_result(made_up_scores(), metrics=metrics))
    assert "c, a: AUC below chance: members score lower than non-members." in text
    assert "AUC below" not in printed(made_up_result(made_up_scores(), metrics=metrics[1:2]))


def test_rows_of_the_gate_have_the_worst_first_and_targets_of_which_the_same_is_said():
    reason = "a: TPR at 0.1 % FPR is not resolvable (needs >= 1,000 non-members)"
    said = [
        ("one", "undecided", reason),
        ("two", "passed", "no leak"),
        ("three", "undecided", reason),
        ("four", "failed", "a leak"),
    ]
    gate = [
        GateOutcome(condition="any.tpr@0.1%fpr > 0.5", target=target, status=status, reason=why)
        for target, status, why in said
    ]
    assert [(row.targets, row.status) for row in gate_rows(gate)] == [
        (("four",), "failed"),
        (("one", "three"), "undecided"),
        (("two",), "passed"),
    ]
    console = Console(width=200, file=io.StringIO())
    console.print(gate_table(made_up_result(made_up_scores()).model_copy(update={"gate": gate})))
    assert console.file.getvalue().count(reason) == 1


def test_run_without_metrics_prints():
    nothing = NotMeasured(
        target="t", attack="a", n_members=0, n_non_members=0, n_unscored=0, reason="no labels"
    )
    text = printed(made_up_result(made_up_scores(), metrics=[nothing]))
    assert "a: not measured, no labels." in text


@pytest.mark.parametrize(("width", "budgets"), [(100, 3), (80, 1), (64, 1), (50, 0)])
def test_narrow_terminal_keeps_the_attacks_and_drops_budgets(width, budgets):
    result = made_up_result(made_up_scores(n_non_members=400))
    attacks = [entry for entry in result.metrics if entry.kind == "measured"]
    lines = printed(result, width).splitlines()
    heading = next(line for line in lines if line.strip().startswith("attack"))
    assert heading.count("TPR@") == budgets
    assert budgets == 0 or "TPR@1 % FPR" in heading
    assert all(any(entry.attack in line for line in lines) for entry in attacks)
    assert all(len(line.rstrip()) <= width for line in lines)


def test_distinct_records_have_a_table_of_their_own():
    result, few = (made_up_result(made_up_scores(n_non_members=n)) for n in (240, 200))
    text = printed(result.model_copy(update={"distinct_metrics": few.metrics}))
    assert "tuned, distinct records" in text
    assert "distinct members, 200 distinct non-members" in text
    assert "TPR at 1 % FPR rests on 2 distinct non-members" in text


def test_groups_are_not_called_records():
    result = made_up_result(made_up_scores(n_non_members=200))
    text = printed(result.model_copy(update={"metrics": [], "group_metrics": result.metrics}))
    assert "groups of members, 200 groups of non-members" in text
    assert "TPR at 1 % FPR rests on 2 groups of non-members" in text
    assert "(needs >= 1,000 groups of non-members)" in text


def test_records_without_a_score_are_counted_with_when_that_is(result):
    first = next(entry for entry in result.metrics if entry.kind == "measured")
    name = first.attack
    lacking = result.model_copy(
        update={
            "attacks": [
                AttackCard(
                    name=name, title="t", source="s", formula="f", labels=[name],
                    no_score="No score without a scored token.",
                )
            ],
            "metrics": [first.model_copy(update={"n_unscored": 3})],
        }
    )  # fmt: skip
    text = " ".join(printed(lacking).split())
    assert "3 records have no score and are left out. No score without a scored token." in text
