"""YAML from outside: whatever is wrong with it is one kind of error, which says where."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from raymia.util.errors import InputError

MAX_NODES = 100_000
"""Keys and values, those counted again that an alias stands for: a few lines of aliases of aliases
stand for billions."""


_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key ``<<``, which stands for the keys of another mapping."""


class _Strict(yaml.SafeLoader):
    """YAML of texts, numbers, lists and mappings; a key that is written twice is refused, of which
    the last would win unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise _error(f"a key should be a text, but got {name!r}; quote it", key)
            if name in seen:
                raise _error(f"the key {name!r} is written twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # a date that is none, a number of 5,000 digits
            raise _error(str(error), node) from None


_Strict.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rsplit(":", 1)[-1] in _KINDS
}
_Strict.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in kinds if not tag.endswith(":timestamp")]
    for sign, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}  # a date is a text: no key takes another


def parse_yaml(text: str, path: Path | str) -> Any:
    """Parse a file's YAML.

    Parameters
    ----------
    path : that messages begin with.

    Raises
    ------
    InputError
        For whatever is no YAML, or is YAML that cannot be taken.
    """
    return deepcopy(_parsed(text, path))


@lru_cache(maxsize=1)  # who asks what kind of file it is, and who reads it, parse it once
def _parsed(text: str, path: Path | str) -> Any:
    try:
        loader = _Strict(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_NODES:
            raise InputError(
                f"{path}: more than {MAX_NODES:,} keys and values, with aliases written out"
            )
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        why = str(error).replace("<unicode string>", PurePosixPath(path).name)
        raise InputError(f"{path}: not valid YAML: {why}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be read") from None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes below one, written out; more than are allowed where one is below itself."""
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _error(why: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)
