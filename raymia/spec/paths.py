"""The paths that stand in a section, wherever in it: relative ones are made absolute."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from raymia.spec.base import Place, Strict

Section = TypeVar("Section", bound=Strict)
Replace = Callable[[str], str]


def with_absolute_paths(section: Section, folder: Path) -> Section:
    """Resolve every relative path of a section against the folder of the file that it stands in."""
    return with_paths(section, partial(_absolute_data, folder), partial(_absolute_weights, folder))


def with_paths(
    section: Section, data: Replace, weights: Replace, checkpoints: Replace | None = None
) -> Section:
    """Replace every path of a section, and of those in it: texts whose type has a :class:`Place`.

    Parameters
    ----------
    data : given each file or folder that is read or written, returns what should stand there.
    weights : given each folder or hub name of a model or an adapter, the same.
    checkpoints : given what holds or names several checkpoints, the same; None takes it for data.
    """
    by_what = {"data": data, "weights": weights, "checkpoints": checkpoints or data}
    changed = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        annotation: Any = Annotated[field.annotation, *field.metadata, None]
        replaced = _replaced(value, annotation, by_what)
        if replaced != value:
            changed[key] = replaced
    return section.model_copy(update=changed) if changed else section


def _replaced(value: Any, annotation: Any, by_what: dict[str, Replace]) -> Any:
    """A value with its paths replaced; what is no text, section or collection is left as it is."""
    if isinstance(value, Strict):
        return with_paths(value, **by_what)
    options = list(_options(annotation))
    if isinstance(value, str):
        marks = (mark for kind, marks in options if kind is str for mark in marks)
        place = next((mark for mark in marks if isinstance(mark, Place)), None)
        what = None if place is None else place.of(value)
        return value if what is None else by_what[what](value)
    if isinstance(value, list):
        inner = next((get_args(kind) for kind, _ in options if get_origin(kind) is list), ())
        return [_replaced(one, inner[0], by_what) for one in value] if inner else value
    if isinstance(value, dict):
        inner = next((get_args(kind) for kind, _ in options if get_origin(kind) is dict), ())
        if inner:
            return {key: _replaced(one, inner[1], by_what) for key, one in value.items()}
    return value


def _options(annotation: Any, marks: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The types that a value may be of, each with what its annotation says beside it."""
    if get_origin(annotation) is Annotated:
        kind, *more = get_args(annotation)
        yield from _options(kind, (*marks, *more))
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option, marks)
    else:
        yield annotation, marks


def _absolute_data(folder: Path, path: str) -> str:
    """The path of a file or folder that is named in a file of a folder."""
    return path if is_url(path) else _absolute(folder, path)


def _absolute_weights(folder: Path, path: str) -> str:
    """The path of a model that is named in a file of a folder, or its name in the hub."""
    if is_url(path):
        return path
    local = _absolute(folder, path)
    # A name that is no folder may be a hub name: left as it is, refused later if it is not.
    return local if os.path.lexists(local) or _is_local(path) else path


def _absolute(folder: Path, path: str) -> str:
    """A local path from the root on. What it ends in keeps its name, be it a link to a file of
    another one, as in caches of Hugging Face and DVC."""
    if "\0" in path:
        return path  # refused by whoever opens it
    whole = folder / Path(path).expanduser()
    if whole.name in ("", ".."):
        return os.path.realpath(whole)
    return str(Path(os.path.realpath(whole.parent), whole.name))


def is_url(path: str) -> bool:
    return "://" in path


def _is_local(path: str) -> bool:
    return path.startswith(("/", "./", "../", "~"))
