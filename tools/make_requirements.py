"""Write requirements/: what raymia needs where only texts or only images are audited, and in all.

    python tools/make_requirements.py requirements        # `make requirements`

Extras only add to what `pip install raymia` brings, so an install that leaves something out goes by
these lists and `pip install --no-deps`. All of it comes from pyproject.toml.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = "# Made from pyproject.toml by `make requirements`. docs/install.md says how to use it.\n"
LEFT_OUT_BY = ("text", "images", "quantized")
"""Extras whose packages the lists of the others leave out."""


def requirement_lists(pyproject: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """The content of each file of requirements/, by its name."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    whole = set(project["dependencies"])
    core = whole - {package for extra in LEFT_OUT_BY for package in extras[extra]}
    others = {package for extra in ("gguf", "s3", "sweep", "train") for package in extras[extra]}
    lists = {
        "text.txt": core | set(extras["text"]),
        "images.txt": core | set(extras["images"]),
        "all.txt": whole | others,
    }
    return {name: HEAD + "".join(f"{line}\n" for line in sorted(lists[name])) for name in lists}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, content in requirement_lists().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
