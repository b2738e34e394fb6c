"""What a sweep tries: the settings of each attack, checked before anything is asked."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymia.attacks import NamedAttack, registry
from raymia.inputs.attack_list import name_attacks, statistic_of, with_references
from raymia.spec import AttackSpec, AuditSpec, SpaceSpec, SweepSpec, Value
from raymia.sweep.queries import QuerySetting, query_settings
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.optional import require
from raymia.util.plugins import load_plugins

MAX_SETTINGS = 100_000
Parameters = Mapping[str, Value]


@dataclass(frozen=True)
class SweptAttack:
    """An attack and what is tried of its parameters.

    Attributes
    ----------
    key : as the audit file names it, ``statistic`` or ``statistic@reference``, and ``+neighbors``
        where they have names.
    spaces : of the parameters that are swept; empty for an attack that is run as it is.
    settings : the parameters to try; empty where Optuna proposes them.
    """

    key: str
    spaces: Mapping[str, SpaceSpec]
    settings: tuple[Parameters, ...]

    @property
    def statistic(self) -> str:
        return statistic_of(self.key)

    def tried_alone(self) -> Iterator[tuple[str, Parameters]]:
        """Each value by itself, or the two ends of many; of an attack that is run as it is, its
        parameters. Each with its place in the audit file."""
        if not self.spaces:
            for parameters in self.settings:
                yield f"attacks: {self.key!r}", parameters
        for name, space in self.spaces.items():
            for value in space.extremes:
                yield f"sweep.attacks.{self.key}.{name}: {value}", {name: value}

    def named(self, spec: AuditSpec) -> list[NamedAttack]:
        """The attack with each reference it can run with."""
        return with_references(AttackSpec(attack=self.key), spec, f"sweep.attacks.{self.key}")


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked."""

    spec: SweepSpec
    attacks: tuple[SweptAttack, ...]
    queries: tuple[QuerySetting, ...]


def check_sweep(spec: AuditSpec) -> Sweep:
    """Read the sweep of an audit file.

    Raises
    ------
    InputError
        With every problem found: an attack, a parameter or a key that is unknown or cannot be
        swept, a value out of range, more settings than can be tried.
    """
    sweep = spec.sweep
    if sweep is None:
        raise InputError("sweep: the audit file has no such section; docs/sweeps.md has one")
    load_plugins(spec.plugins)
    problems: list[str] = []
    queries: list[QuerySetting] = []
    try:
        if sweep.search == "optuna":
            require("optuna", "searches by optuna", "sweep.search")
        queries = query_settings(spec, sweep)
    except InputError as error:
        problems += error.problems
    attacks = []
    for key, spaces in sweep.attacks.items():
        try:
            attacks.append(_swept(key, spaces, spec, sweep))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if not sweep.attacks:
        attacks = _as_written(spec)
    items = [AttackSpec(attack=swept.key) for swept in attacks]
    narrowed = [
        QuerySetting(q.values, q.spec.model_copy(update={"attacks": items})) for q in queries
    ]
    return Sweep(sweep, tuple(attacks), tuple(narrowed))


def _as_written(spec: AuditSpec) -> list[SweptAttack]:
    """The audit's own attacks, without those that combine the others' scores."""
    kinds, settings = registry(spec.records.kind), dict[str, list[Parameters]]()
    if spec.attacks is None:
        named = [item.attack for item in name_attacks(spec)]
        settings = {attack.name: [{}] for attack in named if "other_scores" not in attack.needs}
    for item in spec.attacks or []:
        if not _combines(kinds, item.attack):
            settings.setdefault(item.attack, []).append(dict(item.parameters))
    return [SweptAttack(key, {}, tuple(found)) for key, found in settings.items()]


def _combines(kinds: Mapping[str, Any], attack: str) -> bool:
    kind = kinds.get(statistic_of(attack))
    return kind is not None and "other_scores" in kind.needs


def _swept(
    key: str,
    spaces: Mapping[str, SpaceSpec],
    spec: AuditSpec,
    sweep: SweepSpec,
) -> SweptAttack:
    where = f"sweep.attacks.{key}"
    if _combines(registry(spec.records.kind), key):
        raise InputError(
            f"{where}: this attack combines the scores of the others, and cannot be swept"
        )
    problems: list[str] = []
    for name, space in spaces.items():
        if sweep.search == "grid" and space.values is None:
            problems.append(
                f"{where}.{name}: a grid search tries every value, and of these there is no end; "
                "name them, or set `search: random` or `search: optuna`"
            )
            continue
        for value in space.extremes:
            try:
                _check(key, {name: value}, spec, f"{where}.{name}")
            except InputError as error:
                problems += error.problems
                break
    if not problems:
        _check(key, {}, spec, where)
    if problems:
        raise InputError(problems)
    settings = _expand(key, spaces, sweep, where)
    for parameters in settings:
        _check(key, parameters, spec, where)
    return SweptAttack(key, spaces, tuple(settings))


def _check(key: str, parameters: Parameters, spec: AuditSpec, where: str) -> None:
    lists = [name for name, value in parameters.items() if isinstance(value, list)]
    if lists:
        raise InputError(f"{where}: {lists[0]} should be one value, but got {parameters[lists[0]]}")
    with_references(AttackSpec(attack=key, parameters=dict(parameters)), spec, where)  # type: ignore[arg-type]


def _expand(
    key: str, spaces: Mapping[str, SpaceSpec], sweep: SweepSpec, where: str
) -> list[dict[str, Value]]:
    """The parameters that are tried, each once; none where Optuna proposes them."""
    if sweep.search == "optuna" and spaces:
        return []
    tried = {
        name: space.values or []
        for name, space in spaces.items()
        if sweep.search == "grid" or space.grid is not None
    }
    drawn = {name: space for name, space in spaces.items() if name not in tried}
    draws = sweep.samples if drawn else 1
    number = draws * math.prod(map(len, tried.values()))
    if number > MAX_SETTINGS:
        raise InputError(
            f"{where}: {number:,} settings are more than the {MAX_SETTINGS:,} that can be tried; "
            "name fewer values, or set `search: random`"
        )
    found: dict[str, dict[str, Value]] = {}
    for sample in range(draws):
        drawn_here = {
            name: _draw(space, "draw of a sweep", sweep.seed, key, name, sample)
            for name, space in drawn.items()
        }
        for combination in itertools.product(*tried.values()):
            setting = {**drawn_here, **dict(zip(tried, combination, strict=True))}
            ordered = {name: setting[name] for name in spaces}
            found.setdefault(json.dumps(ordered), ordered)
    return list(found.values())


def _draw(space: SpaceSpec, *purpose: int | str) -> Value:
    """A value, as a function of what it is for."""
    draws = generator(*purpose)
    if space.uniform is not None:
        return float(draws.uniform(space.uniform[0], space.uniform[1]))
    if space.loguniform is not None:
        low, high = space.loguniform
        drawn = math.exp(draws.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)  # rounding must not carry it beyond the ends
    values: Sequence[Value] = space.values or []
    return values[int(draws.integers(len(values)))]
