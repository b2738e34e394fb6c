"""How targets and references of an audit of texts read its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymia.inputs.base import Problems
from raymia.modalities.texts.resolve_training import resolve_training
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Training
from raymia.models.checkpoint import AnyCheckpoint
from raymia.spec import AuditSpec, EndpointTarget, RecordFormat, TargetSpec, TextRecordsSpec
from raymia.util.once import Once


@dataclass(frozen=True)
class Trained:
    """Finds out how each target was trained, so that targets and references read records alike.

    Attributes
    ----------
    payloads : of some records, on which it is tried.
    """

    spec: AuditSpec
    kind: RecordFormat
    given: TextRecordsSpec
    payloads: list[str]
    once: Once

    def read(
        self,
        places: Sequence[str],
        targets: dict[str, AnyCheckpoint | None],
        references: dict[str, AnyCheckpoint],
        problems: Problems,
    ) -> tuple[Training | None, list[str]]:
        """Put into targets and references how they read records; say how the first target does,
        and what is assumed of any."""
        assumed: list[str] = []
        found: dict[str, Training | None] = {}
        base = references.get("base")
        for place, written in zip(places, self.spec.targets, strict=True):
            name, checkpoint = written.name, targets.get(written.name)
            if isinstance(written, EndpointTarget) and self.kind != "text":
                problems.found.append(
                    f"{place}: an endpoint is sent texts, and these records are of the format "
                    f"{self.kind}; audit the checkpoint itself"
                )
            if not isinstance(checkpoint, CausalCheckpoint) or not isinstance(written, TargetSpec):
                continue
            own = written.training
            one = problems.attempt(
                resolve_training,
                own or self.spec.training,
                self.kind,
                self.given.side,
                checkpoint,
                self.payloads,
                "training" if own is None else f"{place}.training",
                base=base if isinstance(base, CausalCheckpoint) else None,
            )
            found[name] = None if one is None else one.training
            if one is not None:
                assumed += one.assumed
                targets[name] = checkpoint.read_as(one.training, self.once)
        training = next(iter(found.values()), None)
        if len({*found.values()}) > 1 and (references or self.spec.neighbors is not None):
            other = next(name for name, own in found.items() if own != training)
            problems.found.append(
                f"training: {other!r} was trained otherwise than {next(iter(found))!r}, and what "
                "they are compared with can read records in one way alone; audit them apart"
            )
        for name, reference in references.items():
            if isinstance(reference, CausalCheckpoint) and training is not None:
                references[name] = reference.read_as(training, self.once)
        return training, list(dict.fromkeys(assumed))
