"""What the registered attacks need and cost, for the terminal and the docs."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from raymia.attacks import Attack, registry
from raymia.attacks.images.base import ImageAttack

COSTS = {
    "tokens": "1", "neighbors": "n", "lowercase": "1", "prefixed": "1", "member_prefixed": "1",
    "swaps": "s", "noise": "2z", "gradient": "1 backward", "samples": "m written",
}  # fmt: skip
"""Queries per text of each question, in the audit file's own counts."""

IMAGE_COSTS = {
    "terms": "t", "neighbors": "s t", "inversion": "i", "inversion_map": "i", "proximal": "1 + p",
    "proximal_normalized": "1 + p", "clean": "c", "captions": "(1 + r) k", "descent": "d backward",
}  # fmt: skip
"""Passes per image of each question: t timesteps and draws or latent draws, s strengths of the
perturbation, i steps of the inversion and back, p, c and k timesteps, r reduced captions, d steps
of the search."""


def attack_tables() -> Group:
    """Every attack on texts and on images."""
    return Group(attack_table("text"), attack_table("image"))


def attack_table(records: str) -> Table:
    """Every attack on a kind of records with its formula, source and cost per record."""
    table = Table(
        "attack", "asks", "score, and where it comes from", show_lines=True,
        title=f"Attacks on {records}s", title_justify="left",
    )  # fmt: skip
    for kind in registry(records).values():
        asks = f"{access(kind)}\n{queries_text(kind)}"
        # Text: the brackets of a formula are no markup.
        table.add_row(Text(label(kind)), asks, Text(f"{kind.formula}\n{kind.source}"))
    return table


def label(kind: type[Attack]) -> str:
    """The name, with @REF where the attack runs with a reference, [@REF] where it may."""
    if kind.calibrates:
        return f"{kind.name}[@REF]"
    return f"{kind.name}@REF" if kind.uses_reference else kind.name


def access(kind: type[Attack]) -> str:
    """The least that an auditor must be able to get from the target."""
    if kind.uses_samples:
        return "generated images"
    if "weights" in kind.needs:
        return "weights"
    if issubclass(kind, ImageAttack):
        return "answers to any input" if kind.asks else "none"
    if "moments" in kind.needs:
        return "distribution of each token"
    return "generated text" if kind.asks == ("samples",) else "log-probabilities"


def queries_text(kind: type[Attack]) -> str:
    """What an attack asks per record, as a formula in the audit file's counts."""
    if not kind.asks:
        return "none of its own"
    each = " + ".join((IMAGE_COSTS if "image" in kind.records else COSTS)[q] for q in kind.asks)
    models = ["target"]
    models += ["reference"] if kind.uses_reference or kind.calibrates else []
    models += ["each shadow"] if kind.uses_shadows else []
    return ", ".join(f"{model} {each}" for model in models)


def probes_text(kind: type[Attack]) -> str:
    """What an attack asks, and what else it needs."""
    needs = [*kind.asks]
    needs += ["population"] if kind.uses_population else []
    needs += ["generated images"] if kind.uses_samples else []
    needs += ["corpus"] if kind.uses_corpus else []
    needs += ["the other attacks' scores"] if kind.combines else []
    return ", ".join(needs)
