"""ROC curves as a plotly figure, for notebooks; the report's page draws the same curves itself."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from raymia.util.optional import require

if TYPE_CHECKING:
    import plotly.graph_objects as go


def roc_figure(target: str, plot: dict[str, Any]) -> go.Figure:
    """Draw the curves of one target on logarithmic axes.

    Parameters
    ----------
    target : name for the title.
    plot : as `raymia.results.curves.plot_data` gives it; what is not shown at first is a click
        away in the legend.
    """
    require("plotly", "figures")
    import plotly.graph_objects as go

    left, bottom = 0.5 / max(1, plot["nonMembers"]), 0.5 / max(1, plot["members"])
    figure = go.Figure()
    for curve in plot["curves"]:
        # A logarithm has no place for 0: what lies below the first record is drawn at the edge.
        fpr = np.maximum(np.array(curve["fp"]) / curve["nonMembers"], left)
        tpr = np.maximum(np.array(curve["tp"]) / curve["members"], bottom)
        figure.add_scatter(
            x=fpr,
            y=tpr,
            mode="lines",
            line={"shape": "hv"},
            name=html.escape(curve["name"]),
            visible=True if curve["shown"] else "legendonly",
        )
    start = max(left, bottom)
    chance = {"color": "gray", "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=start, y0=start, x1=1, y1=1, line=chance, layer="below")
    figure.update_layout(title=html.escape(target), template="simple_white", showlegend=True)
    axis = {"type": "log", "tickformat": "~%", "dtick": 1}
    figure.update_xaxes(axis, title="False positive rate", range=[np.log10(left), 0.02])
    figure.update_yaxes(axis, title="True positive rate", range=[np.log10(bottom), 0.02])
    return figure
