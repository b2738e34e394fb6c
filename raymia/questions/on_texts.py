"""What attacks on texts can have asked of a model, by the names they use for it.

A question's name is the field of :class:`raymia.evidence.text.ModelEvidence` that holds the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from raymia.evidence import text as layout
from raymia.inputs.base import Inputs
from raymia.questions.base import Probe
from raymia.questions.deeper import GradientProbe, PrefixProbe, SampleProbe
from raymia.questions.text import NeighborProbe, TokenProbe
from raymia.questions.variants import LowercaseProbe, NoiseProbe, SwapProbe
from raymia.spec import NoiseSpec, SamplesSpec, SwapsSpec

QUESTIONS = (
    "tokens", "neighbors", "lowercase", "prefixed", "member_prefixed", "swaps", "noise", "gradient",
    "samples",
)  # fmt: skip


def in_order(questions: Iterable[str]) -> list[str]:
    """Each question once, the tokens always and first."""
    wanted = {"tokens", *questions}
    return [question for question in QUESTIONS if question in wanted]


def probes_for(
    inputs: Inputs, questions: Iterable[str], neighbors: tuple[int, str] | None
) -> list[tuple[str, Probe]]:
    """The probes of these questions, by question, in the order in which they are put."""
    return [(q, make_probe(q, inputs, neighbors)) for q in in_order(questions)]


def make_probe(question: str, inputs: Inputs, neighbors: tuple[int, str] | None) -> Probe:
    """The probe of a question, as the audit file sets it up.

    Parameters
    ----------
    neighbors : how many there are per record, and the hash of their key.
    """
    settings, seed = inputs.spec.probes, inputs.spec.seed
    match question:
        case "tokens":
            return TokenProbe()
        case "neighbors":
            assert neighbors is not None
            return NeighborProbe(*neighbors)
        case "lowercase":
            return LowercaseProbe()
        case "prefixed":
            return PrefixProbe(_shots(inputs.population, settings.prefix.shots))
        case "member_prefixed":
            return PrefixProbe(_shots(inputs.known_members, settings.prefix.shots))
        case "swaps":
            return SwapProbe(settings.swaps or SwapsSpec(), seed)
        case "noise":
            return NoiseProbe(settings.noise or NoiseSpec(), seed)
        case "gradient":
            return GradientProbe()
        case "samples":
            return SampleProbe(settings.samples or SamplesSpec(), seed)
    raise ValueError(f"no question {question!r}")


def model_evidence(
    answers: Iterable[tuple[str, Probe, pa.Table | None]], ids: Sequence[str]
) -> layout.ModelEvidence:
    """The answers of one model to its questions, as attacks read them."""
    return layout.ModelEvidence(
        **{question: lay_out(question, probe, table, ids) for question, probe, table in answers}
    )


def lay_out(question: str, probe: Probe, table: pa.Table | None, ids: Sequence[str]) -> Any:
    """The answers to a question, as attacks read them; see :class:`ModelEvidence`."""
    count = len(probe.indices())
    match question:
        case "tokens":
            return layout.token_evidence(table, ids)
        case "neighbors" | "noise":
            return layout.neighbor_evidence(table, ids, count)
        case "lowercase" | "prefixed" | "member_prefixed":
            return layout.record_means(table, ids)
        case "swaps":
            return layout.swap_evidence(table, ids, count)
        case "gradient":
            return layout.gradient_evidence(table, ids)
        case "samples":
            return layout.sample_evidence(table, ids, count)
    raise ValueError(f"no question {question!r}")


def _shots(texts: Mapping[str, str], count: int) -> tuple[str, ...]:
    """The same texts whatever the order of the files: the first by their ids, which are hashes."""
    return tuple(texts[identifier] for identifier in sorted(texts)[:count])
