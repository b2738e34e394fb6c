"""A made-up run: two targets, an attack without scores, and too few non-members for 0.1 %."""

import numpy as np
import pyarrow as pa

from raymia.metrics.measuring import measure
from raymia.results.curves import draw
from raymia.results.result import (
    AttackCard,
    Dropped,
    RecordCounts,
    ReferenceCard,
    RunResult,
    SetAside,
    StageCount,
)
from raymia.results.scores import SCORES_SCHEMA


def made_up_scores(text=str, n_members=60, n_non_members=120):
    draws = np.random.default_rng(0)
    is_member = np.arange(n_members + n_non_members) < n_members
    tables = []
    for target in ("tuned", "base"):
        for attack, strength in (("loss", 0.5), ("ez@self_prompt", 2.5), ("zlib", None)):
            scores = draws.normal(size=is_member.size) + (strength or 0) * is_member
            if strength is None:
                scores[:] = np.nan
            tables.append(
                pa.table(
                    {
                        "target": [text(target)] * is_member.size,
                        "attack": [text(attack)] * is_member.size,
                        "record_id": [text(f"r{i}") for i in range(is_member.size)],
                        "is_member": is_member,
                        "score": scores,
                        "p_value": pa.nulls(is_member.size, pa.float64()),
                    },
                    schema=SCORES_SCHEMA,
                )
            )
    return pa.concat_tables(tables)


def by_attack(scores):
    """Scores and labels of each target and attack, in the order of the table."""
    found = {}
    for row in scores.to_pylist():
        found.setdefault((row["target"], row["attack"]), []).append(row)
    return {
        names: (
            np.array([row["score"] for row in rows], dtype=float),
            np.array([row["is_member"] for row in rows]),
        )
        for names, rows in found.items()
    }


def made_up_curves(scores):
    return [
        draw(values, is_member, target=target, attack=attack, fprs=(0.1, 0.01, 0.001))
        for (target, attack), (values, is_member) in by_attack(scores).items()
        if np.isfinite(values).all()
    ]


def made_up_result(scores, text=str, **changes):
    metrics = [
        measure(values, is_member, target=target, attack=attack)
        for (target, attack), (values, is_member) in by_attack(scores).items()
    ]
    fields = {
        "name": text("reviews"),
        "created": text("2026-11-21T22:00:00Z"),
        "versions": {text("raymia"): text("0.1.0")},
        "seed": 7,
        "code_version": text("text-1"),
        "records": RecordCounts(members=60, non_members=120, candidates=3, set_aside=1),
        "set_aside": [
            SetAside(where=text("row 4"), record_id=text("ab12"), reason=text("empty text"))
        ],
        "dropped": [
            Dropped(stage=text("target"), record_id=text("cd34"), neighbor=2, reason=text("nan"))
        ],
        "stages": [
            StageCount(
                name=text("target"),
                kind=text("token log-probabilities"),
                key=text("0123456789abcdef"),
                asked=180,
                stored=20,
                seconds=61.0,
                failed=1,
            )
        ],
        "references": [
            ReferenceCard(
                target=text("tuned"),
                name=text("self_prompt"),
                kind=text("self_prompt"),
                model=text("gpt2"),
                facts={text("held-out loss"): 3.25, text("note"): text("fine"), text("texts"): 500},
            )
        ],
        "attacks": [
            AttackCard(
                name=text("loss"),
                title=text("Loss"),
                source=text("Yeom et al. 2018"),
                formula=text("mean log p"),
            )
        ],
        "metrics": metrics,
        "complete": True,
        "problems": [text("a problem")],
        "audit_yaml": text("name: reviews"),
        "seconds": 75.0,
    }
    return RunResult(**{**fields, **changes})
