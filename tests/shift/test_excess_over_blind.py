"""An audit's own shift check: from stored evidence, beside the attacks it puts in their place."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from records_to_check import austen, king_james, some
from scipy import stats
from small_inputs import audit, write_jsonl
from tiny_models import BASE, PARAPHRASER

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.questions.text import TOKEN_SCHEMA
from raymia.report.html import render
from raymia.results.chance import units_of, what_counts
from raymia.results.wording import overlap_lines, shift_line
from raymia.run.outcome import Run, sum_up
from raymia.scoring.blind import ask_blind
from raymia.scoring.parts import score_parts
from raymia.scoring.reduction import reduce_audit
from raymia.scoring.workers import Here

KIND = 40


def run_on(folder, model, members, non_members, told=1.0, **changes):
    """Sum up an audit whose models answered at random, the target a bit surer of members."""
    records = {
        "members": write_jsonl(folder / "a.jsonl", members),
        "non_members": write_jsonl(folder / "b.jsonl", non_members),
    }
    spec = audit(
        folder, model, PARAPHRASER, records=records, neighbors=None,
        references={"base": {"model": str(BASE)}, "same": {"model": str(model)}},
        attacks=["loss", "zlib", "difference"], **changes,
    )  # fmt: skip
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    is_member = dict(
        zip(inputs.records.ids, inputs.records.table["is_member"].to_pylist(), strict=True)
    )
    draws = np.random.default_rng(0)
    before = plan_audit(inputs, store)
    for stage in before[0].stages:
        for planned in stage.questions:
            rows = []
            for record in planned.missing.by_record():
                mean = draws.normal() + told * is_member[record] * (stage.role == "target") - 8
                log_prob = [mean - 0.1, mean + 0.1]
                rows.append(
                    {"record_id": record, "neighbor": 0, "truncated": False, "token_ids": [1, 2],
                     "log_prob": log_prob, "mean_log_prob": [-3.0, -3.0],
                     "std_log_prob": [1.0, 1.0], "is_top1": [False, False]}
                )  # fmt: skip
            store.commit(planned.key, pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA))
    plans = plan_audit(inputs, store)
    with score_parts(spec.store) as parts:
        reduction = reduce_audit(inputs, store, plans, parts, Here())
        result = sum_up(Run(inputs, store, before, plans, {}, 1.0), reduction, parts, Here())
        kept = parts.read(plans[0].name)
    blind = ask_blind(inputs, store, plans)
    return result, kept, render(result, reduction.curves), inputs, blind


@pytest.fixture(scope="module")
def shifted(tmp_path_factory, tiny_gpt2):
    folder = tmp_path_factory.mktemp("shifted")
    return run_on(folder, tiny_gpt2, some(austen(), KIND), some(king_james(), KIND))


@pytest.fixture(scope="module")
def alike(tmp_path_factory, tiny_gpt2):
    folder, chosen = tmp_path_factory.mktemp("alike"), some(austen(), 2 * KIND)
    return run_on(folder, tiny_gpt2, chosen[:KIND], chosen[KIND:])


def area(scores, members):
    """Pairs that are in order, a tie counting half."""
    pairs = itertools.product(scores[members], scores[~members])
    return np.mean([(a > b) + (a == b) / 2 for a, b in pairs])


@pytest.mark.long
def test_excess_equals_a_direct_computation(alike):
    result, kept, _, inputs, blind = alike
    members = np.array(inputs.records.table["is_member"].to_pylist())
    strongest = result.shift.strongest
    guesses = np.array([blind.scores[i] for i in inputs.records.ids])
    assert blind.check == result.shift
    assert blind.wider >= 1
    assert strongest.auc.value == pytest.approx(area(guesses, members))
    for entry in result.excess_over_blind:
        scores = kept[entry.attack]
        own, other = (
            np.array([[(a > b) + (a == b) / 2 for b in s[~members]] for a in s[members]])
            for s in (scores, guesses)
        )
        difference = own - other
        beyond = (blind.wider**2 - 1) * sum(other.mean(axis=a).var(ddof=1) / KIND for a in (0, 1))
        by_member, by_other = difference.mean(axis=1), difference.mean(axis=0)
        parts = np.array([by_member.var(ddof=1) / KIND, by_other.var(ddof=1) / KIND, beyond])
        spread, degrees = np.sqrt(parts.sum()), parts.sum() ** 2 / (parts**2 / (KIND - 1)).sum()
        reach = stats.t.ppf(0.975, degrees) * spread
        assert entry.guesser == strongest.name
        assert entry.attack_auc == pytest.approx(area(scores, members))
        assert entry.guesser_auc == pytest.approx(area(guesses, members))
        assert entry.excess.value == pytest.approx(difference.mean())
        assert entry.excess.low == pytest.approx(difference.mean() - reach)
        assert entry.p_value == pytest.approx(
            2 * stats.t.sf(abs(difference.mean()) / spread, degrees)
        )
    p = sorted(entry.p_value for entry in result.excess_over_blind)
    adjusted = np.maximum.accumulate([min(1, (len(p) - k) * v) for k, v in enumerate(p)])
    found = sorted(entry.corrected_p_value for entry in result.excess_over_blind)
    np.testing.assert_allclose(found, adjusted)


@pytest.mark.long
def test_every_attack_on_every_target_has_its_excess(alike, shifted):
    for result, kept, *_ in (alike, shifted):
        assert {(e.target, e.attack) for e in result.excess_over_blind} == {
            ("one", attack) for attack in kept
        }


def test_loss_under_a_reference_alone_is_a_guess_and_under_the_target_is_none(alike):
    """`same` is the target itself by another name."""
    names = [guess.name for guess in alike[0].shift.guesses]
    assert "loss@base" in names
    assert "loss@same" not in names


def test_no_model_is_asked_for_the_check(alike):
    assert sum(stage.asked for stage in alike[0].stages) == 0


def test_other_source_leads_the_verdict_the_page_and_the_terminal(shifted):
    result, _, page, *_ = shifted
    assert result.shift.state == "shift"
    assert result.verdict.finding == "shift_suspected"
    assert "without any model" in result.verdict.sentence
    line = shift_line(result.shift)
    assert "do not measure leakage" in line
    assert line.split("(")[0] in page


def test_random_split_is_no_shift_and_says_how_it_was_found(alike):
    result, _, page, *_ = alike
    assert result.shift.state == "no_shift_found"
    assert (result.shift.n_members, result.shift.n_non_members) == (KIND, KIND)
    assert shift_line(result.shift) in page
    assert overlap_lines(result.shift) == []


def test_check_that_is_switched_off_says_so(tmp_path, tiny_gpt2):
    chosen = some(austen(), 60)
    off = {"shift": {"enabled": False}}
    result, *_ = run_on(tmp_path, tiny_gpt2, chosen[:30], chosen[30:], **off)
    assert result.shift.state == "not_checked"
    assert result.shift.reason == "it is switched off in the audit file"
    assert (result.shift.n_members, result.shift.n_non_members) == (30, 30)
    assert result.excess_over_blind == []


@pytest.mark.parametrize(("members", "enabled"), [(20, True), (30, False)])
def test_one_of_each_cluster_counts_without_the_check(tmp_path, tiny_gpt2, members, enabled):
    """With too few records for it, or switched off."""
    chosen = some(austen(), 60)
    alike = [f"{chosen[0]} {word}" for word in ("so", "too", "yes", "then")]
    off = {"shift": {"enabled": enabled}}
    result, *_ = run_on(
        tmp_path, tiny_gpt2, [*chosen[: members - 4], *alike], chosen[30 : 30 + members], **off
    )
    assert (result.shift.state, result.shift.guesses) == ("not_checked", [])
    assert (result.shift.copies.members, result.shift.copies.groups) == (5, 1)
    assert what_counts(result) == "distinct"
    assert {m.n_members for m in units_of(result).values()} == {members - 4}
    assert any("They are no independent evidence" in limit for limit in result.verdict.limits)


@pytest.mark.long
def test_sample_of_the_audit_file_is_kept_to(tmp_path, tiny_gpt2):
    chosen = some(austen(), 120)
    given = {"shift": {"sample": 50}}
    result, *_ = run_on(tmp_path, tiny_gpt2, chosen[:60], chosen[60:], **given)
    assert (result.shift.n_members, result.shift.left_out) == (50, 20)
    assert {entry.n_members for entry in result.excess_over_blind} == {50}


@pytest.mark.long
def test_of_near_copies_a_run_measures_the_first_beside_all(tmp_path, tiny_gpt2):
    """Five members are one text with another word at its end."""
    chosen = some(austen(), 60)
    members = [*chosen[:26], *(f"{chosen[0]} {word}" for word in ("so", "too", "yes", "then"))]
    result, kept, page, inputs, blind = run_on(tmp_path, tiny_gpt2, members, chosen[30:])
    assert result.shift.copies.members == 5
    labels = np.array(inputs.records.table["is_member"].to_pylist())
    ids = inputs.records.ids
    in_cluster = [name for name in ids if name in blind.clusters]
    distinct = np.array([name not in in_cluster[1:] for name in ids])
    assert len(in_cluster) == 5
    assert [m.attack for m in result.distinct_metrics] == [m.attack for m in result.metrics]
    for of_all, entry in zip(result.metrics, result.distinct_metrics, strict=True):
        scores = kept[entry.attack][distinct]
        assert (of_all.n_members, entry.n_members, entry.n_non_members) == (30, 26, 30)
        assert entry.auc.value == pytest.approx(area(scores, labels[distinct]))
    assert "the tests against chance count the first of each cluster alone" in page


def test_without_copies_nothing_is_measured_a_second_time(alike):
    assert alike[0].distinct_metrics == []
