"""What a job on a cluster needs of an audit: its file, and the files that lie beside it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raymia.inputs.checkpoints import in_manifest
from raymia.inputs.modality import modality_of
from raymia.spec.file import read_mapping, read_spec
from raymia.spec.from_training import KEY, trained_on
from raymia.spec.paths import is_url, with_paths
from raymia.storage.remote import filesystem
from raymia.storage.shards import matches, walk
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_file
from raymia.util.plugins import is_file

MAX_BYTES = 100 * 2**20
"""More does not belong into a job's working directory, which Ray keeps in memory."""
AUDIT_FILE = "audit.yaml"
NOT_CARRIED = (
    "beside the audit file, which a job does not carry to the cluster; give an absolute path that "
    "every machine sees"
)
OR_ELSEWHERE = ", an s3:// URL or a hub name"


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

    def write(self, file: Path) -> None:
        """Write the files to a ZIP file, which Ray sends as it is; of a folder it leaves out what
        ignore files in it name, and folders by some names."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as out:
            for name, place in self.files.items():
                out.write(place, name)


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
    problems = _of_a_training(audit_file)
    named: list[str] = []

    def data(path: str) -> str:
        if _is_relative(path):
            named.append(path)
        return path

    def weights(path: str) -> str:
        if path.startswith(("./", "../")) or (_is_relative(path) and (folder / path).exists()):
            problems.append(
                f"{audit_file}: {path} is a folder of weights {NOT_CARRIED}{OR_ELSEWHERE}"
            )
        return path

    def checkpoints(path: str) -> str:
        if _is_relative(path) and _names_folders_beside(folder / path, audit_file):
            problems.append(
                f"{audit_file}: {path} is or names checkpoints {NOT_CARRIED}{OR_ELSEWHERE}"
            )
        else:
            data(path)
        return path

    with_paths(spec, data, weights, checkpoints)
    for key, path in (("store", spec.store), ("output", spec.output)):
        if _is_relative(path):
            named.remove(path)
            problems.append(
                f"{audit_file}: {key} is {path}, which would be in the job's working directory, "
                "and Ray deletes that after the job; give an absolute path that every machine "
                "sees, or a URL such as s3://bucket/folder"
            )
    kind = modality_of(spec.records.kind)
    files = {AUDIT_FILE: audit_file}
    places = {
        path: {
            place: {os.path.relpath(file, folder): file for file in _files_in(place)}
            for place in matches(str(folder / path))
        }
        for path in dict.fromkeys(named)
    }
    own = {
        name: file
        for each in places.values()
        for some in each.values()
        for name, file in some.items()
    }
    is_too_much = _bytes_of(own) > MAX_BYTES
    for path, each in places.items():
        if not each:
            problems.append(f"{audit_file}: {path}: no such file, and no file matches it")
        for place, found in each.items():
            if not is_too_much:  # else tables of any size would be read for nothing
                with suppress(InputError):  # what cannot be read is for the audit to say
                    more = map(Path, kind.named_in(spec.records, place))
                    found |= {os.path.relpath(f, folder): f for f in more if f.is_file()}
            above = [n for n in (os.path.relpath(place, folder), *found) if n.startswith("../")]
            problems += [
                f"{audit_file}: {name} is not below the audit file's folder, so a job cannot "
                "carry it; give an absolute path that every machine sees, or a URL"
                for name in above[:1]
            ]
            files |= found
    given = {
        f"plugin-{number}/{Path(name).name}": Path(name)
        for number, name in enumerate(plugins, start=1)
        if is_file(name)
    }
    problems += [f"--plugin: {file}: no such file" for file in given.values() if not file.is_file()]
    files |= {name: file for name, file in given.items() if file.is_file()}
    size = _bytes_of(files)
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


def _of_a_training(audit_file: Path) -> list[str]:
    """What is wrong where the audit is of a training whose folder the audit file names by a
    relative path, or lies in."""
    content = read_mapping(audit_file, "audit file", "name one")
    if trained_on(content) is not None:
        return [
            f"{audit_file} is the manifest of a training, whose checkpoints a job does not carry "
            f"to the cluster; submit an audit file with `{KEY}:` and an absolute path that every "
            "machine sees"
        ]
    named = content.get(KEY)
    if not isinstance(named, str) or not _is_relative(named):
        return []
    return [f"{audit_file}: {KEY} is {named}, a training {NOT_CARRIED}"]


def _names_folders_beside(table: Path, audit_file: Path) -> bool:
    """Whether a table of checkpoints, unlike the manifest of a training, has a relative path."""
    if not table.is_file():
        return True
    entries, _, _ = in_manifest(str(table), f"{audit_file}: targets")
    return any(place.startswith(f"{table.parent}/") for _, place in entries)


def _files_in(place: str) -> list[Path]:
    """The file itself, or those of a folder that are not hidden, of which none is read."""
    found = (Path(name) for name in walk(*filesystem(place)))
    return [f for f in found if not any(n.startswith(".") for n in f.relative_to(place).parts)]


def _bytes_of(files: Mapping[str, Path]) -> int:
    return sum(file.stat().st_size for file in files.values())


def _is_relative(path: str) -> bool:
    return not is_url(path) and not Path(path).expanduser().is_absolute()
