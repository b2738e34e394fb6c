"""Settings that Optuna proposes, one after another, given what those before achieved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from raymia.spec import SpaceSpec
from raymia.sweep.evaluate import Place, Setting

PLACE = "place"


@dataclass
class Proposed:
    """Settings of one attack on one target that Optuna proposes, given those before.

    The proposals are a function of the seed and of what earlier ones achieved, so a sweep that was
    interrupted is proposed the same settings again, of which it tries those that are not known.

    Attributes
    ----------
    places : evidence that the attack may be tried on: one more parameter, where there are several.
    """

    places: tuple[Place, ...]
    spaces: Mapping[str, SpaceSpec]
    samples: int
    seed: int
    _tell_of_last: Callable[[float | None], None] = field(default=lambda _: None, init=False)

    def settings(self) -> Iterator[Setting]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        domains = {name: _domain(space) for name, space in self.spaces.items()}
        if len(self.places) > 1:
            choices = range(len(self.places))
            domains[PLACE] = optuna.distributions.CategoricalDistribution(choices)
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=self.seed), direction="maximize"
        )
        for _ in range(self.samples):
            trial = study.ask(fixed_distributions=domains)
            chosen = dict(trial.params)
            place = self.places[chosen.pop(PLACE, 0)]
            self._tell_of_last = partial(_tell, study, trial)
            yield Setting(place, chosen)

    def tell(self, objective: float | None) -> None:
        self._tell_of_last(objective)


def _tell(study: Any, trial: Any, objective: float | None) -> None:
    from optuna.trial import TrialState

    if objective is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, objective)


def _domain(space: SpaceSpec) -> Any:
    """A space in Optuna's own terms."""
    from optuna import distributions

    if space.uniform is not None:
        return distributions.FloatDistribution(*space.uniform)
    if space.loguniform is not None:
        return distributions.FloatDistribution(*space.loguniform, log=True)
    if space.integers is not None:
        return distributions.IntDistribution(*space.integers)
    return distributions.CategoricalDistribution(space.values)
