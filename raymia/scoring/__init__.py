"""From stored evidence to scores, and to what a report needs of them; no model, no Ray."""

from raymia.scoring.judge import Judge, Judged
from raymia.scoring.parts import ScoreParts, score_parts
from raymia.scoring.reduction import (
    Here,
    Reduction,
    Workers,
    infer_datasets,
    reduce_audit,
    score_tables,
    score_target,
)

__all__ = [
    "Here",
    "Judge",
    "Judged",
    "Reduction",
    "ScoreParts",
    "Workers",
    "infer_datasets",
    "reduce_audit",
    "score_parts",
    "score_tables",
    "score_target",
]
