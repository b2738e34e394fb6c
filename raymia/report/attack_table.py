"""What the registered attacks need and cost, for the terminal and the docs."""

from __future__ import annotations

import re
from dataclasses import fields

from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymia.attacks import Attack, registry
from raymia.attacks.base import kinds_of_records
from raymia.questions.base import ACCESS
from raymia.questions.registry import costs, questions_of

NEEDS_SHOWN = {
    "population": "population",
    "generated_images": "generated images",
    "corpus": "corpus",
    "other_scores": "the other attacks' scores",
}
"""What attacks need that stands beside what they ask."""


def attack_tables() -> Group:
    """Every attack on each kind of records."""
    return Group(*map(attack_table, kinds_of_records()))


def attack_table(records: str) -> Table:
    """Every attack on a kind of records with its formula, source and cost per record."""
    table = Table(
        "attack", "asks", "score, and where it comes from", show_lines=True,
        title=f"Attacks on {records}s", title_justify="left",
    )  # fmt: skip
    for kind in registry(records).values():
        asks = f"{access(kind, records)}\n{queries_text(kind, records)}"
        # Text: the brackets of a formula are no markup.
        table.add_row(Text(label(kind)), asks, Text(f"{kind.formula}\n{kind.source}"))
    return table


def label(kind: type[Attack]) -> str:
    """The name, with @REF where the attack runs with a reference, [@REF] where it may."""
    if "reference_if_given" in kind.needs:
        return f"{kind.name}[@REF]"
    return f"{kind.name}@REF" if "reference" in kind.needs else kind.name


def access(kind: type[Attack], records: str) -> str:
    """The least that an auditor must be able to get from the target."""
    if "generated_images" in kind.needs:
        return "generated images"
    if "other_scores" in kind.needs:
        return "that of the others"
    found = {question.access for named in questions_of(kind, records) for question in named}
    found |= {"distribution of each token"} if "moments" in kind.needs else set()
    found |= {"weights"} if kind.needs & {"weights", "gradients"} else set()
    return max(found, key=ACCESS.index, default="none")


def queries_text(kind: type[Attack], records: str) -> str:
    """What an attack asks per record, as a formula in the audit file's counts."""
    if not kind.asks:
        return "none of its own"
    cost = costs(records)
    each = " + ".join(cost[question] for question in kind.asks)
    models = ["target"]
    models += ["reference"] if kind.needs & {"reference", "reference_if_given"} else []
    models += ["each shadow"] if "shadows" in kind.needs else []
    return ", ".join(f"{model} {each}" for model in models)


def asks_text(kind: type[Attack]) -> str:
    """What an attack asks, and what else it needs."""
    return ", ".join([*kind.asks, *(text for n, text in NEEDS_SHOWN.items() if n in kind.needs)])


_ENTRY = re.compile(r"    (\w+(?:, \w+)*) : (.*)")
"""A parameter, or several, in a docstring, and what is said of it."""


def parameters(kind: type[Attack]) -> list[tuple[str, str, str]]:
    """Each parameter of an attack with its default and what the docstring says of it."""
    said: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        said |= _said_in(one.__doc__ or "")
    return [
        (field.name, repr(field.default), said.get(field.name, ""))
        for field in fields(kind)
        if field.init
    ]


def _said_in(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.partition("----------\n")[2].splitlines():
        if match := _ENTRY.fullmatch(line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif line.startswith("        ") and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found
