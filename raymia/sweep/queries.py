"""Settings that change what the models are asked: keys of the audit file, each with its values."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from raymia.spec import AuditSpec, MadeReference, SweepSpec, Value
from raymia.util.errors import InputError

ROOTS = ("neighbors", "probes", "references")
NOT_SWEPT = frozenset(
    {"kind", "preset", "model", "revision", "base", "prompts", "text_column", "generation_batch"}
)
"""Keys that name models and files, or that change no answer."""


@dataclass(frozen=True)
class QuerySetting:
    """One combination of the swept keys, and the audit with it.

    Attributes
    ----------
    values : by dotted key; empty where no query is swept.
    spec : the audit file with these values in place of its own.
    """

    values: Mapping[str, Value]
    spec: AuditSpec


def query_settings(spec: AuditSpec, sweep: SweepSpec) -> list[QuerySetting]:
    """Every combination of the values of the swept keys, in the order of the audit file.

    Raises
    ------
    InputError
        For a key that is unknown or cannot be swept, and for a value that it cannot have.
    """
    problems: list[str] = []
    values: dict[str, list[Value]] = {}
    for key, space in sweep.queries.items():
        where = f"sweep.queries.{key}"
        if space.values is None:
            problems.append(
                f"{where}: each value has to be asked of the models, so all must be named; "
                "use grid, choice or integers"
            )
            continue
        values[key] = list({json.dumps(value): value for value in space.values}.values())
        for value in values[key]:
            try:
                with_values(spec, {key: value})
            except InputError as error:
                problems += error.problems
                break
    if problems:
        raise InputError(problems)
    combinations = itertools.product(*values.values())
    chosen = (dict(zip(values, combination, strict=True)) for combination in combinations)
    return [QuerySetting(found, with_values(spec, found)) for found in chosen]


def with_values(spec: AuditSpec, values: Mapping[str, Value]) -> AuditSpec:
    """The audit with other values of some keys, each checked as if it stood in the file.

    Raises
    ------
    InputError
        Naming the key.
    """
    for key, value in values.items():
        spec = _with_value(spec, key, value)
    return spec


def _with_value(spec: AuditSpec, key: str, value: Any) -> AuditSpec:
    where = f"sweep.queries.{key}"
    section, path = _section(spec, key, where)
    content: dict[str, Any] = section.model_dump(exclude_unset=True)
    place = content
    for part in path[:-1]:
        place[part] = dict(place.get(part) or {})
        place = place[part]
    place[path[-1]] = value
    try:
        changed = type(section).model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            raise InputError(f"{where}: {_unknown(section, path)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {message} (got {value!r})") from None
    root, name = _root(spec, key, where)
    if root == "references":
        return spec.model_copy(update={root: {**spec.references, name: changed}})
    return spec.model_copy(update={root: changed})


def _section(spec: AuditSpec, key: str, where: str) -> tuple[BaseModel, list[str]]:
    """The section that a key is in, and the key's path in it."""
    root, name = _root(spec, key, where)
    rest = key.removeprefix(f"{root}.{name}." if name else f"{root}.")
    path = rest.split(".")
    section = spec.references[name] if root == "references" else getattr(spec, root)
    if section is None:
        raise InputError(f"{where}: the audit file has no section `{root}`")
    if root == "neighbors" and name:
        path = ["by_name", name, *path]
    if root == "references" and not isinstance(section, MadeReference):
        raise InputError(
            f"{where}: {name!r} is a reference of kind {section.kind}, which is not made, so "
            "nothing of it can be swept"
        )
    if path[-1] in NOT_SWEPT:
        raise InputError(
            f"{where}: {path[-1]!r} cannot be swept; write an audit file for each value"
        )
    return section, path


def _root(spec: AuditSpec, key: str, where: str) -> tuple[str, str]:
    """The section at the top, and the name under `references`, or under `neighbors` with names."""
    root, _, rest = key.partition(".")
    if root not in ROOTS or not rest:
        near = difflib.get_close_matches(root, ROOTS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near and near[0] != root else ""
        raise InputError(
            f"{where}: keys that can be swept start with "
            f"{', '.join(f'{name}.' for name in ROOTS)} as neighbors.count does{hint}"
        )
    named: Mapping[str, Any]
    if root == "references":
        named, what = spec.references, "no such reference"
    elif root == "neighbors" and spec.neighbors is not None and "" not in spec.neighbors.named():
        named, what = spec.neighbors.named(), "no such neighbors"
    else:
        return root, ""
    names = [name for name in named if rest.startswith(f"{name}.")]
    if not names:
        near = difflib.get_close_matches(rest.partition(".")[0], named, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{where}: {what};{hint} there are: {', '.join(named) or 'none'}")
    return root, max(names, key=len)


def _unknown(section: BaseModel, path: list[str]) -> str:
    """Say which key a path gets lost at, and what there is instead."""
    known, part = sorted(type(section).model_fields), path[0]
    inner = getattr(section, part, None)
    if isinstance(inner, Mapping) and len(path) > 2:  # sections by name
        return _unknown(inner[path[1]], path[2:])
    if part in known and len(path) > 1 and isinstance(inner, BaseModel):
        return _unknown(inner, path[1:])
    near = difflib.get_close_matches(path[-1] if part in known else part, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key; {hint}Known keys here: {', '.join(known)}"
