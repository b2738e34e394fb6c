"""A made-up sweep, hostile strings included."""

from __future__ import annotations

from raymia.metrics.summary import Estimate
from raymia.spec import ObjectiveSpec
from raymia.sweep.evaluate import Evaluated, Halves, Place, Points, Setting
from raymia.sweep.result import Half, QueryCount, Row, SweepResult, Winner

ATTACK_ON_READER = "<script>alert('x')</script><img src=http://evil.test/a onerror=alert(1)>"


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05)


def row(share: float, space: str, chosen: float, judged: float) -> Row:
    def points(auc: float) -> Points:
        return Points(n_members=20, n_non_members=20, n_unscored=0, auc=auc, tpr=[None])

    setting = Setting(
        Place(ATTACK_ON_READER, 0, "min_k", "min_k", None, "e"), {"share": share, "space": space}
    )
    found = Evaluated(
        key=setting.key, attack="min_k", evidence="e", parameters=dict(setting.parameters),
        calibration=points(chosen), evaluation=points(judged),
    )  # fmt: skip
    return Row(setting, found, {"neighbors.count": 5}, 0, 10)


ROWS = [
    row(0.1, "log", 0.6, 0.55),
    row(0.2, "log", 0.7, 0.65),
    row(0.4, ATTACK_ON_READER, 0.8, 0.5),
]


def result() -> SweepResult:
    half = Half(n_members=20, n_non_members=20, auc=estimate(0.8), tpr=[None])
    return SweepResult(
        name=ATTACK_ON_READER, created="2026-01-01", code_version="0", search="grid", seed=0,
        objective=ObjectiveSpec(), rates=[0.1], confidence=0.95,
        halves=Halves(calibration_members=20, calibration_non_members=20, evaluation_members=20,
                      evaluation_non_members=20),
        queries=[QueryCount(values={"neighbors.count": 5}, answers=10, asked=4)],
        settings=3, tried_now=3,
        winners=[Winner(
            target=ATTACK_ON_READER, attack="min_k", label="min_k",
            parameters={"share": 0.4, "space": ATTACK_ON_READER}, queries={}, tried=3,
            calibration=half, evaluation=half.model_copy(update={"auc": estimate(0.5)}),
            held_out=None,
        )],
        problems=[ATTACK_ON_READER], seconds=1.0,
    )  # fmt: skip
