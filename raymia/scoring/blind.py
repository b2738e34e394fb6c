"""Guessers that see no target, asked about an audit's records; and what attacks add to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks.base import Scores
from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.metrics.comparison import holm
from raymia.metrics.delong import (
    FEWEST_COMPARED,
    auc_variance,
    beyond_placements,
    difference_of,
    placements,
)
from raymia.metrics.roc import BoolArray
from raymia.metrics.summary import Estimate
from raymia.plan.stages import TargetPlan
from raymia.questions.registry import model_evidence
from raymia.records.base import RecordSet
from raymia.scoring.evidence import units
from raymia.scoring.parts import ScoreParts
from raymia.shift.check import (
    Blind,
    KnownRecords,
    check_shift,
    not_checked,
    sampled_rows,
)
from raymia.shift.result import ExcessOverBlind
from raymia.util.column import ChosenRows


def ask_blind(inputs: Inputs, store: EvidenceStore, plans: Sequence[TargetPlan]) -> Blind:
    """Check whether members and non-members come from one distribution, unless it is switched off,
    and look for copies on one side.

    No model is asked anything: of references, what is stored is used.

    Parameters
    ----------
    plans : after the run.
    """
    spec = inputs.spec.shift
    if spec.enabled:
        found = check_shift(
            _known_records(inputs, store, plans),
            error_rate=spec.error_rate,
            seed=inputs.spec.seed,
            confidence=inputs.spec.metrics.confidence,
        )
    else:
        off = "it is switched off in the audit file"
        found = not_checked(_known_records(inputs, store, ()), spec.error_rate, off)
    if inputs.spec.records.split is None:
        return found
    stated = found.check.model_copy(update={"split": inputs.spec.records.split})
    return replace(found, check=stated)


def excess_over_blind(
    inputs: Inputs, plans: Sequence[TargetPlan], parts: ScoreParts, blind: Blind
) -> list[ExcessOverBlind]:
    """Compare every attack with the strongest guesser, on the records that both scored.

    The test is DeLong's, with what the guesser's AUC scatters beyond DeLong's variance added: it is
    fitted across folds. Where fewer than `FEWEST_COMPARED` members or non-members have both scores
    nothing is said.

    Parameters
    ----------
    plans : of the targets whose scores are in ``parts``.
    """
    guesser = blind.check.strongest
    if guesser is None:
        return []
    confidence = inputs.spec.metrics.confidence
    table = inputs.records.table
    is_member = pc.fill_null(table["is_member"], False).to_numpy()
    guesses = np.full(table.num_rows, np.nan)
    rows = RowIndex(table["record_id"]).rows_of(pa.array(list(blind.scores), pa.string()))
    guesses[rows[rows >= 0]] = np.array(list(blind.scores.values()))[rows >= 0]
    found: list[ExcessOverBlind] = []
    fitted = inputs.fitted_on_labels
    pairs = [(plan.name, named.label) for plan in plans for named in inputs.attacks_on(plan.name)]
    for target, attack in pairs:
        values = parts.column(target, attack)
        both = np.isfinite(guesses) & np.isfinite(values)
        own, other, members = values[both], guesses[both], is_member[both]
        if min(members.sum(), (~members).sum()) < FEWEST_COMPARED:
            continue
        of_attack, of_guesser = placements(own, members), placements(other, members)
        beyond = (blind.wider**2 - 1.0) * auc_variance(of_guesser)
        if attack in fitted:
            beyond += beyond_placements(of_attack)
        excess = difference_of(of_attack, of_guesser, confidence=confidence, beyond=beyond)
        found.append(
            ExcessOverBlind(
                target=target,
                attack=attack,
                guesser=guesser.name,
                n_members=int(members.sum()),
                n_non_members=int((~members).sum()),
                attack_auc=of_attack.auc,
                guesser_auc=of_guesser.auc,
                excess=Estimate(value=excess.value, low=excess.low, high=excess.high),
                p_value=excess.p_value,
                corrected_p_value=excess.p_value,
                confidence=confidence,
            )
        )
    corrected = holm(np.array([entry.p_value for entry in found]))
    return [
        entry.model_copy(update={"corrected_p_value": float(p)})
        for entry, p in zip(found, corrected, strict=True)
    ]


def looked_at(inputs: Inputs) -> BoolArray:
    """The members and non-members that are searched for copies, [records]; guessers are asked about
    these, or some of them."""
    column = inputs.records.table["is_member"]
    given = np.flatnonzero(column.is_valid().to_numpy())
    is_member = column.drop_null().to_numpy().astype(np.bool_)
    is_chosen = np.zeros(len(column), np.bool_)
    chosen = sampled_rows(is_member, inputs.spec.shift.sample, inputs.spec.seed)
    is_chosen[given[chosen]] = True
    return is_chosen


def _known_records(
    inputs: Inputs, store: EvidenceStore, plans: Sequence[TargetPlan]
) -> KnownRecords:
    table, rows = inputs.records.table, np.flatnonzero(looked_at(inputs))
    known = table.select(["record_id", "is_member", "group"]).take(pa.array(rows))
    ids = known["record_id"].to_pylist()
    # Images may be larger than the memory.
    payloads = ChosenRows(table["payload"], rows)
    readings = inputs.modality.readings()
    seen = {choice: own.for_guessers(payloads) for choice, own in readings.items()}
    # The fewest words: records that are copies in them are so in what a target is scored on.
    least = min(seen, key=lambda choice: sum(map(len, seen[choice][0])))
    texts, images = seen.pop(least)
    return KnownRecords(
        ids=ids,
        is_member=known["is_member"].to_numpy().astype(np.bool_),
        units=units(RecordSet(known)),
        texts=texts,
        images=images,
        prompts=readings[least].unscored(payloads),
        otherwise={choice: own for choice, (own, _) in seen.items() if own != texts},
        references=dict(_alone(inputs, store, plans, ids)),
        left_out=table["is_member"].drop_null().length() - known.num_rows,
    )


def _alone(
    inputs: Inputs, store: EvidenceStore, plans: Sequence[TargetPlan], ids: Sequence[str]
) -> Iterator[tuple[str, Scores]]:
    """The loss under each reference that exists already, and is no target, as a score; once for
    each way in which targets have it read."""
    modality, kinds = inputs.modality, inputs.spec.references
    blind = {n for n in inputs.references if kinds[n].kind == "model" and not inputs.also_as(n)}
    found: dict[str, set[str]] = {}
    stages = [(plan.name, *named) for plan in plans for named in plan.references.items()]
    for target, name, stage in stages:
        if name not in blind:
            continue
        content = modality.reference_for(inputs, name, target).fingerprint
        read_so = found.setdefault(name, set())
        label = f"{name}, read as for {target}" if read_so else name
        answers = [
            (planned.label, planned.question, store.read(planned.key, records=ids))
            for planned in stage.questions
            if planned.label == modality.loss_question and content not in read_so
        ]
        if answers:
            read_so.add(content)
            evidence = model_evidence(inputs.spec.records.kind, answers, ids)
            yield label, modality.score_by_loss(evidence)
