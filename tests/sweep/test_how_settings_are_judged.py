"""Settings are chosen by one half of the records, and the other half has no part in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_answers import evidence as made_evidence
from sklearn.metrics import roc_auc_score
from small_sweep import made_spec, with_evidence, write_sweep_audit

from raymia.attacks import Attack
from raymia.attacks.base import Scores
from raymia.evidence.store import EvidenceStore
from raymia.spec import ObjectiveSpec
from raymia.spec.file import load_spec
from raymia.sweep.content import EvidenceHasher
from raymia.sweep.evaluate import Evaluated, Place, Setting, Split, evaluate
from raymia.sweep.places import read_places
from raymia.sweep.record import Tried
from raymia.sweep.result import Row
from raymia.sweep.winners import find_winners
from raymia.sweep.work import Listed, Terms, Worker
from raymia.util.errors import RaymiaError

RATES = (0.1,)
AUC = ObjectiveSpec()
SHARES = [n / 20 for n in range(1, 21)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plan, its evidence and its audit file, with Min-K% at twenty shares."""
    sweep = {"attacks": {"min_k": {"share": {"grid": SHARES}}}}
    spec = made_spec(tmp_path_factory.mktemp("made"), sweep, records=400)
    plan = with_evidence(spec)
    return plan, read_places(plan, plan.plans, EvidenceStore(spec.store)), spec


def tried(made: Any, halves: Split, store: Path) -> list[Row]:
    plan, places, _ = made
    (place,) = places.found["tuned", "min_k"]
    settings = [Setting(place, parameters) for parameters in plan.sweep.attacks[0].settings]
    terms = Terms(str(store), "text", halves, RATES, AUC)
    worker = Worker(terms, places.evidence.__getitem__, lambda *_: None)
    worker.go_through(Listed(tuple(settings)))
    known = Tried(str(store), halves, RATES).read()
    return [Row(setting, known[setting.key], {}, 0, 0) for setting in settings]


def winner(made: Any, halves: Split, store: Path) -> Any:
    rows = tried(made, halves, store)
    (best,) = find_winners(rows, made[1].evidence, halves, RATES, AUC, made[2])
    return best


# --------------------------------------------------------------------------------- halves


def test_halves_share_no_record_and_groups_stay_together(tmp_path: Path) -> None:
    import json

    file = write_sweep_audit(tmp_path, {"attacks": {"min_k": {}}}, records=200)
    for name in ("members", "non_members"):
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        grouped = [{**row, "author": f"{name} {n // 4}"} for n, row in enumerate(rows)]
        path.write_text("".join(json.dumps(row) + "\n" for row in grouped))
    spec = load_spec(file)
    spec = spec.model_copy(
        update={"records": spec.records.model_copy(update={"group_column": "author"})}
    )
    plan = with_evidence(spec)
    halves, inputs = plan.halves, plan.audits[0].inputs
    assert not (halves.calibration & halves.evaluation).any()
    assert (halves.calibration | halves.evaluation).all()
    groups = np.array(inputs.records.table["group"].to_pylist())
    assert not set(groups[halves.calibration]) & set(groups[halves.evaluation])
    other = made_spec(tmp_path, {"attacks": {"min_k": {}}, "seed": 1}, records=200)
    assert (with_evidence(other).halves.calibration != halves.calibration).any()


def test_the_half_that_judges_has_no_part_in_the_choice(made: Any, tmp_path: Path) -> None:
    halves = made[0].halves
    labels = halves.is_member.copy()
    rows = np.flatnonzero(halves.evaluation)
    labels[rows] = ~labels[rows]
    turned = replace(halves, is_member=labels)
    best, other = winner(made, halves, tmp_path / "a"), winner(made, turned, tmp_path / "b")
    assert other.parameters == best.parameters
    assert other.calibration == best.calibration
    assert other.evaluation.auc.value == pytest.approx(1 - best.evaluation.auc.value)


def test_the_best_on_the_calibration_half_wins_with_both_figures(made: Any, tmp_path: Path) -> None:
    plan, places, _ = made
    halves, best = plan.halves, winner(made, plan.halves, tmp_path)
    log_prob = places.evidence["tuned", 0].records.target.tokens
    by_share = {}
    for share in SHARES:
        per_record = log_prob.per_record(log_prob.log_prob)
        scores = [np.sort(v.astype(float))[: max(1, int(share * len(v)))].mean()
                  for v in per_record]  # fmt: skip
        by_share[share] = np.array(scores)

    def auc(share: float, half: str) -> float:
        rows = getattr(halves, half)
        return float(roc_auc_score(halves.is_member[rows], by_share[share][rows]))

    expected = max(SHARES, key=lambda share: auc(share, "calibration"))
    assert best.parameters == {"share": expected}
    assert best.tried == len(SHARES)
    for half in ("calibration", "evaluation"):
        figures = getattr(best, half)
        assert figures.auc.value == pytest.approx(auc(expected, half))
        assert figures.auc.low < figures.auc.value < figures.auc.high
        members, others = halves.counts(half)
        assert (figures.n_members, figures.n_non_members) == (members, others)


@dataclass(frozen=True)
class _Noise(Attack):
    """Scores that know nothing, others for each seed."""

    seed: int = 0

    name = "noise"

    def score(self, evidence: Any) -> Scores:
        return np.random.default_rng(self.seed).normal(size=len(evidence))


@pytest.mark.long
def test_the_best_of_many_that_know_nothing_is_at_chance_where_it_is_judged() -> None:
    """Judged where it was chosen, the best of 200 would look like an attack."""
    rng = np.random.default_rng(5)
    chosen, judged = [], []
    for trial in range(20):
        first = rng.random(200) < 0.5
        halves = Split(first, ~first, rng.random(200) < 0.5)
        place = Place("t", 0, "noise", "noise", None, "e")
        found = [
            evaluate(Setting(place, {"seed": n}), _Noise(1_000 * trial + n), range(200), halves,
                     RATES)
            for n in range(200)
        ]  # fmt: skip
        best = max(found, key=lambda result: result.objective(RATES, AUC) or 0.0)
        assert best.calibration is not None
        assert best.evaluation is not None
        chosen.append(best.calibration.auc)
        judged.append(best.evaluation.auc)
    assert np.mean(chosen) > 0.6
    assert abs(np.mean(judged) - 0.5) < 3 * np.std(judged) / np.sqrt(len(judged)) + 0.01


@dataclass(frozen=True)
class _Labels:
    is_member: list[bool | None]


@dataclass(frozen=True)
class _Told:
    labels: _Labels


@dataclass(frozen=True)
class _Learner(Attack):
    """An attack that says what it is told."""

    name = "learner"

    def score(self, evidence: Any) -> Scores:
        return np.array([0.5 if label is None else float(label)
                         for label in evidence.labels.is_member])  # fmt: skip


def test_an_attack_that_learns_is_not_told_the_labels_that_judge_the_choice() -> None:
    first = np.arange(80) % 2 == 0
    is_member = np.arange(80) % 4 < 2
    halves = Split(first, ~first, is_member)
    place = Place("t", 0, "learner", "learner", None, "e")
    told = _Told(_Labels([bool(label) for label in is_member]))
    turned = replace(told, labels=_Labels([bool(label) ^ bool(judged)
                                           for label, judged in zip(is_member, ~first, strict=True)
                                           ]))  # fmt: skip
    found = [evaluate(Setting(place, {}), _Learner(), e, halves, RATES) for e in (told, turned)]
    assert found[0].calibration == found[1].calibration
    assert found[0].evaluation != found[1].evaluation


# --------------------------------------------------------------------------------- record


def test_evidence_has_another_hash_when_a_number_that_is_read_changes() -> None:
    asks = ("tokens", "neighbors")

    def hashed(evidence: Any, asks: tuple[str, ...] = asks) -> str:
        return EvidenceHasher().digest(evidence, asks)

    first = made_evidence()
    assert hashed(made_evidence()) == hashed(first)
    tokens, neighbors = first.target.tokens, first.target.neighbors
    log_prob = tokens.log_prob.copy()
    log_prob[3] = np.nextafter(log_prob[3], 0)
    target = replace(first.target, tokens=replace(tokens, log_prob=log_prob))
    assert hashed(replace(first, target=target)) != hashed(first)
    assert neighbors is not None
    mean = neighbors.mean_log_prob.copy()
    mean[0, 0] = np.nextafter(mean[0, 0], 0)
    around = replace(first, target=replace(first.target, neighbors=replace(
        neighbors, mean_log_prob=mean)))  # fmt: skip
    assert hashed(around) != hashed(first)
    assert hashed(around, ("tokens",)) == hashed(first, ("tokens",))
    assert hashed(replace(first, reference=None)) != hashed(first)


def test_results_are_known_by_evidence_parameters_halves_rates_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(4) < 2
    halves = Split(rows, ~rows, np.arange(4) % 2 == 0)
    place = Place("t", 0, "min_k", "min_k", None, "evidence")
    setting = Setting(place, {"share": 0.1})
    result = Evaluated(
        key=setting.key, attack="min_k", evidence="evidence", parameters={"share": 0.1},
        calibration=None, evaluation=None, problem="why",
    )  # fmt: skip
    store = str(tmp_path)
    Tried(store, halves, RATES).commit([result])
    assert Tried(store, halves, RATES).read() == {setting.key: result}
    for other in (Setting(place, {"share": 0.2}), Setting(replace(place, evidence="x"), {})):
        assert other.key != setting.key
    assert Setting(replace(place, target="u", query=1), {"share": 0.1}).key == setting.key
    assert Tried(store, replace(halves, evaluation=rows), RATES).read() == {}
    assert Tried(store, halves, (0.01,)).read() == {}
    monkeypatch.setattr("raymia.sweep.record.code_digest", lambda: "other code")
    assert Tried(store, halves, RATES).read() == {}


@pytest.mark.parametrize("content", [b"[{", b'[{"key": 1}]'])
def test_results_that_cannot_be_read_are_refused_with_what_to_do(
    made: Any, tmp_path: Path, content: bytes
) -> None:
    tried = Tried(str(tmp_path), made[0].halves, RATES)
    tried.folder.write(f"{tried.place}/a.json", content)
    with pytest.raises(RaymiaError, match=r"a\.json: damaged file .* delete it and run it again"):
        tried.read()


def test_a_setting_that_cannot_be_measured_says_why_and_stops_nothing(
    made: Any, tmp_path: Path
) -> None:
    plan, places, _ = made
    (place,) = places.found["tuned", "min_k"]
    few = plan.halves.calibration & (np.cumsum(plan.halves.calibration) <= 12)
    halves = replace(plan.halves, calibration=few)
    worker = Worker(
        Terms(str(tmp_path), "text", halves, RATES, AUC),
        places.evidence.__getitem__,
        lambda *_: None,
    )
    worker.go_through(Listed((Setting(place, {"share": 0.1}),)))
    (result,) = Tried(str(tmp_path), halves, RATES).read().values()
    assert result.problem is not None
    assert "of the calibration half have a score" in result.problem
    rows = [Row(Setting(place, {"share": 0.1}), result, {}, 0, 0)]
    assert find_winners(rows, places.evidence, halves, RATES, AUC, made[2]) == []
