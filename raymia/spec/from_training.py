"""What an audit file need not say where it names the manifest of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raymia.spec.kinds import RecordsSection
from raymia.spec.records import RECORDS, TextRecordsSpec
from raymia.storage.manifest import MANIFEST_FILE, check_files, check_seal, parsed
from raymia.util.errors import InputError

KEY = "from_training"


def trained_on(manifest: Mapping[str, Any]) -> type[RecordsSection] | None:
    """The kind of records that the training of a manifest was on; None where it is no manifest, or
    one of before manifests were sealed."""
    known = {one.manifest.name: one for one in RECORDS.sections if one.manifest is not None}
    return next((one for name, one in known.items() if name == manifest.get("kind")), None)


def read_training(path: Path, where: str) -> tuple[dict[str, Any], type[RecordsSection]]:
    """Read the manifest of a training, and check it and the files that it vouches for.

    Returns
    -------
    The manifest, and the kind of records that the training was on.

    Raises
    ------
    InputError
        If it is none, was edited, or says too little.
    """
    content = parsed(path, where)
    section = trained_on(content)
    if section is None:
        usual = TextRecordsSpec.manifest
        raise InputError(f"{where}: {path} is no manifest of {usual.expected}")
    check_seal(content, path, where)
    check_files(content, path, where)
    section.check_manifest(content, path, where)
    return content, section


def with_training(
    content: dict[str, Any],
    folder: Path,
    where: str,
    learn: Callable[[Mapping[str, Any]], None],
) -> dict[str, Any]:
    """Put what a training's manifest says below what the audit file says, key by key.

    Parameters
    ----------
    content : of the audit file.
    folder : of the audit file.
    learn : makes the kind of records known that a manifest is of.

    Raises
    ------
    InputError
        If the manifest was edited, or what it vouches for was changed.
    """
    named = content.get(KEY)
    if not isinstance(named, str):
        return content
    path = (folder / Path(named).expanduser()).resolve()
    if path.is_dir():
        path = path / MANIFEST_FILE
    where = f"{where}: {KEY}"
    learn(parsed(path, where))
    manifest, section = read_training(path, where)
    below = section.audit_of(manifest, path)
    folder = path.parent / "shadows"
    if (folder / MANIFEST_FILE).is_file():
        shadows = {"shadow": {"kind": "shadows", "folder": str(folder)}}
        below = {**below, "references": {**below.get("references", {}), **shadows}}
    return _laid_over(below, {key: value for key, value in content.items() if key != KEY})


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key in ("records", "training", "references", "metrics"):
        if isinstance(below.get(key), dict) and isinstance(above.get(key), dict):
            merged[key] = {**below[key], **above[key]}
    return merged
