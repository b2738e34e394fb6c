"""What the demos share: a folder that is made once, and whose audit is then run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec import ResourcesSpec
from raymia.spec.file import load_spec
from raymia.storage.files import Folder

if TYPE_CHECKING:
    from raymia.engine.on_ray.cluster import Cluster

AUDIT_FILE = "audit.yaml"
Section = tuple[str, dict[str, Any]]
"""A comment, which may have several lines, and the keys of an audit file that it stands above."""


def run_in(
    folder: Path, console: Console, make: Callable[[Cluster], None]
) -> tuple[RunResult, str]:
    """Make a folder's records, models and audit file, and run the audit.

    A folder that has an audit file already is not made again: its audit is run, and asks the models
    for nothing that is stored.

    Parameters
    ----------
    make : makes the folder, its audit file last, so that one which was left half-made is made anew.

    Returns
    -------
    The result, and the folder the report is in.
    """
    from raymia.engine.on_ray.cluster import connected

    audit_file = folder / AUDIT_FILE
    console.print("starting Ray ...", highlight=False)
    with connected(ResourcesSpec()) as cluster:
        if not audit_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(cluster)
        spec = load_spec(audit_file)
        return run_audit(spec, console), spec.output


def write_audit_file(folder: Path, sections: Sequence[Section]) -> None:
    """Write an audit file with comments for whoever starts from it."""
    parts = []
    for comment, section in sections:
        commented = "\n".join(f"# {line}" for line in comment.splitlines())
        parts.append(f"{commented}\n{yaml.safe_dump(section, sort_keys=False)}")
    Folder(str(folder)).write(AUDIT_FILE, "\n".join(parts).encode())
