"""What the demos share: a folder that is made once, and whose audit is then run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from raymia.engine.base import Executor, engine
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec import DEFAULT_ENGINE, EngineKind, ResourcesSpec, with_engine
from raymia.spec.file import load_spec
from raymia.storage.files import Folder

AUDIT_FILE = "audit.yaml"
STORE = "store"
Section = tuple[str, dict[str, Any]]
"""A comment, which may have several lines, and the keys of an audit file that it stands above."""


def run_in(
    folder: Path, console: Console, make: Callable[[Executor], None], kind: EngineKind | None
) -> tuple[RunResult, str]:
    """Make a folder's records, models and audit file, and run the audit.

    A folder that has an audit file already is not made again: its audit is run, and asks the models
    for nothing that is stored.

    Parameters
    ----------
    make : makes the folder, its audit file last, so that one which was left half-made is made anew.
    kind : the engine that all of it is done with; default: the audit file's.

    Returns
    -------
    The result, and the folder the report is in.
    """
    audit_file = folder / AUDIT_FILE
    with engine(
        ResourcesSpec(engine=kind or DEFAULT_ENGINE), str(folder / STORE), console
    ) as start:
        if not audit_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(start())
        spec = with_engine(load_spec(audit_file), kind)
        return run_audit(spec, console), spec.output


def write_audit_file(folder: Path, sections: Sequence[Section]) -> None:
    """Write an audit file with comments for whoever starts from it."""
    parts = []
    for comment, section in sections:
        commented = "\n".join(f"# {line}" for line in comment.splitlines())
        parts.append(f"{commented}\n{yaml.safe_dump(section, sort_keys=False)}")
    Folder(str(folder)).write(AUDIT_FILE, "\n".join(parts).encode())
