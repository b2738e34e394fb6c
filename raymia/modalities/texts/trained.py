"""How targets and references of an audit of texts read its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymia.inputs.base import Problems
from raymia.modalities.texts.resolve_training import resolve_training
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Training
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.resolver import Endpoint
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
    ) -> tuple[Training | None, dict[tuple[str, str], CausalCheckpoint], list[str]]:
        """Put into targets and references how they read records.

        Returns
        -------
        How the first target was trained; the references as they read records for targets that were
        trained otherwise, by their name and the target's; and what is assumed of any.
        """
        assumed: list[str] = []
        found: dict[str, Training | None] = {}
        base = references.get("base")
        for place, written in zip(places, self.spec.targets, strict=True):
            name, checkpoint = written.name, targets.get(written.name)
            if isinstance(written, EndpointTarget) and written.tokenizer is None:
                if self.kind != "text" or (written.training or self.spec.training) is not None:
                    problems.found.append(
                        f"{place}.tokenizer: records of the format {self.kind}, read as a training "
                        "did, are sent to an endpoint as tokens; name the served model's tokenizer"
                    )
                continue
            if not isinstance(checkpoint, CausalCheckpoint | Endpoint):
                continue
            assert isinstance(written, TargetSpec | EndpointTarget)
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
        scored = {None if own is None else own.changed_parts for own in found.values()}
        if len(scored) > 1 and self.spec.neighbors is not None:
            other = next(name for name, own in found.items() if own != training)
            problems.found.append(
                f"training: {other!r} was trained on other parts of the records than "
                f"{next(iter(found))!r}, and neighbors change one choice of parts alone; audit "
                "them apart"
            )
        otherwise = {
            (name, target): reference.read_as(own, self.once)
            for name, reference in references.items()
            for target, own in found.items()
            if isinstance(reference, CausalCheckpoint) and own != training
        }
        for name, reference in references.items():
            if isinstance(reference, CausalCheckpoint) and training is not None:
                references[name] = reference.read_as(training, self.once)
        return training, otherwise, list(dict.fromkeys(assumed))
