"""Every sentence of the verdict and of the first screen, held against made-up results.

Each row names the function that forms a sentence, a part of it, results that it must be said of,
and results that it must not be said of. A function of these modules that forms sentences and has no
row fails the last test.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache

import pytest
from made_up_verdicts import as_groups, audit, excess, shifted

from raymia.metrics.dataset import DatasetInference
from raymia.metrics.summary import AttackMetrics, Estimate, NotMeasured
from raymia.report import first_screen as cards
from raymia.report import table
from raymia.report.charts import Charts
from raymia.report.sections import target_sections
from raymia.results import telling, verdict, wording
from raymia.results.result import AttackCard, FailedTarget, ReferenceCard, RunResult
from raymia.shift.result import CopiesWithin, ShiftCheck

MODULES = (verdict, telling, cards, table)
NO_SENTENCES = {"first_screen", "_heading"}
"""The questions of the cards, and the style of a heading."""


def said(result: RunResult) -> str:
    """All that the verdict, its limits, the first screen and the terminal say of a run."""
    found = verdict.reach_verdict(result)
    sections = target_sections(result, found, [], Charts())
    screen = cards.first_screen(result, sections, [], Charts())
    lines = [found.sentence, *found.limits, *(line for card in screen.cards for line in card.lines)]
    for section in sections:
        lines += map(str, table._notes(section.ranking, {}))
    return "\n".join(lines)


def changed(entry: AttackMetrics, **changes) -> AttackMetrics:
    return entry.model_copy(update=changes)


def of(result: RunResult, **changes) -> RunResult:
    return result.model_copy(update=changes)


def unmeasured(scored: int, unscored: int, target: str = "tuned") -> NotMeasured:
    return NotMeasured(
        target=target, attack="ez@made", n_members=scored, n_non_members=0, n_unscored=unscored,
        reason="at least 2 members must have a score",
    )  # fmt: skip


def rates(entry: AttackMetrics, **changes) -> AttackMetrics:
    """The attack with other rates at every budget that it resolves."""
    tpr = [
        at
        if at.estimate is None
        else at.model_copy(update={"estimate": at.estimate.model_copy(update=changes)})
        for at in entry.tpr
    ]
    return changed(entry, tpr=tpr)


def guessing_by_area_alone(entry: AttackMetrics) -> AttackMetrics:
    """Only the AUC tells members: no rate is above what guessing reaches."""
    tpr = [
        at
        if at.estimate is None
        else at.model_copy(
            update={"estimate": at.estimate.model_copy(update={"value": at.max_fpr})}
        )
        for at in entry.tpr
    ]
    return changed(entry, tpr=tpr, above_all=0)


def unlucky_half(entry: AttackMetrics) -> AttackMetrics:
    """On the half that did not choose the threshold as many are accused as are named."""
    tpr = []
    for at in entry.tpr:
        held = at.held_out
        if held is not None:
            tpr_there = held.tpr.model_copy(update={"value": held.fpr.value, "hits": 0})
            held = held.model_copy(update={"tpr": tpr_there})
        tpr.append(at.model_copy(update={"held_out": held}))
    return changed(entry, tpr=tpr)


def with_limits(entry: AttackMetrics, steps: int) -> AttackMetrics:
    """The attack with no more limits than so many of its AUC."""
    low, high = entry.auc.limits.low[:steps], entry.auc.limits.high[:steps]
    limits = entry.auc.limits.model_copy(update={"low": low, "high": high})
    return changed(entry, auc=entry.auc.model_copy(update={"limits": limits}))


def area(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


NONE, LEAK = audit({"tuned/loss": 0.0}), audit({"tuned/loss": 3.0}, n=300)
(NO,), (YES,) = NONE.metrics, LEAK.metrics
TWO = audit({"tuned/loss": 0.5, "tuned/zlib": 2.5}, n=300)
MANY = audit({"tuned/loss": 0.0}, n=600)
MANY_GROUPS = of(MANY, split_by_group=True, group_metrics=as_groups(MANY.metrics))
UNJUDGED = of(
    LEAK, metrics=[changed(YES, tpr=[a.model_copy(update={"held_out": None}) for a in YES.tpr])]
)
SLIGHT = of(LEAK, metrics=[guessing_by_area_alone(audit({"tuned/loss": 0.9}, n=300).metrics[0])])
MADE = ReferenceCard(target="tuned", name="made", kind="self_prompt", model="base")
EZ = AttackCard(name="ez", title="t", source="s", formula="f")
NOTHING = of(NONE, metrics=[unmeasured(150, 0)], attacks=[EZ], references=[MADE])
NO_SCORES = of(NOTHING, metrics=[unmeasured(0, 300)])
GROUPS = as_groups(audit({"tuned/loss": 2.0}, n=30).metrics)
SPLIT = of(LEAK, group_metrics=GROUPS, split_by_group=True)
UNTESTED = of(NONE, group_metrics=[], split_by_group=True)
NO_LEAK_IN_GROUPS = of(
    NONE, split_by_group=True, group_metrics=as_groups(audit({"tuned/loss": 0.0}, n=40).metrics)
)
NO_RATE_IN_GROUPS = of(
    NO_LEAK_IN_GROUPS,
    group_metrics=[
        changed(
            NO_LEAK_IN_GROUPS.group_metrics[0],
            tpr=[
                at.model_copy(update={"estimate": None, "held_out": None, "resolvable": False})
                for at in NO.tpr
            ],
        )
    ],
)
COMBINED = audit({"tuned/loss": 0.0, "tuned/all": 0.0}, combined=("all",))
LEAK_AND_NONE = audit({"one/loss": 3.0, "two/loss": 0.0}, n=300)
LEAK_AND_NOTHING = of(LEAK_AND_NONE, metrics=[LEAK_AND_NONE.metrics[0], unmeasured(0, 9, "two")])
STOPPED = of(LEAK, shift=shifted())
NOTED = of(LEAK, shift=shifted(auc=0.53))
STATED = of(LEAK, shift=shifted().model_copy(update={"split": "randomized"}))
CLEAR = of(LEAK, shift=shifted("no_shift_found"))
COPIES = CopiesWithin(members=4, non_members=0, groups=2, proposed=[["a", "b"], ["c", "d"]])
WITH_COPIES = shifted("no_shift_found").model_copy(update={"copies": COPIES})
COPIED_BEFORE = of(LEAK, shift=WITH_COPIES)
COPIED = of(COPIED_BEFORE, distinct_metrics=audit({"tuned/loss": 3.0}, n=298).metrics)
SHARED = of(
    SPLIT,
    distinct_metrics=GROUPS,
    shift=WITH_COPIES.model_copy(update={"copies": COPIES.model_copy(update={"across_groups": 1})}),
)
SAMPLED = of(COPIED, shift=WITH_COPIES.model_copy(update={"left_out": 300}))
FEW_METRICS = audit({"tuned/loss": 3.0}, n=150).metrics
FEW_DISTINCT = of(COPIED, distinct_metrics=FEW_METRICS)
FEW_GROUPS = of(LEAK, group_metrics=as_groups(FEW_METRICS), split_by_group=True)
FEWER_GROUPS = of(FEW_GROUPS, group_metrics=as_groups(audit({"tuned/loss": 3.0}, n=80).metrics))
UNTESTED_LEAK = of(LEAK, split_by_group=True)
NONE_COPIED = of(NONE, shift=WITH_COPIES, distinct_metrics=audit({"tuned/loss": 0.0}).metrics)
TEST = DatasetInference(
    target="tuned", suspects="members", n_suspects=9, n_non_members=9, p_value=0.5, effect=0.1
)
FEW = audit({"tuned/loss": 0.0}, n=8)
TINY = audit({"tuned/loss": 9.0}, n=3)
OLD = of(TWO, metrics=[changed(m, held_out_auc=None, above_all=None) for m in TWO.metrics])
TURNED = audit({"tuned/loss": -1.5})
BY_TOP = audit({"tuned/loss": 0.0}, n=600)
BY_TOP = of(BY_TOP, metrics=[rates(changed(BY_TOP.metrics[0], above_all=40), value=0.0)])
TOP_COPIED = of(BY_TOP, shift=WITH_COPIES, distinct_metrics=BY_TOP.metrics)
HIGH_AREA = of(LEAK, metrics=[guessing_by_area_alone(audit({"tuned/loss": 2.4}, n=300).metrics[0])])
FEW_LIMITS = of(LEAK, metrics=[with_limits(HIGH_AREA.metrics[0], steps=1)])
NO_LIMITS = of(LEAK, metrics=[changed(HIGH_AREA.metrics[0],
               auc=HIGH_AREA.metrics[0].auc.model_copy(update={"limits": None}))])  # fmt: skip
FEW_LOW_LIMITS = of(SLIGHT, metrics=[with_limits(SLIGHT.metrics[0], steps=1)])
WEAK_FIRST = of(TWO, metrics=[TWO.metrics[0], changed(guessing_by_area_alone(TWO.metrics[1]),
                auc=TWO.metrics[1].auc.model_copy(update={"value": 0.5}))])  # fmt: skip
UNFINISHED = of(LEAK, complete=False)
FAILED = of(UNFINISHED, failed=[FailedTarget(name="other", reason="no weights")])
AREA_ONLY = of(NONE, metrics=[changed(NO, tpr=[])])
BOTH_BUDGETS = of(
    NONE,
    metrics=[NO, changed(audit({"two/loss": 0.0}, n=400, seed=5).metrics[0], target="two")],
)

ROWS = [
    # ------------------------------------------------------------------------------ verdict.py
    ("_sentence", "The audit is not finished: some answers are missing", [UNFINISHED],
     [LEAK, FAILED]),
    ("_sentence", "not finished: 1 checkpoint failed", [FAILED], [UNFINISHED, LEAK]),
    ("_sentence", "No leak was found", [NONE, COMBINED, NO_LEAK_IN_GROUPS],
     [LEAK, UNTESTED, NOTHING, NO_SCORES, STOPPED]),
    ("_sentence", "No attack did better than chance explains", [NONE], [COMBINED, LEAK, UNTESTED]),
    ("_sentence", "No attack by itself did better", [COMBINED], [NONE]),
    ("_sentence", "tuned leaks strongly.", [LEAK], [NONE, SLIGHT, STOPPED, UNTESTED]),
    ("_sentence", "tuned leaks.", [SLIGHT, BY_TOP], [LEAK, NONE, NO_SCORES]),
    ("_sentence", "1 of 2 checkpoints leaks. ", [LEAK_AND_NONE], [LEAK_AND_NOTHING, LEAK]),
    ("_sentence", "1 of 2 checkpoints leaks; 1 could not be judged. ", [LEAK_AND_NOTHING],
     [LEAK_AND_NONE]),
    ("_among", "in any of 2 checkpoints", [BOTH_BUDGETS], [NONE, LEAK_AND_NONE]),
    ("_among", "in the only one of 2 checkpoints that could be measured",
     [of(NONE, metrics=[NO, unmeasured(0, 300, "two")])], [NONE, BOTH_BUDGETS]),
    ("_shift_sentence", "Members and non-members differ without any model: the best guess",
     [STOPPED], [NOTED, STATED, CLEAR, LEAK]),
    ("_shift_sentence", "No attack was compared with that guess", [STOPPED],
     [of(STOPPED, excess_over_blind=[excess(0.2, 0.5)])]),
    ("_shift_sentence", "No attack is stronger than that guess by more than chance explains",
     [of(STOPPED, excess_over_blind=[excess(0.2, 0.5)])],
     [STOPPED, of(STOPPED, excess_over_blind=[excess(0.2, 0.001)])]),
    ("_shift_sentence", "Beyond that guess, ratio on tuned gains 0.200 of AUC",
     [of(STOPPED, excess_over_blind=[excess(0.2, 0.001)])],
     [of(STOPPED, excess_over_blind=[excess(0.2, 0.5)]), STOPPED]),
    ("_limits", "This is no proof of privacy", [NONE], [LEAK, STOPPED, NO_SCORES, UNTESTED]),
    ("_limits", "It does not show that nothing leaks", [STOPPED], [NONE, LEAK, NOTED]),
    ("_limits", "does not prove of any one record", [LEAK], [NONE, NO_SCORES, STOPPED]),
    ("_limits", "Every attack scores members below non-members", [TURNED], [LEAK, TWO, NONE]),
    ("_limits", "Every attack scores members below non-members",
     [of(COPIED, distinct_metrics=TURNED.metrics)],
     [of(COPIED, metrics=TURNED.metrics)]),
    ("_limits", "Whether the leak is strong is not known", [FEW_LIMITS, NO_LIMITS],
     [LEAK, SLIGHT, HIGH_AREA, FEW_LOW_LIMITS]),
    ("why_strength_is_unknown", "limits are not kept for as many attacks as were tried",
     [FEW_LIMITS], [LEAK, HIGH_AREA, NO_LIMITS]),
    ("why_strength_is_unknown", "an earlier version of raymia made the audit and kept no limits",
     [NO_LIMITS], [LEAK, FEW_LIMITS]),
    ("_limits", "differ in more than training was not checked", [LEAK], [CLEAR, NOTED, NONE]),
    ("_limits", "The leading attack is far stronger than the best such guess",
     [of(STOPPED, excess_over_blind=[excess(0.28, 0.001).model_copy(update={
         "attack": "loss", "guesser_auc": 0.6, "attack_auc": 0.98})])],
     [STOPPED, LEAK, NOTED]),
    ("_limits", "those in the table of groups are the ones to read", [SPLIT], [UNTESTED, LEAK]),
    ("_limits", "Some groups hold members and non-members",
     [of(LEAK, group_metrics=GROUPS)], [LEAK, SPLIT]),
    ("_cautions", "rests on 3 non-members:", [LEAK, UNTESTED_LEAK], [MANY]),
    ("_cautions", "rests on 1 distinct non-member:", [FEW_DISTINCT], [LEAK, FEW_GROUPS]),
    ("_cautions", "rests on 1 group of non-members:", [FEW_GROUPS], [LEAK, FEW_DISTINCT]),
    ("_cautions", "rests on 8 groups of non-members:", [FEWER_GROUPS], [FEW_GROUPS]),
    ("_on_records", "states that members and non-members were split at random", [STATED],
     [NOTED, STOPPED, CLEAR]),
    ("_on_records", "which hardly ever gives such a guess", [STATED],
     [NOTED, of(LEAK, shift=shifted(auc=0.53).model_copy(update={"split": "randomized"}))]),
    ("_on_records", "were not looked for in this run", [LEAK, STOPPED], [COPIED]),
    ("on_copies", "They are no independent evidence", [COPIED, COPIED_BEFORE, SHARED],
     [CLEAR, of(COPIED, split_by_group=True, group_metrics=GROUPS)]),
    ("on_copies", "the tests against chance count the first of each cluster alone", [COPIED],
     [CLEAR, COPIED_BEFORE, SHARED]),
    ("on_copies", "the tests against chance count a cluster in its first group alone", [SHARED],
     [COPIED, SPLIT]),
    ("on_copies", "dataset inference counts groups that share copies once",
     [of(SHARED, dataset_inference=[TEST])], [of(COPIED, dataset_inference=[TEST]), SHARED]),
    ("_on_records", "Only a sample of 300 members and non-members was searched", [SAMPLED],
     [COPIED, of(SAMPLED, distinct_metrics=[])]),
    ("on_copies", "dataset inference counts a cluster once",
     [of(COPIED, dataset_inference=[TEST])], [COPIED]),
    ("_how_it_was_chosen", "The leading attack is the best of 2 on one half", [TWO],
     [LEAK, OLD, WEAK_FIRST]),
    ("_how_it_was_chosen", "That choice saw all records", [WEAK_FIRST], [TWO, LEAK]),
    ("_how_it_was_chosen", "so its number is flattered", [OLD], [TWO, LEAK]),
    # ------------------------------------------------------------------------------ telling.py
    ("untested", "1 of 2 attacks could not be tested",
     [of(NO_LEAK_IN_GROUPS, metrics=[NO, changed(NO, attack="zlib")])],
     [NO_LEAK_IN_GROUPS, NONE, UNTESTED]),
    ("nothing_measured", "No attack could be tested on 150 members", [UNTESTED],
     [NO_LEAK_IN_GROUPS, NONE, NOTHING]),
    ("_why_untested", "because groups with a score are too few", [UNTESTED],
     [COPIED_BEFORE, NONE, TINY]),
    ("_why_untested", "an earlier version scored a group by the mean of all its records",
     [of(LEAK, split_by_group=True, group_metrics=LEAK.metrics)], [SPLIT, UNTESTED]),
    ("_why_untested", "an earlier version did not measure one of each alone", [COPIED_BEFORE],
     [COPIED, NONE_COPIED, UNTESTED]),
    ("_why_untested", "because distinct records with a score are too few",
     [of(COPIED, distinct_metrics=[unmeasured(1, 0)])], [COPIED, COPIED_BEFORE]),
    ("nothing_measured", "with 3 distinct members and 3 distinct non-members and 1 attack",
     [of(COPIED, distinct_metrics=TINY.metrics)], [COPIED, TINY]),
    ("nothing_measured", "No leak could have been found: with 3 members and 3 non-members and 1 "
     "attack, chance explains whatever an attack does", [TINY], [NONE, FEW, UNTESTED]),
    ("nothing_measured", "with 3 groups of members and 3 groups of non-members and 1 attack",
     [of(LEAK, split_by_group=True, group_metrics=as_groups(TINY.metrics))],
     [TINY, SPLIT, UNTESTED]),
    ("nothing_measured", "no member and no non-member has a score", [NO_SCORES],
     [NOTHING, NONE, UNTESTED]),
    ("nothing_measured", "the scores are kept", [NOTHING, of(NONE, metrics=[])],
     [NO_SCORES, UNTESTED, NONE]),
    ("nothing_measured", "Read those of ez@made first", [NOTHING], [NO_SCORES, UNTESTED, NONE]),
    ("not_ruled_out", ", or down to 0.41",
     [of(NONE, metrics=[changed(NO, auc=NO.auc.model_copy(update={"low": 0.41, "high": 0.52}))])],
     [of(NONE, metrics=[changed(NO, auc=NO.auc.model_copy(update={"low": 0.48, "high": 0.6}))])]),
    ("not_ruled_out", "of the distinct members named at", [NONE_COPIED], [NONE]),
    ("not_ruled_out", "of the members named at", [NONE, BOTH_BUDGETS],
     [FEW, NO_LEAK_IN_GROUPS, AREA_ONLY]),
    ("not_ruled_out", "of the groups named at", [NO_LEAK_IN_GROUPS], [NONE, NO_RATE_IN_GROUPS]),
    ("not_ruled_out", "rates at few false positives could not be bounded",
     [AREA_ONLY, NO_RATE_IN_GROUPS], [NONE, BOTH_BUDGETS, NO_LEAK_IN_GROUPS]),
    ("what_it_does", "and wrongly accuses ", [LEAK], [SLIGHT, TURNED, BY_TOP, NONE]),
    ("what_it_does", "of the members on all records, and wrongly accuses no more than",
     [of(LEAK, metrics=[unlucky_half(YES)])], [LEAK]),
    ("what_it_does", "of the distinct members on all distinct records, and wrongly accuses no more",
     [of(COPIED, metrics=[YES], distinct_metrics=[unlucky_half(COPIED.distinct_metrics[0])])],
     [COPIED, of(COPIED, metrics=[unlucky_half(YES)])]),
    ("what_it_does", " on groups.", [SPLIT], [LEAK, COPIED]),
    ("what_it_does", "scores 40 of 600 members above every one of 600 non-members", [BY_TOP],
     [LEAK, of(BY_TOP, split_by_group=True, group_metrics=GROUPS)]),
    ("what_it_does", "scores a member below a non-member", [TURNED], [LEAK, SLIGHT, NONE]),
    ("what_it_does", "scores a member above a non-member", [SLIGHT], [TURNED, NONE]),
    ("number_of_units",
     "scores 30 of 30 groups of members above every one of 30 groups of non-members",
     [of(SPLIT, group_metrics=[rates(changed(GROUPS[0], above_all=30), value=0.0)])],
     [SPLIT, LEAK]),
    ("number_of_units", "40 of 600 distinct members above every one of 600 distinct non-members",
     [TOP_COPIED], [BY_TOP, COPIED]),
    ("_how_many_it_names", "On all records it names few members",
     [of(SLIGHT, metrics=[rates(SLIGHT.metrics[0], value=0.01, high=0.03)])],
     [of(SLIGHT, metrics=[rates(SLIGHT.metrics[0], value=0.01, high=0.3)]), LEAK]),
    ("_how_many_it_names", "How many members it names with few false positives could not be tested",
     [of(SLIGHT, metrics=[changed(SLIGHT.metrics[0], tpr=[])])], [SLIGHT, LEAK]),
    ("power_lines", "% of members named at", [MANY], [LEAK, MANY_GROUPS, UNTESTED]),
    ("power_lines", "% of groups named at", [MANY_GROUPS], [MANY, NO_RATE_IN_GROUPS]),
    # ------------------------------------------------------------------------- first_screen.py
    ("_named", "Nothing was measured.", [NO_SCORES, NOTHING], [NONE, LEAK, UNTESTED, STOPPED]),
    ("_named", "That cannot be told: members and non-members differ", [STOPPED],
     [NONE, LEAK, NOTED]),
    ("_named", "could not be measured on 150 members and 150 non-members", [AREA_ONLY], [NONE]),
    ("_named", "on records that did not choose its threshold", [LEAK, NONE],
     [UNJUDGED, AREA_ONLY]),
    ("_named", "That is no more than chance explains.", [NONE],
     [LEAK, UNTESTED, NO_RATE_IN_GROUPS, AREA_ONLY]),
    ("_named", "Whether that is more than chance explains could not be tested.",
     [UNTESTED], [NONE, LEAK, AREA_ONLY, NO_RATE_IN_GROUPS]),
    ("_named", "could not be measured on 40 groups of members and 40 groups of non-members",
     [NO_RATE_IN_GROUPS], [UNTESTED, NO_LEAK_IN_GROUPS]),
    ("_named", "of the distinct members: ", [COPIED, NONE_COPIED], [LEAK, COPIED_BEFORE]),
    ("_sure", "The AUC on distinct records is", [COPIED, NONE_COPIED], [LEAK, COPIED_BEFORE]),
    ("_sure", "That share is between", [LEAK, NONE], [AREA_ONLY, STOPPED, NO_SCORES]),
    ("_sure", "guessing has 0.5.", [LEAK, NONE], [STOPPED, NO_SCORES]),
    ("_sure", "The chance that guessing reaches ", [LEAK, SLIGHT, BY_TOP],
     [NONE, UNTESTED, STOPPED]),
    ("_reached", "reaches such an AUC", [SLIGHT, TURNED], [LEAK, BY_TOP]),
    ("_reached", "reaches such a rate at", [LEAK], [SLIGHT, BY_TOP]),
    ("_reached", "reaches as many members above all non-members", [BY_TOP], [LEAK, SLIGHT]),
    ("_tried", "because one attack was tried",
     [LEAK, audit({"tuned/loss": 3.0, "tuned/all": 0.0}, n=300, combined=("all",))], [TWO]),
    ("_tried", "because 2 attacks, over all checkpoints, were tried", [TWO], [LEAK]),
    ("_compared", "Guessing: an AUC of 0.5.", [AREA_ONLY], [LEAK, NO_SCORES]),
    ("_compared", "The loss alone, which needs no reference", [TWO], [LEAK]),
    ("_compared", "The best guess that sees no model", [CLEAR, NOTED, STOPPED], [LEAK]),
    ("_compared", "differ without a model was not checked", [LEAK], [CLEAR, NO_SCORES]),
    ("_next", "Run the same audit again", [UNFINISHED], [LEAK, NONE]),
    ("_next", "No leak was found in two.", [LEAK_AND_NONE], [LEAK_AND_NOTHING, LEAK]),
    ("_next", "To leak less", [LEAK], [NONE, STOPPED, NO_SCORES, UNTESTED]),
    ("_next", "Take non-members from where the members came from, split at random. If they were",
     [STOPPED], [LEAK, NONE, STATED]),
    ("_next", "Add a reference.", [NONE], [of(NONE, references=[MADE]), LEAK]),
    ("_next", "if a leak that is not ruled out would matter", [NONE], [LEAK, UNTESTED, NO_SCORES]),
    ("_next", "Give at least 100 non-members",
     [of(NO_SCORES, records=FEW.records)], [NO_SCORES, NONE]),
    ("_and_others", "and 1 other checkpoint.",
     [audit({"a/loss": 3.0, "b/loss": 0, "c/loss": 0, "d/loss": 0, "e/loss": 0})],
     [LEAK_AND_NONE]),
    # -------------------------------------------------------------------------------- table.py
    ("_notes", "1 record has no score and is left out", [of(LEAK, metrics=[changed(YES,
     n_unscored=1)])], [LEAK, of(LEAK, metrics=[changed(YES, n_unscored=2)])]),
    ("_notes", "2 records have no score and are left out", [of(LEAK, metrics=[changed(YES,
     n_unscored=2)])], [LEAK]),
    ("_notes", "members score lower than non-members", [TURNED], [NONE, LEAK]),
    ("_notes", "Ranked by AUC", [AREA_ONLY], [LEAK, NO_SCORES]),
    ("_notes", "FPR: not resolvable (needs", [NONE], [AREA_ONLY]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "of_these", "not_of_these"),
    [row[1:] for row in ROWS],
    ids=[f"{function}: {part}"[:60] for function, part, _, _ in ROWS],
)
def test_a_sentence_is_said_of_what_it_is_true_of_and_of_nothing_else(part, of_these, not_of_these):
    for number, result in enumerate(of_these):
        assert part in told(result), f"not said of number {number}"
    for number, result in enumerate(not_of_these):
        assert part not in told(result), f"said of number {number}"


@pytest.mark.parametrize("result", [SPLIT, FEW_DISTINCT, FEW_GROUPS, FEWER_GROUPS])
def test_the_verdict_does_not_say_on_how_many_records_a_rate_on_others_rests(result):
    """The table of records does: its rates are on them."""
    limits = verdict.reach_verdict(result).limits
    assert not any("rests on 3 non-members" in limit for limit in limits)


_TOLD: dict[int, str] = {}


def told(result: RunResult) -> str:
    """`said`, once for each result; rows keep the results alive, so ids stay theirs."""
    if id(result) not in _TOLD:
        _TOLD[id(result)] = said(result)
    return _TOLD[id(result)]


@cache
def _functions_with_sentences() -> set[str]:
    """Functions that form a sentence: one that holds a text of more than two words and a point or
    a comma, and is no docstring."""
    found = set()
    for module in MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False)
                texts = [
                    text.value
                    for text in ast.walk(node)
                    if isinstance(text, ast.Constant)
                    and isinstance(text.value, str)
                    and text.value != doc
                ]
                if any(len(text.split()) > 2 for text in texts):
                    found.add(node.name)
    return found


def test_no_function_forms_a_sentence_that_is_not_held_against_results():
    assert _functions_with_sentences() - NO_SENTENCES <= {function for function, *_ in ROWS}


@pytest.mark.parametrize(
    ("rate", "digits", "text"),
    [
        (0.943, 1, "94.3 %"), (0.0, 1, "0.0 %"), (1.0, 1, "100.0 %"), (0.0003, 1, "0.03 %"),
        (0.9996, 1, "99.96 %"), (0.004, 0, "0.4 %"), (1e-9, 1, "0.0000 %"),
    ],
)  # fmt: skip
def test_some_is_not_written_as_none_or_all(rate, digits, text):
    assert wording.percent(rate, digits) == text


@pytest.mark.parametrize(
    ("members", "non_members", "p_value", "part"),
    [
        (0, 0, None, "compared nothing, because no record has a score"),
        (0, 9, None, "needs more records (0 members against 9 non-members)"),
        (9, 9, 0.5, "p = 0.5,"),
        (9, 9, 0.0125, "p = 0.0125,"),
        (9, 9, 1e-9, "p = 1.0e-09,"),
        (9, 9, 0.0, "p < 1e-300,"),
    ],
)
def test_a_test_of_a_set_says_what_it_compared(members, non_members, p_value, part):
    test = TEST.model_copy(
        update={"n_suspects": members, "n_non_members": non_members, "p_value": p_value}
    )
    assert part in wording.dataset_inference(test)
    assert ("effect" in wording.dataset_inference(test)) is (p_value is not None)


@pytest.mark.parametrize(
    ("check", "part"),
    [
        (shifted(), "shift: members can be told from non-members without the model, by a bag of"),
        (shifted(auc=0.53), "Note: members can be told"),
        (shifted("no_shift_found"), "no shift was found by 1 guesser that saw no target"),
        (
            ShiftCheck(
                state="not_checked", reason="too few", error_rate=0.05, n_members=1, n_non_members=1
            ),
            "was not checked: too few",
        ),
    ],
)
def test_the_line_of_the_shift_says_its_level(check, part):
    assert part in wording.shift_line(check)
