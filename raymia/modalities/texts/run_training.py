"""One training from the training file to the manifest: resolve, split, train, seal."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raymia.modalities.texts.target_training import ResolvedTraining, resolve_target_training
from raymia.models.source import bring, origins_of
from raymia.prepare.split_files import write_split
from raymia.prepare.target_job import progress_bar
from raymia.prepare.text_split import GROUP_COLUMN, written
from raymia.prepare.train_target import Facts, finish, hashes, kept_checkpoints, train_target
from raymia.prepare.trainer import Progress, Together
from raymia.records.base import count_reasons
from raymia.spec import TextRecordsSpec
from raymia.spec.target_training import TargetTrainingSpec
from raymia.storage.files import Folder
from raymia.storage.lease import held, new_run_id
from raymia.storage.manifest import MANIFEST_FILE, read_manifest, write_manifest
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_bytes
from raymia.util.terminal import terminal

FILES = {"members": "members.jsonl", "non_members": "non_members.jsonl"}
TEMPLATE_FILE = "chat_template.jinja"
PACKAGES = ("raymia", "torch", "transformers", "peft", "bitsandbytes", "opacus")
VERSION = 1
"""Version of the manifest."""

Trained = tuple[list[Facts], Facts]
"""See :func:`raymia.prepare.train_target.train_target`."""


def run_training(spec: TargetTrainingSpec, together: Together) -> dict[str, Any]:
    """Train, and write records, checkpoints and manifest; a finished training is left as it is.

    Parameters
    ----------
    together : has several workers train one model.

    Returns
    -------
    The manifest.

    Raises
    ------
    InputError
        For anything wrong in what was given, before a model is loaded.
    RaymiaError
        If the training comes apart.
    """
    resolved = resolve_target_training(spec)
    before = finished(resolved)
    if before is not None:
        return before
    for reason, count in count_reasons(one.reason for one in resolved.set_aside).items():
        terminal().print(f"{count:,} set aside: {reason}", highlight=False, markup=False)
    if resolved.plan.workers > 1:
        return train_resolved(resolved, partial(_train_together, resolved, together))
    with progress_bar(f"{spec.name}: {spec.method.kind}", resolved.plan.steps) as progress:
        return train_resolved(resolved, partial(train_target, resolved.plan, progress))


def train_resolved(resolved: ResolvedTraining, train: Callable[[], Trained]) -> dict[str, Any]:
    """Train what is resolved and not finished; see :func:`run_training`.

    Parameters
    ----------
    train : does it, from where it was stopped to the end.
    """
    warnings.simplefilter("ignore", FutureWarning)  # of libraries among themselves
    for name in ("opacus", "peft"):
        warnings.filterwarnings("ignore", module=name)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    plan = resolved.plan
    with held(str(plan.out), new_run_id()):
        files = _write_records(resolved)
        checkpoints, facts = train()
        files |= hashes(plan.out, checkpoints)
        manifest = write_manifest(
            plan.out, _manifest(resolved, files, checkpoints, facts), TextRecordsSpec.manifest
        )
        finish(plan)
    return manifest


def _train_together(resolved: ResolvedTraining, together: Together) -> Trained:
    """Train by several workers, each of which may be on a machine of its own."""
    plan, spec = resolved.plan, resolved.spec
    origins = origins_of([plan.base])

    def train(progress: Progress) -> Trained:
        bring(origins)
        return train_target(plan, progress)

    train.__name__ = f"train {spec.name}"
    found: Trained = together(train, spec.resources, str(plan.out))
    return found


def finished(resolved: ResolvedTraining) -> dict[str, Any] | None:
    """The manifest of a training that is finished; None for one that is not.

    Raises
    ------
    InputError
        If the folder holds another training.
    """
    out, run = resolved.plan.out, resolved.plan.run
    if not (out / MANIFEST_FILE).is_file():
        kept_checkpoints(out, run)
        return None
    manifest = read_manifest(out / MANIFEST_FILE, "output", TextRecordsSpec.manifest)
    if manifest["run"] != run:
        raise InputError(
            f"output: {out} holds a training with other records, settings, seed or base; remove "
            "the folder, or name another"
        )
    return manifest


def _write_records(resolved: ResolvedTraining) -> dict[str, str]:
    """Write what an audit reads; returns the hashes of the files."""
    split, kind = resolved.split, resolved.kind
    grouped = _is_grouped(resolved)
    contents = {
        FILES["members"]: written(split.members, kind, grouped=grouped),
        FILES["non_members"]: written(split.held_out, kind, grouped=grouped),
    }
    write_split(resolved.plan.out, contents, "records")
    template = resolved.plan.training.template
    if template is not None:
        contents[TEMPLATE_FILE] = template.encode()
        Folder(str(resolved.plan.out)).write(TEMPLATE_FILE, contents[TEMPLATE_FILE])
    return {name: digest_bytes(content) for name, content in contents.items()}


def _manifest(
    resolved: ResolvedTraining,
    files: Mapping[str, str],
    checkpoints: list[Facts],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    spec, plan, split = resolved.spec, resolved.plan, resolved.split
    base = plan.base
    records: dict[str, Any] = {
        **{key: [name] for key, name in FILES.items()},
        "format": resolved.kind,
        "side": spec.records.side,
    }
    if spec.records.files:
        records["split"] = "randomized"
    if _is_grouped(resolved):
        records["group_column"] = GROUP_COLUMN
    return {
        "version": VERSION,
        "name": spec.name,
        "run": plan.run,
        "code": code_facts(),
        "base": {
            **spec.base.model_dump(),
            "fingerprint": base.fingerprint,
            "parameters": base.facts.parameters,
        },
        "quantization": "nf4" if plan.method.quantized and not base.facts.saved_as else "none",
        "method": spec.method.model_dump(),
        "trainer": spec.trainer.model_dump(),
        "dpo": None if spec.dpo is None else spec.dpo.model_dump(),
        "seed": spec.seed,
        "workers": plan.workers,
        "privacy": None if plan.privacy is None else plan.privacy.facts(),
        "records": records,
        "split": {
            **spec.split.model_dump(),
            "members": len(split.members),
            "held_out": len(split.held_out),
            "near_repetitions": split.near_repetitions,
            "set_aside": len(resolved.set_aside),
            "members_hash": digest(sorted(r.id for r in split.members)),
            "held_out_hash": digest(sorted(r.id for r in split.held_out)),
        },
        "training": _training_section(resolved),
        **facts,
        "checkpoints": [
            {key: value for key, value in one.items() if key != "run"} for one in checkpoints
        ],
        "files": dict(files),
    }


def _training_section(resolved: ResolvedTraining) -> dict[str, Any]:
    """What an audit says as `training` so that it reads records as this training did."""
    own = resolved.plan.training
    section: dict[str, Any] = {
        "loss_on": own.loss_on,
        "truncate": own.truncate,
        "eos": own.eos,
        "packing": own.packing,
    }
    if own.max_length is not None:
        section["max_length"] = own.max_length
    if not own.special_tokens:
        section["special_tokens"] = False
    if own.system is not None:
        section["system"] = own.system
    if own.template is not None:
        section["template"] = TEMPLATE_FILE
    if own.arguments:
        section["template_arguments"] = own.arguments
    return section


def _is_grouped(resolved: ResolvedTraining) -> bool:
    split = resolved.split
    return any(record.group is not None for record in (*split.members, *split.held_out))


def code_facts() -> dict[str, Any]:
    """Versions and a hash of the code that trains."""
    package = Path(__file__).parents[2]
    sources = sorted(
        file for room in ("prepare", "models", "records") for file in (package / room).rglob("*.py")
    )
    content = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    found = {"hash": content[:32]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
