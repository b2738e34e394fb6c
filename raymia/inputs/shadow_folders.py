"""From a folder of shadows in an audit file to the references they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymia.inputs.base import Problems
from raymia.spec import AnyReference, AuditSpec, ShadowFolder, ShadowReference
from raymia.spec.from_training import read_training
from raymia.storage.manifest import MANIFEST_FILE, OF_SHADOWS, SEAL, read_manifest
from raymia.util.errors import InputError


def expand_shadows(spec: AuditSpec, problems: Problems) -> AuditSpec:
    """Put shadows into the place of the folders that hold them, each by NAME-NUMBER.

    What cannot be read is added to the problems and left out.
    """
    references: dict[str, AnyReference] = {}
    for name, reference in spec.references.items():
        if not isinstance(reference, ShadowFolder):
            found: dict[str, AnyReference] = {name: reference}
        else:
            where = f"references.{name}.folder"
            found = dict(problems.attempt(_shadows, name, reference.folder, where) or {})
        for one in {*found} & {*references}:
            problems.found.append(
                f"references.{name}: {one!r} would be the name of two references; rename one"
            )
        references |= found
    return spec.model_copy(update={"references": references})


def _shadows(name: str, folder: str, where: str) -> dict[str, ShadowReference]:
    if "://" in folder:
        raise InputError(f"{where}: {folder} should be a folder of this machine")
    path = Path(folder)
    if path.name == MANIFEST_FILE:
        path = path.parent
    listed = read_manifest(path / MANIFEST_FILE, where, OF_SHADOWS)["shadows"]
    found = {}
    for number, one in enumerate(listed):
        own = path / one["folder"]
        manifest, _ = read_training(own / MANIFEST_FILE, where)
        if manifest[SEAL] != one[SEAL]:
            raise InputError(
                f"{where}: {own} is another training than the shadows' manifest has; train the "
                "shadows again, or copy the whole folder again"
            )
        found[f"{name}-{number:02}"] = _shadow(own, manifest, one["checkpoint"])
    return found


def _shadow(folder: Path, manifest: dict[str, Any], checkpoint: str) -> ShadowReference:
    """The last checkpoint of a shadow, read as the targets of its kind are."""
    base, weights = manifest.get("base"), str(folder / checkpoint)
    own: dict[str, Any] = {"model": weights}
    if base is not None and manifest["method"]["kind"] != "full":
        own = {"model": base["model"], "adapter": weights}
        same = ("revision", "quantization", "trust_remote_code")
        own |= {key: part[key] for part in (manifest, base) for key in same if key in part}
    elif base is not None and base.get("trust_remote_code"):
        own["trust_remote_code"] = True
    return ShadowReference(
        kind="shadow",
        members=[str(folder / file) for file in manifest["records"]["members"]],
        **own,
    )
