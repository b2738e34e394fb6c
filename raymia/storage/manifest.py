"""The manifest of a training: sealed when it is written, so that what was edited is refused.

The seal is a hash of all the rest, and that of texts has hashes of the files beside it. It shows
what was changed by mistake or in passing; who means to deceive can seal anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raymia.storage.files import Folder
from raymia.storage.refusals import refusals
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_file
from raymia.util.strict_json import parse_json


class ManifestKind(NamedTuple):
    """A kind of manifests.

    Attributes
    ----------
    name : what their key ``kind`` is.
    expected : what they are of, and what to do where one is of another kind.
    """

    name: str
    expected: str


OF_SHADOWS = ManifestKind(
    "raymia shadows",
    "shadows (kind: 'raymia shadows'); name the folder `shadows` of a training",
)
MANIFEST_FILE = "manifest.json"
SEAL = "seal"
FILES = "files"
"""Key of the hashes of files that it vouches for, by their names relative to the manifest."""


def write_manifest(out: Path, content: Mapping[str, Any], kind: ManifestKind) -> dict[str, Any]:
    """Seal a manifest and write it; seen whole or not at all."""
    whole = {"kind": kind.name, **content}
    sealed = {**whole, SEAL: digest(whole)}
    text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    Folder(str(out)).write(MANIFEST_FILE, text.encode())
    return sealed


def read_manifest(path: Path, where: str, kind: ManifestKind) -> dict[str, Any]:
    """Read a manifest, and check it and the files that it vouches for; see :func:`read_sealed`."""
    content = read_sealed(path, where, kind)
    check_files(content, path, where)
    return content


def read_sealed(path: Path, where: str, kind: ManifestKind) -> dict[str, Any]:
    """Read a manifest, and check it alone.

    Parameters
    ----------
    kind : that it should be of.

    Raises
    ------
    InputError
        If it is none, or was edited.
    """
    content = parsed(path, where)
    if content.get("kind") != kind.name:
        raise InputError(f"{where}: {path} is no manifest of {kind.expected}")
    check_seal(content, path, where)
    return content


def check_files(content: Mapping[str, Any], path: Path, where: str) -> None:
    """Refuse a manifest of which a file was changed that it vouches for."""
    changed = [
        f"{where}: {path}: {name} is {said}; train again, or copy the whole folder again"
        for name, expected in content.get(FILES, {}).items()
        if (said := _differs(path.parent / name, expected)) is not None
    ]
    if changed:
        raise InputError(changed)


def parsed(path: Path, where: str) -> dict[str, Any]:
    """The keys of a JSON file; none of one that holds something else."""
    with refusals(path, ".json", where):
        try:
            content = parse_json(path.read_bytes(), unique_keys=True)
        except ValueError as error:
            raise InputError(f"{where}: {path}: not valid JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def check_seal(content: Mapping[str, Any], path: Path | str, where: str) -> None:
    """Refuse a manifest that was edited since it was sealed."""
    rest = {key: value for key, value in content.items() if key != SEAL}
    if content.get(SEAL) != digest(rest):
        raise InputError(
            f"{where}: {path} was edited after the training: its seal is {content.get(SEAL)}, and "
            f"its content gives {digest(rest)}; copy the manifest that the training wrote, and say "
            "in an audit file what should be otherwise"
        )


def _differs(file: Path, expected: str) -> str | None:
    if not file.is_file():
        return "not there"
    return None if digest_file(file) == expected else "not the file that the training wrote"
