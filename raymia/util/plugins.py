"""Code from outside: files and modules that register attacks and questions when they are loaded.

What is registered is known by the class's module. Where an object of such a class arrives in
another process, the code that it is of is loaded there first: a file's source travels with it, and
a module must be installed there with the same content.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest, digest_bytes
from raymia.util.plugin_code import (
    OWN,
    check_module_stands_alone,
    check_stands_alone,
    module_digest,
)

ENTRY_POINTS = "raymia.attacks"
"""The group of entry points of installed packages; each names a module or something in one."""
FILE_SUFFIX = ".py"
NOTHING_REGISTERED = (
    "it registers no attack and no question; put @register above the class of an attack, and "
    "@register_question above that of a question (CONTRIBUTING.md has one of each)"
)
NAME = re.compile(r"[a-z][a-z0-9_]*")
Forget = Callable[[str], None]

_loaded: dict[str, Plugin] = {}
_forgetters: list[Forget] = []
_registered: list[type] = []


@dataclass(frozen=True)
class Plugin:
    """Code from outside. Where it is unpickled, it is loaded.

    Attributes
    ----------
    name : the file's path, or the module's name.
    module : what it is called among the loaded modules.
    digest : hash of the content: of the file, or of the package that the module is in.
    source : the file's content; None for a module.
    """

    name: str
    module: str
    digest: str
    source: bytes | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.name, self.module, self.digest, self.source)


class Portable:
    """Base of what is sent to other processes and may be of a class from outside."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = type(self)
        plugin = plugin_of(kind)
        if plugin is None or "<locals>" in kind.__qualname__:
            return super().__reduce_ex__(protocol)
        return _revive, (plugin, kind.__module__, kind.__qualname__), self.__dict__.copy()


def is_outside(kind: type) -> bool:
    """Whether a class is none of raymia's own."""
    return kind.__module__.partition(".")[0] != OWN


def plugin_of(kind: type) -> Plugin | None:
    """The code that a class from outside is of; None for raymia's own, and for what is typed in at
    a prompt."""
    if not is_outside(kind) or kind.__module__ == "__main__":
        return None
    found = _loaded.get(kind.__module__)
    if found is None:
        found = Plugin(kind.__module__, kind.__module__, module_digest(kind.__module__))
        _loaded[kind.__module__] = found
    return found


def code_digest(kind: type) -> str:
    """Hash the code from outside that a class is made of.

    Raises
    ------
    ValueError
        If it is in no file.
    """
    outside = [
        base
        for base in kind.__mro__
        if is_outside(base) and base.__module__.partition(".")[0] not in sys.stdlib_module_names
    ]
    found = set()
    for base in outside:
        plugin = plugin_of(base)
        if plugin is None:
            raise ValueError(f"{kind.__name__} is in no file, so its code has no hash")
        found.add(plugin.digest)
    if kind.__module__ == "__main__":
        raise ValueError(f"{kind.__name__} is in no file, so its code has no hash; write it to one")
    return digest(sorted(found))


def origin(kind: type) -> str:
    """Where a class comes from, for messages: raymia, a plugin's file, or a module."""
    if not is_outside(kind):
        return OWN
    plugin = _loaded.get(kind.__module__)
    return kind.__module__ if plugin is None else plugin.name


def note_registered(kind: type) -> None:
    """Note that a class is registered: a plugin that registers none is refused."""
    if is_outside(kind):
        _registered.append(kind)


def check_name(title: str, attribute: str, value: Any, pattern: re.Pattern[str] = NAME) -> None:
    """Refuse what is no name, of a class that is registered.

    Raises
    ------
    ValueError
    """
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(
            f"{title}: its {attribute} should be of small letters, digits and _, but is {value!r}"
        )


def check_names(title: str, attribute: str, value: Any, at_least: int = 0) -> None:
    """Refuse what are no names, as a text where a tuple of texts is wanted, and too few of them.

    Raises
    ------
    ValueError
    """
    if isinstance(value, str) or not isinstance(value, Collection) or len(value) < at_least:
        raise ValueError(f"{title}: {attribute} should be names, as ('name',), but is {value!r}")


def unwritten(kind: type) -> str:
    """The names of methods that a class has to define and does not."""
    return ", ".join(f"`{name}`" for name in sorted(getattr(kind, "__abstractmethods__", ())))


def describe_error(error: Exception, kind: type) -> str:
    """What went wrong in a class from outside, and in which line of its file."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f" (line {frame.lineno})" for frame in frames if frame.filename == file]
    return f"{type(error).__name__}: {error}{lines[-1] if lines else ''}"


def on_forget(function: Forget) -> Forget:
    """Have a function called with the name of a module of which nothing is to stay registered; a
    decorator."""
    _forgetters.append(function)
    return function


def is_in(kind: type, module: str) -> bool:
    """Whether a class is in a module, or in one below it."""
    return kind.__module__ == module or kind.__module__.startswith(f"{module}.")


def is_file(name: str) -> bool:
    """Whether the name of a plugin is that of a file."""
    return name.endswith(FILE_SUFFIX) or "/" in name


def load_plugins(names: Iterable[str] = ()) -> tuple[Plugin, ...]:
    """Load those of installed packages, and files and modules by name, each once.

    Raises
    ------
    InputError
        With all that cannot be loaded, or register what cannot be.
    """
    problems: list[str] = []
    found: list[Plugin] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.value):
        try:
            found.append(_load_module(point.module, _title(point)))
        except InputError as error:
            problems += error.problems
    for name in names:
        try:
            found.append(_load_file(name) if is_file(name) else _load_module(name, name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tuple(dict.fromkeys(found))


def _title(point: EntryPoint) -> str:
    package = "" if point.dist is None else f" of the installed package {point.dist.name}"
    return f"{point.value}{package}"


def _load_file(name: str) -> Plugin:
    path = Path(name)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"plugin {name}: the file cannot be read ({error.strerror})") from None
    content = digest_bytes(source)
    stem = "".join(c if c.isalnum() else "_" for c in path.stem)
    plugin = Plugin(str(path.resolve()), f"{OWN}_plugin_{stem}_{content[:12]}", content, source)
    if _loaded.get(plugin.module) != plugin:
        _import(plugin, name)
    return plugin


def _load_module(module: str, title: str) -> Plugin:
    if module in _loaded:
        return _loaded[module]
    _import(Plugin(module, module, ""), title)
    _loaded[module] = Plugin(module, module, module_digest(module))
    return _loaded[module]


def _import(plugin: Plugin, title: str) -> None:
    """Load a plugin; where that fails, nothing of it stays.

    Raises
    ------
    InputError
        Naming it.
    """
    for earlier in [p for p in _loaded.values() if p.name == plugin.name and p != plugin]:
        _forget(earlier.module)
    known = plugin.module in sys.modules
    before = len(_registered)
    try:
        if plugin.source is None:
            check_module_stands_alone(plugin.module)
            importlib.import_module(plugin.module)
        else:
            check_stands_alone(plugin.source, Path(plugin.name))
            _execute(plugin)
        if len(_registered) == before and not _has_registered(plugin.module):
            raise ValueError(NOTHING_REGISTERED)
    except (Exception, SystemExit) as error:
        if not known:
            _forget(plugin.module)
        raise InputError(f"plugin {title}: {_why(error, plugin)}") from error


def _execute(plugin: Plugin) -> None:
    """Run a file's source as a module."""
    assert plugin.source is not None
    module = ModuleType(plugin.module)
    module.__file__ = plugin.name
    sys.modules[plugin.module] = module
    _loaded[plugin.module] = plugin
    exec(compile(plugin.source, plugin.name, "exec"), module.__dict__)


def _has_registered(module: str) -> bool:
    """Whether a module that was loaded has classes that were registered before: in itself, or from
    elsewhere."""
    names = vars(sys.modules[module]).values()
    return any(is_in(kind, module) or kind in names for kind in _registered)


def _forget(module: str) -> None:
    for forget in _forgetters:
        forget(module)
    _registered[:] = [kind for kind in _registered if not is_in(kind, module)]
    _loaded.pop(module, None)
    sys.modules.pop(module, None)


def _why(error: Exception | SystemExit, plugin: Plugin) -> str:
    """What went wrong, and where in the plugin."""
    if isinstance(error, SystemExit):
        return "it ends Python by sys.exit; a plugin is imported"
    if isinstance(error, SyntaxError):
        return f"not valid Python: {error.msg} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = (Path(__file__).parents[1], Path(importlib.__file__).parent)
    lines = [f"line {frame.lineno}" for frame in frames if frame.filename == plugin.name] or [
        f"{path.name} line {frame.lineno}"
        for frame in frames
        if (path := Path(frame.filename)).exists()
        and not any(path.is_relative_to(folder) for folder in own)
    ]
    place = f" ({lines[-1]})" if lines else ""
    if isinstance(error, ValueError):  # what registering refuses says it by itself
        return f"{error}{place}"
    return f"cannot be imported: {type(error).__name__}: {error}{place}"


def _arrive(name: str, module: str, expected: str, source: bytes | None) -> Plugin:
    """Load a plugin that was sent to this process."""
    plugin = Plugin(name, module, expected, source)
    if _loaded.get(module) == plugin:
        return plugin
    try:
        _import(plugin, name)
        found = plugin.digest if source is not None else module_digest(module)
    except InputError as error:
        raise RaymiaError(f"{error}; install it on every machine") from error
    if found != expected:
        raise RaymiaError(
            f"plugin {name}: this machine has other code than the audit was planned with; install "
            "the same on every machine"
        )
    _loaded[module] = plugin
    return plugin


def _revive(plugin: Plugin, module: str, qualified_name: str) -> Any:
    """An object of a plugin's class, still without its state."""
    del plugin  # loaded when it arrived
    kind: Any = importlib.import_module(module)
    for part in qualified_name.split("."):
        kind = getattr(kind, part)
    return kind.__new__(kind)
