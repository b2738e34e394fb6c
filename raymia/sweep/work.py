"""One worker's part of a sweep: try settings one after another, and keep what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from raymia.scoring.evidence import TargetEvidence
from raymia.spec import ObjectiveSpec
from raymia.sweep.evaluate import Evaluated, Setting, Split, evaluate
from raymia.sweep.record import Tried
from raymia.util.plugins import Plugin

COMMIT_SECONDS = 1.0
"""What is lost when a worker is killed, at most, beside the setting it was at."""

STAGE = "sweep"
"""What the trials are called in progress."""

Case = tuple[str, int]
"""A target, and the number of a setting of the queries."""


class Source(Protocol):
    """Gives settings, and may look at what they achieved before it gives the next."""

    def settings(self) -> Iterator[Setting]:
        """The settings, one after another."""

    def tell(self, objective: float | None) -> None:
        """What the last setting achieved; None where it could not be measured."""


@dataclass(frozen=True)
class Listed:
    """Settings that are known beforehand."""

    listed: tuple[Setting, ...]

    def settings(self) -> Iterator[Setting]:
        return iter(self.listed)

    def tell(self, objective: float | None) -> None:
        """Changes nothing."""


@dataclass(frozen=True)
class Terms:
    """What all settings of a sweep are tried under.

    Attributes
    ----------
    records : their kind, as "text".
    rates : false-positive rates of the TPR.
    plugins : code from outside, which is loaded where the terms arrive.
    """

    store_url: str
    records: str
    halves: Split
    rates: tuple[float, ...]
    objective: ObjectiveSpec
    plugins: tuple[Plugin, ...] = ()


@dataclass
class Worker:
    """Tries settings; each at most once, here or before.

    Attributes
    ----------
    evidence : gives what is known of a case; asked once per case.
    on_progress : called with how many settings were tried, and how many had a problem.
    tried_here : keys of the settings that this worker tried.
    """

    terms: Terms
    evidence: Callable[[Case], TargetEvidence]
    on_progress: Callable[[int, int, float], None]
    tried_here: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._record = Tried(self.terms.store_url, self.terms.halves, self.terms.rates)
        self._known = self._record.read()
        self._cases: dict[Case, TargetEvidence] = {}
        self._new: list[Evaluated] = []
        self._committed = time.monotonic()

    def go_through(self, source: Source) -> list[Setting]:
        """Try what a source gives.

        Returns
        -------
        The settings, those that were known already among them.
        """
        given = []
        for setting in source.settings():
            found = self._known.get(setting.key)
            if found is None:
                found = self._try(setting)
            source.tell(found.objective(self.terms.rates, self.terms.objective))
            given.append(setting)
        self._commit()
        return given

    def _try(self, setting: Setting) -> Evaluated:
        place, terms = setting.place, self.terms
        case = place.target, place.query
        if case not in self._cases:
            self._cases[case] = self.evidence(case)
        named = setting.named(terms.records)
        given = self._cases[case].given_to(named, {})
        found = evaluate(setting, named.attack, given, terms.halves, terms.rates)
        self._known[setting.key] = found
        self._new.append(found)
        self.tried_here.append(setting.key)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()
        return found

    def _commit(self) -> None:
        self._record.commit(self._new)
        if self._new:
            failed = sum(result.problem is not None for result in self._new)
            self.on_progress(len(self._new), failed, time.monotonic() - self._committed)
        self._new, self._committed = [], time.monotonic()


def shared_out(settings: Sequence[Setting], workers: int) -> list[Listed]:
    """Settings dealt to workers in turn, so that each gets as many slow ones."""
    return [Listed(tuple(settings[number::workers])) for number in range(workers)]


@dataclass(frozen=True)
class Trials:
    """What the workers went through.

    Attributes
    ----------
    proposed : what was proposed, each setting once.
    new : keys of the settings that were tried now.
    """

    proposed: list[Setting]
    new: list[str]
