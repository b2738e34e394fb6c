"""Which models are held by the same actors, and which targets go through one stream.

Models on one base are one pool: its actors hold the base's weights once, with every adapter on it,
and switch between them. The pool has as many actors as the larger of the roles in it. Roles whose
pools ask for other machines are not put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raymia.models.loaders import Sharing
from raymia.plan.stages import Stage, TargetPlan
from raymia.spec import PoolSpec


@dataclass(frozen=True)
class Pool:
    """Stages whose models the same actors hold, in the order in which they are asked.

    Attributes
    ----------
    sharing : what their models have in common; None where the one there is shares with no other.
    """

    stages: tuple[Stage, ...]
    sharing: Sharing | None

    @classmethod
    def of(cls, stage: Stage) -> Pool:
        return cls((stage,), stage.loader.sharing)

    @property
    def name(self) -> str:
        """The name of its first stage, and how many more there are."""
        more = len(self.stages) - 1
        return self.stages[0].name + (f" and {more} more" if more else "")

    @property
    def spec(self) -> PoolSpec:
        """Where the actors run, and how many there are."""
        largest: PoolSpec = max((stage.pool for stage in self.stages), key=lambda pool: pool.actors)
        return largest

    @property
    def computes(self) -> bool:
        """Whether its actors hold models, and not a word list or a connection."""
        models = [stage.loader.checkpoint for stage in self.stages]
        return any(model is not None and model.computes for model in models)

    def joined_by(self, stage: Stage) -> Pool | None:
        """The pool with one more stage; None where its actors cannot hold the stage's model too, at
        the price of an adapter."""
        if self.sharing is None or _place(self.stages[0].pool) != _place(stage.pool):
            return None
        sharing = self.sharing.joined(stage.loader.sharing)
        return None if sharing is None else Pool((*self.stages, stage), sharing)


def _place(pool: PoolSpec) -> PoolSpec:
    return pool.model_copy(update={"actors": 1, "max_actors": None, "batch_tokens": 16})


def pools_of(stages: Iterable[Stage], pools: Iterable[Pool] = ()) -> list[Pool]:
    """Put stages into pools, or add them to pools; one that has nothing to ask is left out."""
    found = list(pools)
    for stage in stages:
        if not stage.to_ask:
            continue
        for place, pool in enumerate(found):
            if joined := pool.joined_by(stage):
                found[place] = joined
                break
        else:
            found.append(Pool.of(stage))
    return found


def loading_order(plans: Sequence[TargetPlan]) -> list[str]:
    """Targets in the order in which they are asked, so that weights are loaded as seldom as can be.

    Those on one base come together, wherever they stand in the audit file; a base comes where its
    first target stands.
    """
    groups: list[list[TargetPlan]] = []
    on_base: dict[Any, list[list[TargetPlan]]] = {}
    for plan in plans:
        sharing = plan.target.loader.sharing
        near = [] if sharing is None else on_base.setdefault(sharing.base, [])
        home = next((g for g in near if Pool.of(g[0].target).joined_by(plan.target)), None)
        if home is not None:
            home.append(plan)
            continue
        groups.append([plan])
        near.append(groups[-1])
    return [plan.name for group in groups for plan in group]


def streams_of(plans: Iterable[TargetPlan]) -> list[list[Stage]]:
    """Put targets into streams; one joins the targets before it if that takes no further pool.

    Returns
    -------
    The stages of each stream, in the order in which a block of records passes them.
    """
    streams: list[list[Stage]] = []
    pools: list[Pool] = []
    made: set[str] = set()
    for plan in plans:
        joined = pools_of(plan.stages, pools)
        if streams and len(joined) == len(pools):
            # A target that joins has no neighbors made that were not asked for before.
            streams[-1] += [stage for stage in plan.stages if stage.name not in made]
            pools = joined
        else:
            streams.append(plan.stages)
            pools = pools_of(plan.stages)
            made = set()
        made |= {stage.name for stage in plan.stages if stage.role == "neighbors"}
    return streams
