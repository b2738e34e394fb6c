"""The pairs of attacks that an audit compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from raymia.metrics.comparison import Question
from raymia.metrics.summary import Metrics
from raymia.results.ranking import leading, rank, strength_across


def questions_of(
    metrics: Sequence[Metrics],
    combined: Collection[str],
    retrained: Mapping[str, str] | None = None,
) -> list[list[Question]]:
    """Ask of each target whether its leading attack is better than every other, and of the attack
    that leads on the strongest target whether it is better there than on every other target; on
    another target, than on those that were trained again without its members.

    Parameters
    ----------
    metrics : of every target and attack.
    combined : the attacks that combine others; they lead only where they are alone.
    retrained : targets without the members of another, and that other.

    Returns
    -------
    The questions, those of one leader together.
    """
    rankings = [ranking for ranking in rank(metrics) if ranking.measured]
    if not rankings:
        return []
    strongest = max(rankings, key=strength_across(rankings))
    questions = []
    for ranking in rankings:
        leader = (ranking.target, leading(ranking, combined).attack)
        compared = [
            Question("attacks", leader, (ranking.target, other.attack))
            for other in ranking.measured
            if other.attack != leader[1]
        ]
        compared += [
            Question("targets", leader, (other.target, leader[1]))
            for other in rankings
            if other is not ranking
            and (ranking is strongest or (retrained or {}).get(other.target) == ranking.target)
            and any(m.attack == leader[1] for m in other.measured)
        ]
        questions.append(compared)
    return [some for some in questions if some]
