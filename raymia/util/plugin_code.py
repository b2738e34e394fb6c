"""What the code of a plugin is: its content, and what it takes from beside itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from raymia.util.hashing import digest, digest_file

OWN = __name__.partition(".")[0]


def check_stands_alone(source: bytes, file: Path) -> None:
    """Refuse a file that imports what lies beside it: its hash does not cover that, and where the
    file is sent, it is not.

    Raises
    ------
    ValueError
        Naming what it imports.
    SyntaxError
        If the file is not valid Python.
    """
    for line, name in _imported(ast.parse(source, str(file))):
        if _is_beside(name, file):
            raise ValueError(
                f"line {line} imports {name!r}, which lies beside it: its code is not sent along, "
                "and evidence would not be asked again when it changes. Write all into one file, "
                "or put it into a package, which has an __init__.py, and name its module"
            )


def check_module_stands_alone(module: str) -> None:
    """See :func:`check_stands_alone`. A module in a package stands with all of it."""
    try:
        spec = package_spec(module)
    except (ValueError, ModuleNotFoundError):
        return  # to import it says so
    if spec.submodule_search_locations is None and str(spec.origin).endswith(".py"):
        file = Path(str(spec.origin))
        check_stands_alone(file.read_bytes(), file)


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines, and the outermost modules that they import; "." for what is imported relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." if node.level else str(node.module).partition(".")[0]


def _is_beside(name: str, file: Path) -> bool:
    if name in sys.stdlib_module_names or name == OWN:
        return False
    folder = file.parent.resolve()
    installed = any(folder.glob("*.dist-info"))  # then all that is installed lies beside it
    if not installed and ((folder / f"{name}.py").is_file() or any((folder / name).glob("*.py"))):
        return True
    if name == ".":
        return True
    spec = find_spec(name)
    own = (spec and spec.submodule_search_locations) or ()
    return any(folder.is_relative_to(Path(place).resolve()) for place in own)


def module_digest(module: str) -> str:
    """Hash the files of the package that a module is in; of the module where it is in none.

    Raises
    ------
    ValueError
        If it is in no file.
    """
    spec = package_spec(module)
    if spec.submodule_search_locations is None:
        if spec.origin is None or not Path(spec.origin).is_file():
            raise ValueError(f"the module {module} is in no file, so its code has no hash")
        return digest_file(Path(spec.origin))
    return digest(dict(_package_files(spec.submodule_search_locations)))


def package_spec(module: str) -> ModuleSpec:
    """The outermost package of a module that is no namespace for others."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:count]))
        if spec is not None and spec.origin is not None:
            return spec
    raise ValueError(f"the module {module} is in no file, so its code has no hash")


def _package_files(folders: Iterable[str]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(folder).as_posix(), digest_file(file)
