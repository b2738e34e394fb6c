"""What the scripts that `ray job submit` runs have in common."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from raymia.cli.audit_file import read_audit_file
from raymia.cli.main import EXIT_FAILED, exit_code
from raymia.spec import AuditSpec, EngineKind
from raymia.util.credentials import say
from raymia.util.errors import RaymiaError

WORKING_DIRS = "working_dir_files"
"""Ray unpacks a job's working directory below a folder of this name, and deletes it afterwards."""


def run_job(
    job: Callable[..., int],
    arguments: Sequence[str] | None,
    command: Callable[..., Any] | None = None,
) -> int:
    """Give a job the arguments of its script, and return its exit code.

    Parameters
    ----------
    arguments : default: those of this process.
    command : of the command line, whose arguments and options the script takes; default: those
        that the job's own signature has.
    """

    @wraps(command or job)
    def run(**given: Any) -> None:
        raise typer.Exit(job(**given))

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(run)
    try:
        app(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    raise AssertionError("a command ends by exiting")


def read_job_file(
    file: Path, plugin: list[str] | None = None, engine: EngineKind | None = None, **_: Any
) -> AuditSpec:
    """Read a job's audit file as its command does; warns of folders that will be lost.

    Parameters
    ----------
    plugin, engine : options of the command; its others are of no concern here.
    """
    spec = read_audit_file(file, plugin, engine)
    for warning in lost_folders(spec):
        say(f"warning: {warning}")
    return spec


def lost_folders(spec: AuditSpec) -> list[str]:
    """Warn of folders that Ray deletes with the job's working directory."""
    return [
        f"{key} is {url}, which is in the job's working directory: Ray deletes it after the job. "
        f"Give {key} an absolute path that every node shares, or a URL such as s3://bucket/folder"
        for key, url in (("store", spec.store), ("output", spec.output))
        if "://" not in url and WORKING_DIRS in Path(url).parts
    ]


@dataclass
class Ending:
    """How a job ended: its exit code, and what a person should know."""

    problems: list[str] = field(default_factory=list)
    code: int = 0


@contextmanager
def ending() -> Iterator[Ending]:
    """Turn what is raised in the block into problems and an exit code, and print the problems.

    The summary of the job is to be printed afterwards: it then comes last in the job's log.
    """
    end = Ending()
    try:
        yield end
    except RaymiaError as error:
        end.problems, end.code = str(error).splitlines(), exit_code(error)
    except Exception as error:
        traceback.print_exc()
        end.problems, end.code = [f"{type(error).__name__}: {error}"], EXIT_FAILED
    for problem in end.problems:
        say(f"raymia: {problem}", sys.stderr)
    sys.stderr.flush()  # the log of a job has both streams
