"""What a job on a cluster needs of an audit: its file, and the files that lie beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raymia.spec.file import read_spec
from raymia.spec.paths import is_url, with_paths
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_file
from raymia.util.plugins import is_file

MAX_BYTES = 100 * 2**20
"""More does not belong into a job's working directory, which Ray keeps in memory."""
AUDIT_FILE = "audit.yaml"


@dataclass(frozen=True)
class Package:
    """The files of an audit that go with its job.

    Attributes
    ----------
    files : where each file is, by its name in the job's working directory.
    plugins : the job's, which its audit file does not name; a file is one of ``files``.
    digest : hash of the names and contents.
    """

    files: dict[str, Path]
    plugins: tuple[str, ...]
    digest: str

    def write(self, folder: Path) -> None:
        """Copy the files into a folder."""
        for name, file in self.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def pack(audit_file: Path, plugins: Sequence[str] = ()) -> Package:
    """Gather an audit file and what it names by relative paths.

    Records and other data go along, so that they are found where the audit file says. Weights do
    not: a cluster reads them from a shared folder, object storage or the hub. Nor can the store and
    the output be in a working directory, which Ray deletes after the job.

    Parameters
    ----------
    plugins : as in :func:`raymia.spec.file.load_spec`; files go along, wherever they are.

    Raises
    ------
    InputError
        With every problem found.
    """
    spec, folder = read_spec(audit_file, plugins), audit_file.resolve().parent
    problems: list[str] = []
    named: dict[str, Path] = {}

    def data(path: str) -> str:
        if _is_relative(path):
            named[path] = folder / path
        return path

    def weights(path: str) -> str:
        if path.startswith(("./", "../")) or (_is_relative(path) and (folder / path).exists()):
            problems.append(
                f"{audit_file}: {path} is a folder of weights beside the audit file, which a job "
                "does not carry to the cluster; give an absolute path that every machine sees, an "
                "s3:// URL or a hub name"
            )
        return path

    with_paths(spec, data, weights)
    for key, path in (("store", spec.store), ("output", spec.output)):
        named.pop(path, None)
        if _is_relative(path):
            problems.append(
                f"{audit_file}: {key} is {path}, which would be in the job's working directory, "
                "and Ray deletes that after the job; give an absolute path that every machine "
                "sees, or a URL such as s3://bucket/folder"
            )
    files = {AUDIT_FILE: audit_file}
    for path, place in named.items():
        if not place.exists():
            problems.append(f"{audit_file}: {path}: no such file")
        elif not place.resolve().is_relative_to(folder):
            problems.append(
                f"{audit_file}: {path} is not below the audit file's folder, so a job cannot carry "
                "it; give an absolute path that every machine sees, or a URL"
            )
        inside = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
        files |= {os.path.relpath(file, folder): file for file in inside}
    given = {
        f"plugin-{number}/{Path(name).name}": Path(name)
        for number, name in enumerate(plugins, start=1)
        if is_file(name)
    }
    problems += [f"--plugin: {file}: no such file" for file in given.values() if not file.is_file()]
    files |= {name: file for name, file in given.items() if file.is_file()}
    size = sum(file.stat().st_size for file in files.values())
    if size > MAX_BYTES:
        problems.append(
            f"{audit_file}: the files beside it have {size / 2**20:,.0f} MiB, and a job carries "
            f"{MAX_BYTES / 2**20:.0f}; put them into a shared folder or object storage"
        )
    if problems:
        raise InputError(problems)
    names = (*given, *(name for name in plugins if not is_file(name)))
    content = {name: digest_file(file) for name, file in files.items()}
    return Package(files, names, digest({"files": content, "plugins": names}))


def _is_relative(path: str) -> bool:
    return not is_url(path) and not Path(path).expanduser().is_absolute()
