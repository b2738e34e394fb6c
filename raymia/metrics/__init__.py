"""ROC metrics of membership scores, with bootstrap intervals. Knows scores, not models."""

from raymia.metrics.roc import RocCurve, auc, balanced_accuracy, roc_curve, tpr_at_fpr
from raymia.metrics.summary import (
    AttackMetrics,
    Estimate,
    Metrics,
    NotMeasured,
    TprAtFpr,
    measure,
)

__all__ = [
    "AttackMetrics",
    "Estimate",
    "Metrics",
    "NotMeasured",
    "RocCurve",
    "TprAtFpr",
    "auc",
    "balanced_accuracy",
    "measure",
    "roc_curve",
    "tpr_at_fpr",
]
