"""Reading an audit file: YAML to :class:`AuditSpec`, with errors that say where and what to do."""

from __future__ import annotations

import difflib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from raymia.spec import (
    AnyTarget,
    AuditSpec,
    EndpointTarget,
    InfillNeighbors,
    MaskFillNeighbors,
    ModelSpec,
    NamedNeighbors,
    SamplesTarget,
    SelfGeneratedReference,
    SelfPromptReference,
    ShadowFolder,
    ShadowReference,
    TargetSetSpec,
    TargetSpec,
)
from raymia.spec.base import RenamedKeyWarning, Strict
from raymia.spec.from_training import with_training
from raymia.spec.how_trained import TRAININGS
from raymia.spec.kinds import Kinds, MadeReference, NeighborsSection, tags_of
from raymia.spec.methods import METHODS
from raymia.spec.models import ONE_ADAPTER, SEVERAL_ADAPTERS
from raymia.spec.neighbors import NEIGHBORS
from raymia.spec.records import RECORDS
from raymia.spec.references import REFERENCES
from raymia.spec.strict_yaml import parse_yaml
from raymia.spec.training import BASE_TEMPLATE
from raymia.storage.manifest import is_sealed
from raymia.storage.refusals import refusals
from raymia.util.credentials import say
from raymia.util.encodings import why_not_utf8
from raymia.util.errors import InputError
from raymia.util.plugins import is_file, load_plugins
from raymia.util.regular_files import check_is_file

Model = TypeVar("Model", bound=ModelSpec)
Spec = TypeVar("Spec", bound=BaseModel)
Training = TypeVar("Training", bound=Strict)
ADAPTER_TAGS = (ONE_ADAPTER, SEVERAL_ADAPTERS)
TARGETS = {kind.__name__ for kind in (TargetSpec, TargetSetSpec, EndpointTarget, SamplesTarget)}


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
    folder = path.resolve().parent
    if is_sealed(content):
        content = {"from_training": path.name}
    content = with_training(content, folder, str(path))
    _learn_kind(content, folder, plugins)
    return parse_spec(content, str(path))


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


def _learn_kind(content: dict[str, Any], folder: Path, plugins: Iterable[str]) -> None:
    """Load all that may register the kind of records, where it is none of those that are known."""
    records, named = content.get("records"), content.get("plugins")
    if not isinstance(records, dict) or records.get("kind", "text") in RECORDS.tags:
        return
    import_module("raymia.modalities")
    own = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    files = [str(folder / name) if is_file(name) else name for name in map(str, own)]
    load_plugins([*files, *plugins])


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
    if part in (*ADAPTER_TAGS, *TRAININGS):
        return True
    if loc[0] == "references":
        return len(loc) > 2 and previous == loc[1] and part in REFERENCES.tags
    if loc[0] == "targets":
        return part in TARGETS
    if loc[:3] == ("neighbors", "named", "by_name"):  # which the file need not have
        return part in ("named", "by_name") or (previous == loc[3] and part in NEIGHBORS.tags)
    sections = {"neighbors": NEIGHBORS, "records": RECORDS, "method": METHODS}
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
        if part in TARGETS or part in TRAININGS:
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


def with_absolute_paths(spec: AuditSpec, folder: Path) -> AuditSpec:
    """Resolve every relative path of a spec against the folder of its audit file."""
    return with_paths(spec, partial(absolute_data, folder), partial(absolute_weights, folder))


def absolute_data(folder: Path, path: str) -> str:
    """The path of a file or folder that is named in a file of a folder."""
    return path if is_url(path) else _absolute(folder, path)


def absolute_weights(folder: Path, path: str) -> str:
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


def with_paths(
    spec: AuditSpec, data: Callable[[str], str], weights: Callable[[str], str]
) -> AuditSpec:
    """Replace every path of a spec.

    Parameters
    ----------
    data : given the output, the store and each file or folder that is read or written, returns what
        should stand there.
    weights : given each folder or hub name of a model or an adapter, the same.
    """
    references: dict[str, Any] = {}
    for name, reference in spec.references.items():
        if isinstance(reference, SelfGeneratedReference):
            prompts = [data(path) for path in reference.prompts]
            references[name] = reference.model_copy(update={"prompts": prompts})
        elif isinstance(reference, SelfPromptReference):
            references[name] = reference.model_copy(
                update={
                    "prompts": reference.prompts
                    if reference.prompts == "none"
                    else [data(p) for p in reference.prompts]
                }
            )
        elif isinstance(reference, ShadowFolder):
            references[name] = reference.model_copy(update={"folder": data(reference.folder)})
        elif isinstance(reference, MadeReference):
            references[name] = reference
        else:
            references[name] = _model_paths(reference, weights)
            if isinstance(reference, ShadowReference):
                references[name] = references[name].model_copy(
                    update={"members": [data(p) for p in reference.members]}
                )
    neighbors = _neighbor_paths(spec.neighbors, weights)
    records = spec.records.model_copy(
        update={
            key: [data(p) for p in getattr(spec.records, key)]
            for key in ("members", "non_members", "candidates", "population", "known_members")
            if hasattr(spec.records, key)
        }
    )
    corpus = spec.corpus
    if corpus is not None:
        corpus = corpus.model_copy(update={"files": [data(p) for p in corpus.files]})
    return spec.model_copy(
        update={
            "training": training_paths(spec.training, data),
            "output": data(spec.output),
            "store": data(spec.store),
            "records": records,
            "targets": [_target_paths(target, weights, data) for target in spec.targets],
            "references": references,
            "neighbors": neighbors,
            "corpus": corpus,
            "plugins": [data(p) if is_file(p) else p for p in spec.plugins],
        }
    )


def _neighbor_paths(
    neighbors: NeighborsSection | None, weights: Callable[[str], str]
) -> NeighborsSection | None:
    if isinstance(neighbors, NamedNeighbors):
        by_name = {name: _neighbor_paths(one, weights) for name, one in neighbors.by_name.items()}
        return neighbors.model_copy(update={"by_name": by_name})
    if isinstance(neighbors, MaskFillNeighbors | InfillNeighbors):
        return neighbors.model_copy(update={"model": weights(neighbors.model)})
    return neighbors


def _target_paths(
    target: AnyTarget, weights: Callable[[str], str], data: Callable[[str], str]
) -> AnyTarget:
    if isinstance(target, EndpointTarget):
        tokenizer = None if target.tokenizer is None else weights(target.tokenizer)
        training = training_paths(target.training, data)
        return target.model_copy(update={"tokenizer": tokenizer, "training": training})
    if isinstance(target, SamplesTarget):
        return target.model_copy(update={"samples": [data(path) for path in target.samples]})
    if isinstance(target, TargetSetSpec):
        model = data(target.model) if target.is_glob else target.model and weights(target.model)
        manifest = None if target.manifest is None else data(target.manifest)
        patterns = {key: [data(p) for p in getattr(target, key)] for key in ("models", "adapters")}
        found = {"model": model, "manifest": manifest, **patterns}
        return target.model_copy(
            update={**found, "training": training_paths(target.training, data)}
        )
    trained_by = None if target.trained_by is None else data(target.trained_by)
    return _model_paths(target, weights).model_copy(
        update={"training": training_paths(target.training, data), "trained_by": trained_by}
    )


def training_paths(training: Training | None, data: Callable[[str], str]) -> Training | None:
    """Replace every path of what is said of a training; see :func:`with_paths`."""
    if training is None:
        return None
    keys = ("config", "template", "prior_preservation")
    own = {key: getattr(training, key, None) for key in keys}
    return training.model_copy(
        update={
            key: [data(one) for one in path] if isinstance(path, list) else data(path)
            for key, path in own.items()
            if path is not None and (key, path) != ("template", BASE_TEMPLATE)
        }
    )


def _model_paths(model: Model, resolve: Callable[[str], str]) -> Model:
    adapter = model.adapter
    if isinstance(adapter, str):
        adapter = resolve(adapter)
    elif adapter is not None:
        adapter = [one.model_copy(update={"path": resolve(one.path)}) for one in adapter]
    found = {"model": resolve(model.model), "adapter": adapter}
    if model.config is not None:
        found["config"] = resolve(model.config)
    return model.model_copy(update=found)


def is_url(path: str) -> bool:
    return "://" in path


def _is_local(path: str) -> bool:
    return path.startswith(("/", "./", "../", "~"))
