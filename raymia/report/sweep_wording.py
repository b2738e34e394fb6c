"""How settings and objectives are put into words."""

from __future__ import annotations

from collections.abc import Mapping

from raymia.metrics.summary import Estimate
from raymia.results import wording
from raymia.spec import ObjectiveSpec, Value
from raymia.sweep.result import SweepResult, Winner


def objective_name(objective: ObjectiveSpec) -> str:
    """The objective in words."""
    if objective.metric == "auc":
        return "AUC"
    return f"TPR at {wording.budget(objective.fpr)} FPR"


def value_text(value: Value) -> str:
    """A value as it is shown; numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def setting_text(parameters: Mapping[str, Value], queries: Mapping[str, Value]) -> str:
    """A setting in words."""
    named = {**parameters, **queries}
    return ", ".join(f"{name} {value_text(value)}" for name, value in named.items()) or "as it is"


def figure(estimate: Estimate | None, objective: ObjectiveSpec) -> str:
    """A figure with its interval."""
    if estimate is None:
        return "not measurable"
    if objective.metric == "auc":
        return f"{estimate.value:.3f} {wording.unit_interval(estimate)}"
    return f"{wording.percent(estimate.value)} {wording.rate_interval(estimate)}"


def optimism_text(winner: Winner, result: SweepResult) -> str:
    """Calibration less evaluation, signed."""
    value = winner.optimism(result)
    if value is None:
        return "-"
    return f"{value:+.3f}" if result.objective.metric == "auc" else f"{100 * value:+.1f} points"


def held_out_text(winner: Winner, result: SweepResult) -> str:
    """What the threshold that was chosen with the setting does on the other half."""
    found = winner.held_out
    if found is None:
        return ""
    return (
        f"The threshold chosen with it for {wording.budget(result.objective.fpr)} false positives "
        f"finds {wording.percent(found.tpr.value)} {wording.rate_interval(found.tpr)} of the other "
        f"half's members and wrongly accuses {wording.percent(found.fpr.value)} "
        f"{wording.rate_interval(found.fpr)} of its non-members."
    )


def halves_text(result: SweepResult) -> str:
    """The sizes of the halves in a sentence."""
    h = result.halves
    return (
        f"Settings were compared by their {objective_name(result.objective)} on "
        f"{h.calibration_members:,} members and {h.calibration_non_members:,} non-members; the "
        f"best of each attack is judged by {h.evaluation_members:,} members and "
        f"{h.evaluation_non_members:,} non-members that had no part in the choice."
    )
