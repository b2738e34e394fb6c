"""Everything that an audit file names, resolved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa

from raymia.attacks import Attack, NamedAttack
from raymia.attacks.means import Means
from raymia.inputs.modality import Modality
from raymia.models.checkpoint import AnyCheckpoint
from raymia.records.base import RecordSet
from raymia.spec import AuditSpec
from raymia.storage.refusals import sentence
from raymia.util.errors import InputError
from raymia.util.listing import listed

Found = TypeVar("Found")


@dataclass(frozen=True)
class Inputs:
    """Everything an audit file names, resolved.

    Attributes
    ----------
    modality : what is different for other kinds of records, and was resolved for this one alone.
    records : the usable records and those set aside.
    attacks : in the order of the audit file.
    targets : checkpoints and endpoints by name.
    references : checkpoints of references that exist already, by name.
    population, known_members : payloads that are no records, by record id.
    shadow_members : ids of what each shadow was trained on, by its name.
    left_out : why an attack of the default list is not run on a target, by target and label.
    assumed : what the audit file does not say of how targets were trained, each as a sentence.
    noted : what else one should know of records and models before scores are read, likewise.
    means : what attacks have to work with on each target, as far as their kind of records says it.
    written : the audit as the file has it, where targets may be patterns; in ``spec`` each target
        is one checkpoint.
    """

    spec: AuditSpec
    modality: Modality
    records: RecordSet
    attacks: list[NamedAttack]
    targets: Mapping[str, AnyCheckpoint]
    references: Mapping[str, AnyCheckpoint]
    population: Mapping[str, Any]
    shadow_members: dict[str, frozenset[str]]
    known_members: Mapping[str, Any] = field(default_factory=dict)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    means: Mapping[str, Means] = field(default_factory=dict)
    written: AuditSpec | None = None

    @property
    def payloads(self) -> pa.Table:
        """All that a model may be asked about: the records, then the population."""
        records = self.records.table.select(["record_id", "payload"])
        others = [list(self.population), list(self.population.values())]
        return pa.concat_tables([records, pa.table(others, schema=records.schema)])

    def shows_shadows(self, attack: Attack) -> bool:
        """Whether an attack is given the evidence of the audit's shadows."""
        takes = "shadows_if_given" in attack.needs
        return "shadows" in attack.needs or (
            takes and self.modality.tells_labels(self.spec, attack)
        )

    @property
    def fitted_on_labels(self) -> frozenset[str]:
        """The attacks that are fitted on which of the audit's records are members."""
        has_shadows = bool(self.shadow_members)
        return frozenset(a.label for a in self.attacks if a.attack.is_fitted_on_labels(has_shadows))

    def without(self, targets: Collection[str]) -> Inputs:
        """The same with some targets left out."""
        return self.only(name for name in self.targets if name not in targets)

    def only(self, targets: Iterable[str]) -> Inputs:
        """The same with some of the targets, in another order."""
        return replace(self, targets={name: self.targets[name] for name in targets})

    def without_reference(self, target: str, reference: str, why: str) -> Inputs:
        """The same without the attacks on a target that run with a reference."""
        own = {(target, a.label): why for a in self.attacks_on(target) if a.reference == reference}
        return replace(self, left_out={**self.left_out, **own})

    def attacks_on(self, target: str) -> list[NamedAttack]:
        """The attacks that are run on a target."""
        return [a for a in self.attacks if (target, a.label) not in self.left_out]

    def runs(self, attack: NamedAttack) -> bool:
        """Whether an attack is run on any target."""
        return any((target, attack.label) not in self.left_out for target in self.targets)

    def also_as(self, reference: str) -> list[str]:
        """The targets that a reference is itself, as far as their content says."""
        return [
            name
            for name, target in self.targets.items()
            if self.modality.reference_for(self, reference, name).fingerprint == target.fingerprint
        ]

    def left_out_lines(self) -> list[str]:
        """What was left out, for a person to read: one line for each reason and the targets that
        lack the same attacks for it."""
        labels: dict[tuple[str, str], list[str]] = {}
        for (target, label), reason in self.left_out.items():
            labels.setdefault((target, reason), []).append(label)
        targets: dict[tuple[str, str], list[str]] = {}
        for (target, reason), names in labels.items():
            targets.setdefault((", ".join(names), reason), []).append(target)
        return [
            f"target{'s' if len(without) > 1 else ''} {listed(without)}: left out {names}: {reason}"
            for (names, reason), without in targets.items()
        ]


class Problems:
    """Collects what is wrong, so that all of it is reported together."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, action: Callable[..., Found], *args: Any, **kwargs: Any) -> Found | None:
        """Call a function; what it finds wrong is kept, and None returned."""
        try:
            return action(*args, **kwargs)
        except InputError as error:
            self.found += error.problems
        except (OSError, RecursionError) as error:  # of a file that nobody looked at before
            named = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            self.found.append(f"{named}{sentence(error, 'readable')}")
        return None

    def refuse(self) -> None:
        """Raise an error with everything that was found, if anything was."""
        if self.found:
            raise InputError(dict.fromkeys(self.found))
