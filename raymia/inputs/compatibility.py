"""What of the attacks the models of an audit make impossible, found before one is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from raymia.attacks import NamedAttack
from raymia.models.endpoints.model import Endpoint
from raymia.models.source import Checkpoint, read_json
from raymia.questions.registry import families_for, model_needs
from raymia.spec import AuditSpec, MadeReference
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.listing import listed

TOKENIZATION = ("normalizer", "pre_tokenizer", "post_processor", "model")
"""Parts of tokenizer.json that decide which tokens a text becomes. Added tokens are left out: a pad
token that fine-tuning added changes no text, and attacks compare the tokens of each record."""

Tokenizations = dict[str, str | None]
"""What is found of tokenizers, by :attr:`raymia.models.source.Checkpoint.tokenizer`."""

Targets = Mapping[str, Checkpoint | Endpoint | None]


def impossible_attacks(
    spec: AuditSpec,
    attacks: Sequence[NamedAttack],
    targets: Targets,
    references: Mapping[str, Checkpoint],
) -> dict[tuple[str, str], str]:
    """Why an attack cannot be run on a target, by target and label; refused where it is named.

    Raises
    ------
    InputError
        For attacks that the audit file names, and for references that an endpoint would have to
        write.
    """
    reasons: dict[tuple[str, str], str] = {}
    known: Tokenizations = {}
    problems = []
    for name, target in targets.items():
        if target is None:
            continue
        for attack in attacks:
            found = _why_not(spec, attack, target, references, known)
            if found:
                reasons[name, attack.label] = "; ".join(found)
        if isinstance(target, Endpoint):
            problems += [
                f"references.{reference}: a self-prompt reference is made from texts that the "
                f"target writes, and {name!r} is an endpoint, which is asked about given texts only"
                for reference, kind in spec.references.items()
                if isinstance(kind, MadeReference)
            ]
    if spec.attacks is not None:
        problems += [
            f"attacks: {label!r} cannot be run on {target!r}: {reason}"
            for (target, label), reason in reasons.items()
        ]
    if problems:
        raise InputError(problems)
    return reasons


def _why_not(
    spec: AuditSpec,
    named: NamedAttack,
    target: Checkpoint | Endpoint,
    references: Mapping[str, Checkpoint],
    known: Tokenizations,
) -> list[str]:
    needs = model_needs(named.attack, spec.records.kind, target.family)
    if isinstance(target, Endpoint):
        lacking = [why for need, why in target.lacks.items() if need in needs]
        families = families_for(named.attack, spec.records.kind)
        if not lacking and families is not None and target.family not in families:
            return [f"an endpoint does not answer all that it asks: {', '.join(named.attack.asks)}"]
        return lacking
    if "gradients" in needs and target.quantization != "none":
        return [f"{target.quantization} weights have no gradient; audit the checkpoint unquantized"]
    if "token_ids" in needs and named.reference is not None:
        kind = spec.references[named.reference]
        made_from = kind.base if isinstance(kind, MadeReference) else named.reference
        reference = references.get(made_from or "")
        if reference is not None and _tokenizers_differ(target, reference, known):
            return [
                f"it compares target and reference token by token, and the tokenizer of "
                f"{named.reference!r} cuts texts otherwise than the target's"
            ]
    return []


def _tokenizers_differ(one: Checkpoint, other: Checkpoint, known: Tokenizations) -> bool:
    """Whether two checkpoints are known to have different tokenizers."""
    found = set()
    for checkpoint in (one, other):
        content = checkpoint.tokenizer or checkpoint.path
        if content not in known:
            known[content] = _tokenization(checkpoint)
        found.add(known[content])
    return len(found) > 1 and None not in found


def _tokenization(checkpoint: Checkpoint) -> str | None:
    """Hash of what decides how texts are tokenized; None where there is no tokenizer.json."""
    file = Path(checkpoint.path) / "tokenizer.json"
    if checkpoint.gguf_file is not None or not file.is_file():
        return None
    content = read_json(file, checkpoint.label)
    return digest({part: content.get(part) for part in TOKENIZATION})


class HasFingerprint(Protocol):
    """A model whose content is known by its hash."""

    @property
    def fingerprint(self) -> str: ...


def identical_models(
    targets: Mapping[str, HasFingerprint | None], references: Mapping[str, HasFingerprint]
) -> list[str]:
    """Say which references are the target itself, with which nothing can be told."""
    by_content: dict[str, list[str]] = {}
    for target, one in targets.items():
        if one is not None:
            by_content.setdefault(one.fingerprint, []).append(repr(target))
    equal = {name: by_content.get(other.fingerprint, []) for name, other in references.items()}
    return [
        f"reference {reference!r} is the same model as target{'s' if len(alike) > 1 else ''} "
        f"{listed(alike)}: attacks with it can tell nothing there"
        for reference, alike in equal.items()
        if alike
    ]
