"""From stored evidence to scores, and to what a report needs of them; no model, no Ray."""

from raymia.scoring.judge import Judge, Judged
from raymia.scoring.parts import ScoreParts, score_parts
from raymia.scoring.reduction import (
    MOST_HERE,
    Here,
    Reduction,
    Workers,
    count_scores,
    infer_datasets,
    reduce_audit,
    score_tables,
    score_target,
)
from raymia.scoring.stored import reduce_scores

__all__ = [
    "MOST_HERE",
    "Here",
    "Judge",
    "Judged",
    "Reduction",
    "ScoreParts",
    "Workers",
    "count_scores",
    "infer_datasets",
    "reduce_audit",
    "reduce_scores",
    "score_parts",
    "score_tables",
    "score_target",
]
