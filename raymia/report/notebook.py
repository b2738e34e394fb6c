"""A finished run, for notebooks: `raymia.load_run("report")`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymia.report.figure import roc_figure
from raymia.results.curves import plot_data
from raymia.results.ranking import TargetRanking, rank
from raymia.results.runs import StoredRun, check_known

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, repr=False)
class NotebookRun(StoredRun):
    """A stored run that can draw."""

    def plot(self, target: str | None = None, attack: str | None = None) -> go.Figure:
        """ROC curves of a target with both axes logarithmic, those of the best attacks shown.

        Raises
        ------
        InputError
            As `scores` does.
        """
        target = self.one_target(target)
        check_known("attack", attack, self.attacks, self.folder)
        rankings = {ranking.target: ranking for ranking in rank(self.result.metrics)}
        ranking = rankings.get(target, TargetRanking(target, None, [], []))
        drawn = [c for c in self.curves if attack in (None, c.attack)]
        return roc_figure(target, plot_data(ranking, drawn))
