"""Settings are those the audit file names; what cannot be tried is refused before anything is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from small_sweep import SWEEP, made_spec, with_evidence, write_sweep_audit

from raymia.evidence.store import EvidenceStore
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec
from raymia.sweep.plan import plan_sweep
from raymia.sweep.queries import with_values
from raymia.sweep.space import check_sweep
from raymia.util.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


def attacks(folder: Path, spaces: dict[str, Any], **sweep: Any) -> AuditSpec:
    return made_spec(folder, {"attacks": spaces, **sweep})


def problems_of(folder: Path, sweep: dict[str, Any], **changes: Any) -> str:
    file = write_sweep_audit(folder, sweep, **changes)
    with pytest.raises(InputError) as error:
        planned(file)
    return str(error.value)


def planned(file: Path) -> None:
    spec = load_spec(file)
    plan_sweep(check_sweep(spec), EvidenceStore(spec.store))


def settings(spec: AuditSpec, attack: str) -> list[dict[str, Any]]:
    (swept,) = (swept for swept in check_sweep(spec).attacks if swept.key == attack)
    return [dict(parameters) for parameters in swept.settings]


# ------------------------------------------------------------------------------- settings


def test_a_grid_search_tries_every_combination_once(folder: Path) -> None:
    spaces = {"surp": {"share": {"grid": [0.1, 0.4, 0.1]}, "max_entropy": {"choice": [1.0, 2.0]}}}
    assert settings(attacks(folder, spaces), "surp") == [
        {"share": 0.1, "max_entropy": 1.0},
        {"share": 0.1, "max_entropy": 2.0},
        {"share": 0.4, "max_entropy": 1.0},
        {"share": 0.4, "max_entropy": 2.0},
    ]


def test_integers_include_both_ends(folder: Path) -> None:
    spec = attacks(folder, {"con_recall": {"gamma": {"integers": [2, 5]}}})
    spec = spec.model_copy(update={"records": spec.records.model_copy(
        update={"population": ["p"], "known_members": ["k"]})})  # fmt: skip
    assert [s["gamma"] for s in settings(spec, "con_recall")] == [2, 3, 4, 5]


def test_random_draws_meet_every_value_of_a_grid(folder: Path) -> None:
    spaces = {"surp": {"share": {"grid": [0.1, 0.4]}, "max_entropy": {"uniform": [1, 3]}}}
    found = settings(attacks(folder, spaces, search="random", samples=20), "surp")
    by_share = [{s["max_entropy"] for s in found if s["share"] == share} for share in (0.1, 0.4)]
    assert by_share[0] == by_share[1]
    assert len(by_share[0]) == 20


def test_draws_are_of_their_distributions_and_of_the_seed_alone(folder: Path) -> None:
    spaces = {"surp": {"share": {"uniform": [0.2, 0.6]}, "max_entropy": {"loguniform": [0.1, 10]}}}
    spec = attacks(folder, spaces, search="random", samples=400, seed=3)
    found = settings(spec, "surp")
    shares = [(s["share"] - 0.2) / 0.4 for s in found]
    logs = [(math.log(s["max_entropy"]) - math.log(0.1)) / math.log(100) for s in found]
    for uniform in (shares, logs):
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(shares, logs)[0, 1]) < 0.2
    more = attacks(folder, spaces, search="random", samples=500, seed=3)
    assert settings(more, "surp")[:400] == found
    assert settings(attacks(folder, spaces, search="random", seed=4), "surp")[0] != found[0]


def test_without_attacks_the_audits_own_are_tried_as_they_are(folder: Path) -> None:
    own = [{"attack": "min_k", "parameters": {"share": 0.5}}, "spv@base", "learned_combination"]
    queries = {"queries": SWEEP["queries"]}
    found = check_sweep(made_spec(folder, queries, attacks=own)).attacks
    assert {swept.key: list(swept.settings) for swept in found} == {
        "min_k": [{"share": 0.5}],
        "spv@base": [{}],
    }


# -------------------------------------------------------------------------------- queries


def test_a_query_setting_is_the_audit_with_other_values_and_nothing_else_changed(
    folder: Path,
) -> None:
    spec = made_spec(folder, SWEEP)
    changed = with_values(spec, {"neighbors.count": 7, "probes.noise.scale": 0.25})
    assert changed.neighbors is not None
    assert changed.neighbors.count == 7
    assert changed.probes.noise is not None
    assert changed.probes.noise.scale == 0.25
    same = {"neighbors": spec.neighbors, "probes": spec.probes}
    assert changed.model_copy(update=same) == spec


def test_keys_of_a_reference_that_is_made_can_be_swept(folder: Path) -> None:
    made = {"kind": "self_prompt", "prompts": "members.jsonl", "base": "base"}
    spec = made_spec(folder, SWEEP, references={"base": {"model": "./other"}, "own.one": made})
    changed = with_values(
        spec, {"references.own.one.prompt_tokens": 5, "references.own.one.fine_tune.epochs": 2}
    )
    reference: Any = changed.references["own.one"]
    assert (reference.prompt_tokens, reference.fine_tune.epochs) == (5, 2)
    assert changed.references["base"] == spec.references["base"]


def test_every_combination_of_queries_is_an_audit(folder: Path) -> None:
    sweep = {"queries": {"neighbors.count": {"grid": [1, 2]}, "neighbors.share": {
        "choice": [0.1, 0.2]}}}  # fmt: skip
    found = check_sweep(made_spec(folder, sweep)).queries
    pairs = [(q.values["neighbors.count"], q.values["neighbors.share"]) for q in found]
    assert pairs == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]


# ---------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"attacks": {"min_kk": {}}}, "sweep.attacks.min_kk: no attack 'min_kk'; did you mean"),
        ({"attacks": {"min_k": {"shar": {"grid": [0.1]}}}},
         "attack 'min_k' has no parameter 'shar'; did you mean 'share'?"),
        ({"attacks": {"min_k": {"share": {"grid": [0.1, 1.5]}}}},
         "sweep.attacks.min_k.share: attack 'min_k': share should be in (0, 1], but got 1.5"),
        ({"attacks": {"min_k": {"share": {"uniform": [0.1, 2]}}}, "search": "random"},
         "share should be in (0, 1], but got 2"),
        ({"attacks": {"min_k": {"share": {"grid": [[0.1]]}}}}, "share should be one value"),
        ({"attacks": {"min_k": {"share": {"grid": []}}}}, "sweep.attacks.min_k.share.grid: "),
        ({"attacks": {"min_k": {"share": {"grid": [0.1], "choice": [0.2]}}}},
         "give one of grid, choice, uniform, loguniform, integers, but got grid and choice"),
        ({"attacks": {"min_k": {"share": {"gird": [0.1]}}}}, "did you mean 'grid'?"),
        ({"attacks": {"min_k": {"share": {"uniform": [0.5, 0.1]}}}}, "uniform should rise"),
        ({"attacks": {"min_k": {"share": {"loguniform": [0, 1]}}}}, "loguniform should be above 0"),
        ({"attacks": {"min_k": {"share": {"uniform": [0.1, 0.5]}}}},
         "sweep.attacks.min_k.share: a grid search tries every value"),
        ({"attacks": {"spv@bass": {}}}, "no reference 'bass'; there are: base, other"),
        ({"attacks": {"learned_combination": {}}}, "combines the scores of the others"),
        ({"attacks": {"dc_pdd": {}}}, "add a section `corpus`"),
        ({}, "sweep: nothing is swept"),
        ({"attacks": {"min_k": {}}, "samples": 5}, "samples is for `search: random`"),
        ({"attacks": {"min_k": {}}, "search": "optune"}, "sweep.search: "),
        ({"queries": {"neighbors.cuont": {"grid": [1]}}},
         "sweep.queries.neighbors.cuont: unknown key; did you mean 'count'?"),
        ({"queries": {"nieghbors.count": {"grid": [1]}}}, "did you mean 'neighbors'?"),
        ({"queries": {"probes.prefix.shot": {"grid": [1]}}}, "did you mean 'shots'?"),
        ({"queries": {"seed": {"grid": [1]}}}, "keys that can be swept start with neighbors."),
        ({"queries": {"neighbors.kind": {"grid": ["infill"]}}}, "'kind' cannot be swept"),
        ({"queries": {"neighbors.count": {"grid": [1, 0]}}}, "(got 0)"),
        ({"queries": {"neighbors.count": {"uniform": [1, 9]}}}, "use grid, choice or integers"),
        ({"queries": {"references.base.max_tokens": {"grid": [9]}}}, "which is not made"),
        ({"queries": {"references.bse.texts": {"grid": [9]}}}, "did you mean 'base'?"),
        ({"attacks": {"min_k": {}}, "queries": {"neighbors.count": {"grid": [1, 2]}}},
         "neighbors.count: changes nothing that the swept attacks (min_k) ask"),
        ({"attacks": {"min_k": {}}, "objective": {"metric": "tpr", "fpr": 0.01}},
         "the calibration half has"),
    ],
)  # fmt: skip
def test_what_cannot_be_tried_is_refused(folder: Path, sweep: dict[str, Any], said: str) -> None:
    assert said in problems_of(folder, sweep)


def test_too_few_records_for_two_halves_are_refused(folder: Path) -> None:
    said = problems_of(folder, {"attacks": {"min_k": {}}}, records=30)
    assert "half has" in said
    assert "it takes at least 10 and 10" in said


def test_a_section_that_is_not_there_cannot_be_swept(folder: Path) -> None:
    queries = {"queries": {"neighbors.count": {"grid": [1]}}}
    assert "no section `neighbors`" in problems_of(folder, queries, neighbors=None)


def test_all_problems_are_told_together(folder: Path) -> None:
    sweep = {"attacks": {"min_kk": {}, "surp": {"share": {"grid": [2]}}},
             "queries": {"seed": {"grid": [1]}}}  # fmt: skip
    assert len(problems_of(folder, sweep).splitlines()) == 3


def test_more_settings_than_can_be_tried_are_refused(folder: Path) -> None:
    many = {"grid": [n / 1000 for n in range(1, 1001)]}
    sweep = {"attacks": {"surp": {"share": many, "max_entropy": many}}}
    assert "1,000,000 settings are more than the 100,000" in problems_of(folder, sweep)


# ------------------------------------------------------------------------------------ plan


@pytest.mark.long
def test_the_plan_asks_what_settings_share_once(folder: Path) -> None:
    spec = made_spec(folder / "plan", SWEEP)
    plan = plan_sweep(check_sweep(spec), EvidenceStore(spec.store))
    records, models, neighbors = 80, 3, 4  # of the largest setting
    once = records * (models * (1 + neighbors) + neighbors)
    assert [plan.to_ask[number] for number in plan.order] == [once, 0, 0]
    assert plan.audits[plan.order[0]].values == {"neighbors.count": 4}
    assert plan.settings == 3 + 2 * 2 * 3  # min_k has no neighbors; spv: references, counts
    assert with_evidence(spec).to_ask == [0, 0, 0]
