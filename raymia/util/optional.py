"""Packages that only some audits need: imported where they are used, and asked for by name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

from raymia.util.errors import InputError

_DISTRIBUTIONS = {
    "PIL": "pillow",
    "compressed_tensors": "compressed-tensors",
    "mlflow": "mlflow-skinny",
}
"""Names that a package is installed by, where they are not those that it is imported by."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported for that."""
    return importlib.util.find_spec(package) is not None


def require(package: str, needed_by: str, where: str | None = None) -> None:
    """Refuse what takes a package that is not installed.

    Parameters
    ----------
    package : as it is imported.
    needed_by : what takes it, in the plural, such as "adapters".
    where : the key of the audit file that asks for it, where there is one.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    if is_installed(package):
        return
    name = _DISTRIBUTIONS.get(package, package)
    key = "" if where is None else f"{where}: "
    raise InputError(
        f"{key}{name} is not installed here, and {needed_by} need it; install it with "
        f"`{install_command(package)}`"
    )


def install_command(package: str) -> str:
    """The command of pip that installs a package in the versions that raymia takes."""
    name = _DISTRIBUTIONS.get(package, package)
    return f"pip install '{name}{_versions(name)}'"


def _versions(name: str) -> str:
    """The range of versions that raymia's own metadata asks for."""
    try:
        wanted = importlib.metadata.requires("raymia") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    for requirement in wanted:
        found = re.match(rf"{re.escape(name)}\s*([<>=!~][^;]*)", requirement, re.IGNORECASE)
        if found:
            return found[1].strip()
    return ""
