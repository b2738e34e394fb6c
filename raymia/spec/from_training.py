"""What an audit file need not say where it names the manifest of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymia.storage.manifest import OF_IMAGES, read_training

KEY = "from_training"


def with_training(content: dict[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Put what a training's manifest says below what the audit file says, key by key.

    Parameters
    ----------
    content : of the audit file.
    folder : of the audit file.

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
        path = path / "manifest.json"
    manifest = read_training(path, f"{where}: {KEY}")
    said = {key: value for key, value in content.items() if key != KEY}
    sections = _of_images if manifest["kind"] == OF_IMAGES else _sections
    return _laid_over(sections(manifest, path), said)


def _sections(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    """What an audit of a training's checkpoints consists of."""
    records, training = dict(manifest["records"]), dict(manifest["training"])
    for key in ("members", "non_members"):
        records[key] = [str(path.parent / name) for name in records[key]]
    if "template" in training:
        training["template"] = str(path.parent / training["template"])
    base = manifest["base"]
    base = {key: base[key] for key in ("model", "revision", "trust_remote_code") if base.get(key)}
    if manifest["quantization"] != "none":
        base["quantization"] = manifest["quantization"]
    own = base if manifest["method"]["kind"] != "full" else {}
    if base.get("trust_remote_code"):
        own = {"trust_remote_code": True, **own}
    sections: dict[str, Any] = {
        "name": manifest["name"],
        "records": records,
        "training": training,
        "targets": [{"manifest": str(path), **own}],
        "references": {"base": base},
    }
    sections["references"] |= _shadows(path)
    metrics = {}
    if manifest["split"].get("inclusion") is not None:
        metrics["inclusion"] = manifest["split"]["inclusion"]
    if manifest["privacy"] is not None:  # a bound at a smaller delta could not refute the claim
        metrics["delta"] = manifest["privacy"]["delta"]
    return {**sections, "metrics": metrics} if metrics else sections


def _of_images(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    """What an audit of the checkpoints of a training of images consists of."""
    records = dict(manifest["records"])
    for key in ("members", "non_members"):
        records[key] = [str(path.parent / name) for name in records[key]]
    sections: dict[str, Any] = {"records": records, "targets": [{"manifest": str(path)}]}
    if "base" in manifest:  # of LoRAs
        base = {"model": manifest["base"]["model"]}
        sections["targets"][0] |= base
        sections["references"] = {"base": base}
        has_captions = (
            manifest["captions"]["column"] or manifest["captions"]["instance_prompt"] is not None
        )
        sections["training"] = {
            "flip": manifest["training"]["flip"], "timesteps": "uniform", "noise_offset": 0.0,
            **({"caption_dropout": 0.0} if has_captions else {}),
        }  # fmt: skip
    if shadows := _shadows(path):
        sections["references"] = {**sections.get("references", {}), **shadows}
    deltas = {one["privacy"]["delta"] for one in manifest["checkpoints"] if "privacy" in one}
    return {**sections, "metrics": {"delta": max(deltas)}} if deltas else sections


def _shadows(path: Path) -> dict[str, Any]:
    """The reference that the shadows beside a manifest are; nothing where there are none."""
    folder = path.parent / "shadows"
    if not (folder / path.name).is_file():
        return {}
    return {"shadow": {"kind": "shadows", "folder": str(folder)}}


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key in ("records", "training", "references", "metrics"):
        if isinstance(below.get(key), dict) and isinstance(above.get(key), dict):
            merged[key] = {**below[key], **above[key]}
    return merged
