"""The section of pictures: examples and heat-maps, laid out for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raymia.results.image_result import Changes, ImageExample, MeanFluctuation, PerturbationChoice
from raymia.results.result import RunResult

NO_EVIDENCE = "–"
FAINTEST = 0.12
"""Depth of the color of the smallest change, so that its direction can be seen."""


@dataclass(frozen=True)
class Cell:
    """One cell of a heat-map.

    Attributes
    ----------
    text : the change of the loss in percent.
    kind : "rise", "fall" or "none", for its color.
    depth : how deep the color is, from 0 for none to 1 at the largest change on the same scale.
    """

    text: str
    kind: str
    depth: str


@dataclass(frozen=True)
class HeatMap:
    """Cells by timestep and strength; each row comes with its label."""

    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class TargetPictures:
    """What is shown of one target.

    Attributes
    ----------
    examples : each with its heat-map, None where there are no neighbors; one scale for all.
    means : caption and heat-map of members, and of non-members; one scale for both.
    """

    target: str
    choice: PerturbationChoice | None
    examples: list[tuple[ImageExample, HeatMap | None]]
    mean: MeanFluctuation | None
    means: list[tuple[str, HeatMap]]

    @property
    def has_heat(self) -> bool:
        """Whether the loss around anything is shown."""
        return bool(self.means) or any(heat is not None for _, heat in self.examples)


def target_pictures(result: RunResult) -> list[TargetPictures]:
    """Lay out everything about images, target by target in the order of the metrics."""
    having = {
        *(example.target for example in result.image_examples),
        *(choice.target for choice in result.perturbation_choices),
        *(mean.target for mean in result.mean_fluctuations),
    }
    order = [metrics.target for metrics in result.metrics] + sorted(having)
    return [_of_target(result, name) for name in dict.fromkeys(order) if name in having]


def _of_target(result: RunResult, target: str) -> TargetPictures:
    choices = (c for c in result.perturbation_choices if c.target == target)
    examples = [e for e in result.image_examples if e.target == target]
    mean = next((m for m in result.mean_fluctuations if m.target == target), None)
    scale = largest(e.fluctuation for e in examples)
    means = []
    if mean is not None:
        sides = (
            ("members", mean.n_members, mean.members),
            ("non-members", mean.n_non_members, mean.non_members),
        )
        of_means = largest(changes for _, _, changes in sides)
        means = [
            (f"Mean of {n:,} {name}", heat_map(changes, mean.timesteps, of_means))
            for name, n, changes in sides
            if changes
        ]
    return TargetPictures(
        target=target,
        choice=next(choices, None),
        examples=[
            (e, heat_map(e.fluctuation, e.timesteps, scale) if e.fluctuation else None)
            for e in examples
        ],
        mean=mean,
        means=means,
    )


def largest(maps: Iterable[Changes]) -> float:
    """The largest absolute change in some heat-maps; 0 where there is none."""
    changes = (abs(c) for rows in maps for row in rows for c in row if c is not None)
    return max(changes, default=0.0)


def heat_map(changes: Changes, timesteps: Sequence[float], scale: float) -> HeatMap:
    """Write relative changes in percent, and color them.

    Parameters
    ----------
    changes : by row and strength.
    timesteps : of the rows; empty for a model without timesteps.
    scale : the change of the deepest color.
    """
    decimals = 0 if scale >= 0.1 else 1 if scale >= 0.01 else 2
    labels = [f"t = {t}" for t in timesteps] or ["loss"] * len(changes)
    return HeatMap(
        [
            (label, [_cell(change, scale, decimals) for change in row])
            for label, row in zip(labels, changes, strict=True)
        ]
    )


def _cell(change: float | None, scale: float, decimals: int) -> Cell:
    if change is None:
        return Cell(NO_EVIDENCE, "none", "0")
    rounded = round(100 * change, decimals)
    if not rounded:
        return Cell("0", "none", "0")
    text = f"{rounded:+.{decimals}f}".replace("-", "−")
    depth = FAINTEST + (1 - FAINTEST) * abs(change) / scale
    return Cell(text, "rise" if change > 0 else "fall", f"{depth:.3f}")
