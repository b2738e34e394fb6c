"""Reading an audit file: YAML to :class:`AuditSpec`, with errors that say where and what to do."""

from __future__ import annotations

import difflib
import os
import sys
import types
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from raymia.spec import AuditSpec
from raymia.spec.base import RenamedKeyWarning
from raymia.spec.from_training import trained_on, with_training
from raymia.spec.how_trained import TRAININGS
from raymia.spec.kinds import Kinds, tags_of
from raymia.spec.methods import METHODS
from raymia.spec.models import ONE_ADAPTER, SEVERAL_ADAPTERS, TARGETS
from raymia.spec.neighbors import NEIGHBORS
from raymia.spec.paths import with_absolute_paths
from raymia.spec.records import RECORDS, section_of
from raymia.spec.references import REFERENCES
from raymia.spec.strict_yaml import parse_yaml
from raymia.storage.refusals import refusals
from raymia.util.credentials import say
from raymia.util.encodings import why_not_utf8
from raymia.util.errors import InputError
from raymia.util.plugins import is_file, load_plugins
from raymia.util.regular_files import check_is_file

Spec = TypeVar("Spec", bound=BaseModel)
ADAPTER_TAGS = (ONE_ADAPTER, SEVERAL_ADAPTERS)


def load_spec(path: str | Path, plugins: Iterable[str] = ()) -> AuditSpec:
    """Read and validate an audit file; relative paths in it become absolute.

    Parameters
    ----------
    plugins : files and modules beside those that the audit file names; a file is relative to the
        working directory.

    Raises
    ------
    InputError
        With every problem found, each naming the key it is about.
    """
    more = [str(Path(name).resolve()) if is_file(name) else name for name in plugins]
    spec = read_spec(path, more)
    with refusals(path, "YAML"):
        spec = with_absolute_paths(spec, Path(path).resolve().parent)
    return spec.model_copy(update={"plugins": [*spec.plugins, *more]})


def read_spec(path: str | Path, plugins: Iterable[str] = ()) -> AuditSpec:
    """Read and validate an audit file, with the paths that are written in it.

    Parameters
    ----------
    plugins : as in :func:`load_spec`.

    Raises
    ------
    InputError
        As :func:`load_spec`.
    """
    path = Path(path)
    content = read_mapping(path, "audit file", "`raymia demo` writes one that you can start from")
    folder, named = path.resolve().parent, content.get("plugins")
    own = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    files = [str(folder / name) if is_file(name) else name for name in map(str, own)]
    learn = partial(learn_records, plugins=[*files, *plugins])
    learn(content)
    if trained_on(content) is not None:
        content = {"from_training": path.name}
    return parse_spec(with_training(content, folder, str(path), learn), str(path))


def read_mapping(path: Path, what: str, hint: str) -> dict[str, Any]:
    """The keys of a YAML file.

    Parameters
    ----------
    what : the file is, as "audit file".
    hint : what to do where it is not there.
    """
    with refusals(path, "YAML"):
        if not os.path.lexists(path):
            raise InputError(f"{path}: no such {what}; {hint}")
        check_is_file(path)
        written = path.read_bytes()
        if (why := why_not_utf8(written)) is not None:
            raise InputError(f"{path}: {why}")
        content = parse_yaml(written.decode(), path)
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: the {what} should be a mapping of keys, but it is "
            f"{'empty' if content is None else f'a {type(content).__name__}'}"
        )
    return content


def learn_records(content: Mapping[str, Any], plugins: Iterable[str]) -> None:
    """Load all that may register the kind of records of a file's content, where it is none of those
    that are known."""
    if section_of(content) is None:
        import_module("raymia.modalities")
        load_plugins(plugins)


def parse_spec(content: dict[str, Any], where: str) -> AuditSpec:
    """Validate an audit given as a mapping; ``where`` stands before each problem.

    Keys that stand there by an earlier name are noted on standard error.
    """
    return parse_as(AuditSpec, content, where)


def parse_as(model: type[Spec], content: dict[str, Any], where: str) -> Spec:
    """Validate a mapping as a file of some kind; see :func:`parse_spec`."""
    try:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", RenamedKeyWarning)
            spec = model.model_validate(content)
        for note in dict.fromkeys(str(warning.message) for warning in notes):
            say(f"note: {where}: {note}", sys.stderr)
        return spec
    except ValidationError as error:
        problems = [f"{where}: {_describe(model, item)}" for item in error.errors()]
        raise InputError(problems) from None


def _describe(model: type[BaseModel], error: Any) -> str:
    loc = tuple(error["loc"])
    place = f"{_dotted(loc)}: " if loc else ""
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{place}unknown key; {hint}Known keys here: {', '.join(sorted(known))}"
    if error["type"] == "missing":
        return f"{place}this key is required and missing"
    message = error["msg"].removeprefix("Value error, ")
    got = error["input"]
    said = isinstance(got, dict | list) or (isinstance(got, str) and repr(got) in message)
    return f"{place}{message}{'' if said else f' (got {got!r})'}"


def _dotted(loc: tuple[Any, ...]) -> str:
    parts: list[str] = []
    for previous, part in zip((None, *loc), loc, strict=False):
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif not _is_union_tag(loc, part, previous):
            parts.append(f".{part}" if parts else str(part))
    return "".join(parts)


def _is_union_tag(loc: tuple[Any, ...], part: Any, previous: Any) -> bool:
    """Pydantic puts a union's tag into the place: targets.0.TAG.key, references.NAME.TAG.key,
    neighbors.TAG.key, neighbors.named.by_name.NAME.TAG.key, records.TAG.key, method.TAG.key, and
    within a model adapter.TAG, and within it or the whole file training.TAG."""
    if part in (*ADAPTER_TAGS, *TRAININGS.tags):
        return True
    if loc[0] == "references":
        return len(loc) > 2 and previous == loc[1] and part in REFERENCES.tags
    if loc[0] == "targets":
        return part in TARGETS.tags
    if loc[:3] == ("neighbors", "named", "by_name"):  # which the file need not have
        return part in ("named", "by_name") or (previous == loc[3] and part in NEIGHBORS.tags)
    sections: dict[str, Kinds[Any]] = {
        "neighbors": NEIGHBORS,
        "records": RECORDS,
        "method": METHODS,
    }
    return previous == loc[0] in sections and part in sections[loc[0]].tags


def _fields_at(model: Any, loc: tuple[Any, ...]) -> list[str]:
    """Names of the keys that the audit file may have at a place."""
    options = [model]
    for part in loc:
        if part in ADAPTER_TAGS:
            continue
        options = [inner for option in options for inner in _descend(option, part)]
    return sorted({n for o in options if _is_model(o) for n in o.model_fields})


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _descend(kind: Any, part: Any) -> list[Any]:
    if _is_model(kind):
        if part in TARGETS.tags or part in TRAININGS.tags:
            return [kind] if part == kind.__name__ else []
        if "kind" in kind.model_fields and part in tags_of(kind):
            return [kind]
        field = kind.model_fields.get(part)
        return [] if field is None else _unwrap(Annotated[field.annotation, *field.metadata, ""])
    if get_origin(kind) is list:
        return _unwrap(get_args(kind)[0])
    if get_origin(kind) is dict:
        return _unwrap(get_args(kind)[1])
    return []


def _unwrap(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        kinds = [one for one in get_args(kind)[1:] if isinstance(one, Kinds)]
        return list(kinds[0].sections) if kinds else _unwrap(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [inner for option in get_args(kind) for inner in _unwrap(option)]
    return [kind]
