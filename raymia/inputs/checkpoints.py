"""From patterns, revisions and manifests in an audit file to the checkpoints they stand for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from raymia.inputs.base import Problems
from raymia.records.tables import read_rows
from raymia.spec import AnyTarget, AuditSpec, ClaimSpec, ModelSpec, TargetSetSpec, TargetSpec
from raymia.spec.file import parse_as
from raymia.spec.from_training import trained_on
from raymia.spec.models import GLOB
from raymia.storage.files import opened
from raymia.storage.manifest import check_seal
from raymia.storage.refusals import refusals
from raymia.storage.remote import filesystem
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.strict_json import parse_json

LONGEST_NAME = 80
WEIGHTS = ".safetensors"
SHOWN = 8
"""Names of what is there instead, in an error."""


def expand_targets(spec: AuditSpec, problems: Problems) -> tuple[AuditSpec, list[str]]:
    """Put the checkpoints that are meant into the place of the patterns that mean them.

    Returns
    -------
    The audit with one target per checkpoint, and each target's place in the file, for messages.
    What cannot be found is added to the problems and left out.
    """
    targets: list[AnyTarget] = []
    places: list[str] = []
    for number, written in enumerate(spec.targets):
        where = f"targets[{number}]"
        if not isinstance(written, TargetSetSpec):
            targets.append(written)
            places.append(where)
            continue
        for target in problems.attempt(_checkpoints, written, where) or []:
            targets.append(target)
            places.append(f"{where} ({target.name})")
    names = [target.name for target in targets]
    for name in sorted(name for name, times in Counter(names).items() if times > 1):
        mine = ", ".join(p for p, n in zip(places, names, strict=True) if n == name)
        problems.found.append(
            f"targets: {name!r} would be the name of more than one checkpoint: {mine}; give one of "
            "the patterns a `name`, which then stands before its checkpoints' names"
        )
    return spec.model_copy(update={"targets": targets}), places


def _checkpoints(written: TargetSetSpec, where: str) -> list[TargetSpec]:
    claims: Mapping[str, ClaimSpec] = {}
    trained_by: str | None = None
    if written.manifest is not None:
        named, claims, trained_by = in_manifest(written.manifest, where)
        key = "adapter" if written.model else "model"
    elif written.revisions:
        revisions = _revisions(written.model, written.revisions, f"{where}.revisions")
        named = list(zip(_short_names([[r] for r in revisions]), revisions, strict=True))
        key = "revision"
    else:
        key = "adapter" if written.adapters else "model"
        found: list[str] = []
        for pattern in written.adapters or written.models or [written.model]:
            found += _folders(pattern, f"{where}.{key}s" if not written.is_glob else where)
        paths = list(dict.fromkeys(found))
        parts = [path.removesuffix(WEIGHTS).split("/") for path in paths]
        named = list(zip(_short_names(parts), paths, strict=True))
    settings: dict[str, Any] = {
        name: getattr(written, name)
        for name in ModelSpec.model_fields
        if name in written.model_fields_set
    }
    settings["training"] = written.training
    prefix = f"{written.name}-" if written.name else ""
    targets = []
    for name, value in named:
        try:
            own = {key: value, "name": _fit(prefix + name), "claim": claims.get(value)}
            own["trained_by"] = trained_by
            targets.append(TargetSpec(**{**settings, **own}))
        except ValidationError as error:
            raise InputError(
                f"{where}: {name!r} cannot name a checkpoint: {error.errors()[0]['msg']}"
            ) from None
    return targets


def _folders(pattern: str, where: str) -> list[str]:
    """The folders that a pattern matches, in natural order, on any fsspec filesystem; files, where
    it is one of a kind of files. What is called as the pattern is comes first, and alone."""
    kind = "file" if pattern.endswith(WEIGHTS) else "folder"
    with refusals(pattern, kind, where):
        fs, path = filesystem(pattern)
        fs.invalidate_cache()
        matches = [path] if fs.exists(path) else sorted(map(str, fs.glob(path)), key=natural)
        is_one = fs.isfile if kind == "file" else fs.isdir
        folders = [m for m in matches if is_one(m) and not _last(m).startswith(".")]
    if not folders:
        raise InputError(f"{where}: no {kind} matches {pattern}; {_nearby(fs, path)}")
    return [fs.unstrip_protocol(f) if "://" in pattern else f for f in folders]


def _nearby(fs: Any, path: str) -> str:
    """What stands where a pattern stops matching."""
    parts = path.rstrip("/").split("/")
    for length in range(len(parts) - 1, 0, -1):
        start = "/".join(parts[:length]) or "/"
        matched = [start] if fs.isdir(start) else [str(m) for m in fs.glob(start)]
        places = sorted((m for m in matched if fs.isdir(m)), key=natural)
        if not places:
            continue
        content = [_last(str(entry)) for entry in fs.ls(places[0], detail=False)]
        listed = sorted((c for c in content if not c.startswith(".")), key=natural)
        more = f", ... ({len(listed)} in all)" if len(listed) > SHOWN else ""
        return f"in {places[0]} there is: {', '.join(listed[:SHOWN]) or 'nothing'}{more}"
    return "nor is any folder above it there"


def _revisions(model: str, wanted: Sequence[str], where: str) -> list[str]:
    """Revisions of a hub model; patterns among them are matched with its tags and branches."""
    if not any(GLOB.search(one) for one in wanted):
        return list(dict.fromkeys(wanted))
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(model)
    except Exception as error:  # of the network, of the hub, or of its being switched off
        raise InputError(
            f"{where}: the model hub could not be asked which revisions of {model!r} match "
            f"{', '.join(wanted)} ({type(error).__name__}); list them one by one, or check the "
            "name, the network, HF_HUB_OFFLINE and HF_TOKEN"
        ) from None
    there = sorted({ref.name for ref in (*refs.tags, *refs.branches)}, key=natural)
    found: list[str] = []
    for pattern in wanted:
        matches = [name for name in there if fnmatchcase(name, pattern)]
        if not matches:
            shown = ", ".join(there[:SHOWN]) or "none"
            raise InputError(
                f"{where}: no tag or branch of {model} matches {pattern}; there are: {shown}"
                + (f", ... ({len(there)} in all)" if len(there) > SHOWN else "")
            )
        found += matches
    return list(dict.fromkeys(found))


def in_manifest(
    path: str, where: str
) -> tuple[list[tuple[str, str]], dict[str, ClaimSpec], str | None]:
    """Names and folders that a training's manifest.json, or a table of name and path, lists; what a
    private training claims of each folder; and the manifest, where it is one of `raymia train`."""
    where = f"{where}.manifest"
    content, claims, trained_by = None, {}, None
    if path.endswith(".json"):
        with refusals(path, ".json", where), opened(path) as file, suppress(json.JSONDecodeError):
            content = parse_json(file.read())  # or not, where it is lines of JSON
    if isinstance(content, dict) and "path" not in content:
        section = trained_on(content)
        if section is not None:
            check_seal(content, path, where)
            if section.manifest_says_recipe and "://" not in path:
                trained_by = path
        listed_there = content.get("checkpoints")
        entries: list[Any] = listed_there if isinstance(listed_there, list) else []
        folders = [
            e["folder"] for e in entries if isinstance(e, dict) and isinstance(e.get("folder"), str)
        ]
        if not folders or len(folders) != len(entries):
            raise InputError(
                f"{where}: {path} lists no checkpoints; expected `checkpoints`, each with a "
                f"`folder`, and got: {', '.join(content) or 'nothing'}"
            )
        named = list(zip(_short_names([f.split("/") for f in folders]), folders, strict=True))
        claims = {
            _beside(path, entry["folder"]): parse_as(
                ClaimSpec, entry["privacy"], f"{where}: {path}: privacy of {entry['folder']}"
            )
            for entry in entries
            if "privacy" in entry
        }
    else:
        rows = read_rows(path, {"name": "name", "path": "path"})
        named = []
        for row in rows:
            name, folder = row.values["name"], row.values["path"]
            why = row.why_not("name", "path")
            if why is not None or name is None or folder is None:
                raise InputError(f"{where}: {row.where}: {why or 'no `name`, or no `path`'}")
            named.append((str(name), str(folder)))
        if not named:
            raise InputError(f"{where}: {path} has no row; expected columns name and path")
    return [(name, _beside(path, folder)) for name, folder in named], claims, trained_by


def _beside(manifest: str, folder: str) -> str:
    """A folder that a manifest names, which is relative to the manifest's own."""
    if "://" in folder or folder.startswith(("/", "~")):
        return folder
    scheme, separator, rest = manifest.rpartition("://")
    return f"{scheme}{separator}{PurePosixPath(rest).parent / folder}"


def _short_names(paths: Sequence[list[str]]) -> list[str]:
    """What differs between paths, given in parts; the last part of one that is alone."""
    middles = [list(path) for path in paths]
    if len(paths) > 1:
        for end in (0, -1):
            while all(middles) and len({m[end] for m in middles}) == 1:
                for middle in middles:
                    del middle[end]
        if len({len(m) for m in middles}) == 1:
            constant = {n for n, column in enumerate(zip(*middles, strict=True))
                        if len({*column}) == 1}  # fmt: skip
            middles = [[p for n, p in enumerate(m) if n not in constant] for m in middles]
    else:
        middles = [middle[-1:] for middle in middles]
    return [_clean(middle or path[-1:]) for middle, path in zip(middles, paths, strict=True)]


def _clean(parts: Iterable[str]) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(parts))
    return name.lstrip("_.-") or digest(name)[:8]


def _fit(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{digest(name)[:8]}"


def natural(name: str) -> list[tuple[bool, int | str]]:
    """A key that sorts checkpoint-2 before checkpoint-10."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _last(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
