"""Metrics of membership scores, with intervals. Knows scores, not models."""

from raymia.metrics.measuring import calibration_half, measure
from raymia.metrics.roc import RocCurve, auc, one_minus_equal_error_rate, roc_curve, tpr_at_fpr
from raymia.metrics.summary import AttackMetrics, Estimate, Metrics, NotMeasured, TprAtFpr

__all__ = [
    "AttackMetrics",
    "Estimate",
    "Metrics",
    "NotMeasured",
    "RocCurve",
    "TprAtFpr",
    "auc",
    "calibration_half",
    "measure",
    "one_minus_equal_error_rate",
    "roc_curve",
    "tpr_at_fpr",
]
