"""The settings of an audit file by their paths."""

from __future__ import annotations

from typing import Any


def by_path(value: Any, path: str = "") -> dict[str, str]:
    """The values of nested mappings by their paths; entries of a list by their name or place.

    Examples
    --------
    >>> by_path({"seed": 1, "targets": [{"name": "tuned", "model": "a"}]})
    {'seed': '1', 'targets[tuned].name': 'tuned', 'targets[tuned].model': 'a'}
    """
    if isinstance(value, dict) and value:
        pairs = {f"{path}.{key}" if path else str(key): item for key, item in value.items()}
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        names = [item.get("name") if isinstance(item, dict) else None for item in value]
        pairs = {
            f"{path}[{number if name is None else name}]": item
            for number, (name, item) in enumerate(zip(names, value, strict=True))
        }
    else:
        return {} if value is None or not path else {path: str(value)}
    return {
        key: text for place, item in pairs.items() for key, text in by_path(item, place).items()
    }
