"""Reports with everything that a report can hold, on made-up scores; for the browser."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from made_up_run import made_up_result, made_up_scores

from raymia.metrics.measuring import measure
from raymia.metrics.summary import (
    AttackMetrics,
    CandidateClaims,
    ClaimsAtRate,
    Comparison,
    Estimate,
    NotMeasured,
)
from raymia.report.html import render
from raymia.results.curves import AttackCurves, draw
from raymia.results.disguise import Disguise
from raymia.results.gate import evaluate
from raymia.results.redaction import redact
from raymia.results.result import AttackCard, AttackCost, RecordCounts, RunResult, TargetLoss
from raymia.results.text_result import TextExample, TextPiece
from raymia.shift.result import BlindGuess, ShiftCheck
from raymia.spec.conditions import parse_conditions

ATTACKS = {"ez@self_prompt": 1.6, "ratio@base": 1.3, "loss": 0.5, "neighbor": 0.4, "zlib": 0.1}
SCRIPT = "<script>document.title = 'taken over'</script>"
DISGUISED_BY = b"secret"
CONDITION = "ez@self_prompt.auc > 0.8"
SECRET = "universally acknowledged"
WORDS = f"It is a truth {SECRET} , that a single man in possession of a good fortune must".split()


def one_checkpoint(redacted: bool = False) -> str:
    """The report on one checkpoint."""
    result, curves = made_up_audit(["tuned"], n=250)
    return render(redact(result, Disguise(DISGUISED_BY)) if redacted else result, curves)


def many_checkpoints(count: int) -> str:
    """The report on the checkpoints of one training, which leak more and more."""
    return render(*gated_checkpoints(count))


@cache
def gated_checkpoints(count: int) -> tuple[RunResult, list[AttackCurves]]:
    """The checkpoints of one training, some of which the gate lets pass."""
    result, curves = made_up_audit([f"step-{500 * (n + 1)}" for n in range(count)], n=100)
    gate = evaluate(parse_conditions([CONDITION]), result)
    return result.model_copy(update={"gate": gate}), curves


def made_up_audit(targets: list[str], n: int) -> tuple[RunResult, list[AttackCurves]]:
    """An audit with as many members as non-members."""
    draws = np.random.default_rng(0)
    is_member = np.arange(2 * n) < n
    metrics: list[AttackMetrics | NotMeasured] = []
    curves = []
    for number, target in enumerate(targets, 1):
        for attack, strength in ATTACKS.items():
            values = draws.normal(size=2 * n) + strength * number / len(targets) * is_member
            metrics.append(measure(values, is_member, target=target, attack=attack))
            curves.append(
                draw(values, is_member, target=target, attack=attack, fprs=(0.1, 0.01, 0.001))
            )
    result = made_up_result(
        made_up_scores(),
        metrics=metrics,
        records=RecordCounts(members=n, non_members=n, candidates=40, set_aside=1),
        attacks=[
            AttackCard(name=name, title=name.upper(), source="a paper", formula="mean_t log p")
            for name in dict.fromkeys(attack.partition("@")[0] for attack in ATTACKS)
        ],
        costs=[
            AttackCost(attack=attack, of_target=1 + 10 * (attack == "neighbor"), of_others=n % 2)
            for n, attack in enumerate(ATTACKS)
        ],
        losses=[
            TargetLoss(target=target, members=3 - n / 30, non_members=3 - n / 90)
            for n, target in enumerate(targets)
        ],
        comparisons=[
            Comparison(
                between="attacks", target=target, attack="ez@self_prompt", other_target=target,
                other_attack="loss", n_members=n, n_non_members=n, value=0.2, low=0.1, high=0.3,
                confidence=0.95, p_value=0.001, p_holm=0.002,
            )
            for target in targets
        ],
        claims=[
            CandidateClaims(
                target=target, attack=attack, of="records", n_candidates=40, n_non_members=n,
                n_unscored=0,
                claims=[ClaimsAtRate(rate=0.05, claimed=7, fewest=1, needed_non_members=20)],
            )
            for target in targets
            for attack in ATTACKS
        ],
        text_examples=list(_examples(targets[-1], n)),
        shift=_shift(n),
        problems=[f"a line of 20,000 characters: {'x' * 20_000}"],
    )  # fmt: skip
    return result, curves


def _examples(target: str, n: int) -> Any:
    draws = np.random.default_rng(1)
    texts = {
        "exposed0": WORDS * 3,
        "script00": [SCRIPT, *WORDS],
        "longline": ["y" * 10_000, "z" * 10_000],
    }
    for rank, (record, words) in enumerate(texts.items(), 1):
        yield TextExample(
            target=target, attack="ez@self_prompt", record_id=record * 4, is_member=True,
            score=4.0 - rank, rank=rank, of=n, outscored=0.99, reference="base",
            cut=20 * (rank - 1),
            pieces=[
                TextPiece(
                    text=word if place == 0 else f" {word}",
                    log_prob=None if place == 0 else round(-draws.exponential(1.0), 3),
                    typical=None if place == 0 else round(-draws.exponential(3.0), 3),
                )
                for place, word in enumerate(words)
            ],
        )  # fmt: skip


def _shift(n: int) -> ShiftCheck:
    guesses = [
        BlindGuess(
            name=name, title=title, fitted=True, sides=1, higher_is_member=True, n_members=n,
            n_non_members=n, auc=Estimate(value=0.52, low=0.47, high=0.57), p_value=0.4,
            corrected_p_value=0.9,
        )
        for name, title in (("bag_of_words", "which words there are"), ("length", "length"))
    ]  # fmt: skip
    return ShiftCheck(
        state="no_shift_found", error_rate=0.05, labelings=999, n_members=n, n_non_members=n,
        guesses=guesses,
    )  # fmt: skip
