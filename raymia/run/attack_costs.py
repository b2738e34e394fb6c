"""What each attack asks about one record, and how well each target models the records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks import NamedAttack
from raymia.inputs.base import Inputs
from raymia.plan.stages import Stage, TargetPlan
from raymia.results.result import AttackCost, TargetLoss
from raymia.scoring.exposed import ScoreColumns


def attack_costs(inputs: Inputs, plans: Sequence[TargetPlan]) -> list[AttackCost]:
    """Passes through models per record of each attack, were it run alone.

    An attack that combines others asks what they ask, once. An attack that runs on several targets
    asks the same of each; the first is counted.
    """
    costs = []
    for named in inputs.attacks:
        plan = next((p for p in plans if named in inputs.attacks_on(p.name)), None)
        if plan is None:
            continue
        others = [a for a in inputs.attacks_on(plan.name) if "other_scores" not in a.attack.needs]
        alone = others if "other_scores" in named.attack.needs else [named]
        of_target, *of_others = _passes(inputs, plan, alone)
        costs.append(AttackCost(attack=named.label, of_target=of_target, of_others=sum(of_others)))
    return costs


def _passes(inputs: Inputs, plan: TargetPlan, attacks: Sequence[NamedAttack]) -> Iterator[int]:
    """Passes through the target, and through each reference and shadow."""
    yield _of_stage(plan.target, attacks)
    for name, stage in plan.references.items():
        is_shadow = name in inputs.shadow_members
        yield _of_stage(
            stage,
            [
                named
                for named in attacks
                if named.reference == name or (is_shadow and inputs.shows_shadows(named.attack))
            ],
        )


def _of_stage(stage: Stage, attacks: Iterable[NamedAttack]) -> int:
    """Passes per record of the questions that some attacks put to a stage's model."""
    wanted = [
        (named.attack.asks, named.neighbors or getattr(named.attack, "perturbation", None))
        for named in attacks
    ]
    total = 0
    for planned in stage.questions:
        names, variant = planned.question.names, planned.label.partition(".")[2]
        if any(
            names.intersection(asks) and (own is None or not variant or own == variant)
            for asks, own in wanted
        ):
            total += len(planned.question.indices()) * planned.question.passes
    return total


def target_losses(
    inputs: Inputs, targets: Iterable[str], scores: ScoreColumns
) -> Iterator[TargetLoss]:
    """Mean loss of each target on members and on non-members, where the attack `loss` is run."""
    column = inputs.records.table["is_member"]
    labels = pc.fill_null(column.cast(pa.int8()), -1).to_numpy()
    for target in targets:
        plain = [
            named.label
            for named in inputs.attacks_on(target)
            if named.attack.name == "loss" and named.reference is None
        ]
        if not plain:
            continue
        losses = -scores.column(target, plain[0])
        known = np.isfinite(losses)
        members, others = (losses[known & (labels == label)] for label in (1, 0))
        yield TargetLoss(
            target=target,
            members=float(members.mean()) if members.size else None,
            non_members=float(others.mean()) if others.size else None,
        )
