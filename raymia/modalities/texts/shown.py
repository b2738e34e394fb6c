"""What a run found about texts beyond scores: a few records, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymia.attacks import NamedAttack
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.metrics.summary import Metrics
from raymia.modalities.texts.pieces import pieces_of
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.resolver import Endpoint
from raymia.models.tokenizers import tokenizer_of
from raymia.plan.stages import Stage, TargetPlan
from raymia.questions.text import TokenQuestion
from raymia.results.text_result import TextExample, TextPiece
from raymia.scoring.exposed import Leaders, ScoreColumns, shown_records

MAX_TOKENS = 300
MAX_CHARACTERS = 2_000
"""Of what is scored; more is left out, whichever comes first."""
MAX_END = 200
"""Characters of each end of what stands between, and of the beginning of what a training cut off;
fewer where more than a few turns stand between."""
COLUMNS = ["token_ids", "log_prob", "mean_log_prob", "error"]
DIGITS = 3


@dataclass(frozen=True)
class _Answer:
    """What a model said of one text's tokens; a column that it does not give is empty."""

    token_ids: list[int]
    log_prob: list[float]
    mean_log_prob: list[float]


def look_at_texts(
    inputs: Inputs,
    store: EvidenceStore,
    plans: Sequence[TargetPlan],
    scores: ScoreColumns,
    metrics: Sequence[Metrics],
) -> list[TextExample]:
    """Show the records that an auditor looks at first, on at most three targets.

    Which records these are is in :func:`raymia.scoring.exposed.shown_records`. Tokens are compared
    with the leading attack's reference, with another reference where it has none, or with what the
    target itself expects at each place.

    Parameters
    ----------
    plans : after the run, of targets that have scores.
    scores : of all targets.
    metrics : of these scores.
    """
    leaders = Leaders(inputs, [plan.name for plan in plans], metrics)
    examples: list[TextExample] = []
    for plan in plans:
        if plan.name in leaders.shown:
            leader = leaders.on(plan.name, scores)
            examples += _examples(inputs, store, plan, leader, scores)
    return examples


def _examples(
    inputs: Inputs,
    store: EvidenceStore,
    plan: TargetPlan,
    leader: NamedAttack,
    scores: ScoreColumns,
) -> Iterator[TextExample]:
    shown = list(shown_records(inputs, plan.name, leader, scores.column(plan.name, leader.label)))
    ids = [one.card["record_id"] for one in shown]
    own = _answers(plan.target, store, ids)
    compared = {name: _answers(stage, store, ids) for name, stage in plan.references.items()}
    order = dict.fromkeys([leader.reference, *compared])
    tokenizer = _tokenizer(inputs.targets[plan.name])
    for one, record in zip(shown, ids, strict=True):
        text = inputs.records.table["payload"][one.row].as_py()
        answer = own.get(record)
        reference = next(
            (n for n in order if n is not None and _comparable(answer, compared[n].get(record))),
            None,
        )
        typical = None if reference is None else compared[reference][record].log_prob
        training = getattr(inputs.targets[plan.name], "training", None)
        plain = training is None and tokenizer is not None and answer is not None
        spans = _spans(tokenizer, text, answer) if plain else None
        if training is not None and tokenizer is not None:
            found = [] if answer is None else [*map(_number, answer.log_prob)]
            usual = [] if answer is None else [*map(_number, typical or answer.mean_log_prob)]
            pieces = pieces_of(tokenizer, training, text, found, usual)
        elif answer is None or spans is None:
            pieces = [TextPiece(text=text)]
        else:
            pieces = _pieces(text, spans, answer.log_prob, typical or answer.mean_log_prob)
        kept, cut = cut_to(pieces, MAX_TOKENS, MAX_CHARACTERS)
        yield TextExample(**one.card, pieces=kept, cut=cut, reference=reference)


def _answers(stage: Stage, store: EvidenceStore, ids: Sequence[str]) -> dict[str, _Answer]:
    """What a stage's model said of the tokens of some records."""
    asked = [planned.key for planned in stage.questions if planned.key.kind == TokenQuestion.kind]
    table = store.read(asked[0], COLUMNS, records=ids) if asked else None
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    return {
        row["record_id"]: _Answer(*(row[name] or [] for name in COLUMNS[:3]))
        for row in rows
        if row["error"] is None
    }


def _comparable(answer: _Answer | None, other: _Answer | None) -> bool:
    """Whether two models read a text as the same tokens."""
    if answer is None or other is None or not answer.token_ids:
        return False
    return answer.token_ids == other.token_ids


def _tokenizer(checkpoint: AnyCheckpoint) -> Any:
    """A checkpoint's tokenizer, if it says where in a text its tokens stand; loads no model."""
    if isinstance(checkpoint, Endpoint) and checkpoint.tokenizer is not None:
        return tokenizer_of(checkpoint)
    if not isinstance(checkpoint, CausalCheckpoint):
        return None
    tokenizer = tokenizer_of(checkpoint)
    return tokenizer if tokenizer.is_fast else None


def _spans(tokenizer: Any, text: str, answer: _Answer | None) -> list[tuple[int, int]] | None:
    """Where the first token and the scored ones stand, in characters; None where the tokenizer
    reads the text as other tokens than those that were scored."""
    if answer is None:
        return None
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    scored = len(answer.log_prob)
    if list(encoded["input_ids"][1 : 1 + scored]) != answer.token_ids:
        return None
    return [tuple(span) for span in encoded["offset_mapping"][: 1 + scored]]


def _pieces(
    text: str,
    spans: Sequence[tuple[int, int]],
    log_prob: Sequence[float],
    typical: Sequence[float],
) -> list[TextPiece]:
    """Cut a text at the ends of its tokens; what lies between two tokens goes to the later one."""
    known = len(typical) == len(log_prob)
    pieces, at = [], 0
    for place, (_, end) in enumerate(spans):
        end = max(at, end)
        if end > at:
            scored = place > 0
            pieces.append(
                TextPiece(
                    text=text[at:end],
                    log_prob=_number(log_prob[place - 1]) if scored else None,
                    typical=_number(typical[place - 1]) if scored and known else None,
                )
            )
        at = end
    return [*pieces, TextPiece(text=text[at:])] if at < len(text) else pieces


def _number(value: float) -> float | None:
    return round(value, DIGITS) if np.isfinite(value) else None


def cut_to(
    pieces: Sequence[TextPiece], tokens: int, characters: int
) -> tuple[list[TextPiece], int]:
    """Keep the beginning of what is scored, both ends of what stands between, and the beginning of
    what a training cut off.

    Parameters
    ----------
    tokens, characters : of what is scored, whichever comes first.

    Returns
    -------
    The pieces that are kept, each with how many characters are left out after it, and how many
    are left out after the last.
    """
    between = sum(piece.part == "context" for piece in pieces)
    end = max(1, min(MAX_END, characters // (2 * between or 1)))
    room = {"scored": characters, "cut": MAX_END}
    kept: list[TextPiece] = []
    for piece in pieces:
        text, part = piece.text, piece.part
        if part == "context" and len(text) > 2 * end:
            left_out = len(text) - 2 * end
            kept.append(piece.model_copy(update={"text": text[:end], "left_out": left_out}))
            kept.append(TextPiece(text=text[-end:], part="context"))
        elif part == "context":
            kept.append(piece)
        else:
            begun = text[: room[part]] if part == "cut" or tokens else ""
            if room[part] and (part == "cut" or tokens):
                kept.append(piece.model_copy(update={"text": begun}))
                room[part] -= len(begun)
                tokens -= part == "scored"
            kept[-1] = _with_left_out(kept[-1], kept[-1].left_out + len(text) - len(begun))
    if not kept:
        return [], 0
    *others, last = kept
    return [*others, _with_left_out(last, 0)], last.left_out


def _with_left_out(piece: TextPiece, left_out: int) -> TextPiece:
    return piece.model_copy(update={"left_out": left_out})
