"""Prompts of a self-prompt reference: what of them a target is given to continue, or to answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raymia.models.causal.answering import Answering, shared_start
from raymia.models.causal.limits import RenderingError
from raymia.models.causal.reading import beginnings
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Training
from raymia.models.tokenizers import tokenizer_of
from raymia.spec import SelfPromptReference
from raymia.util.errors import InputError

SHORTEST_ANSWER = 8
"""Tokens that a prompt must leave to the answer."""
MIN_ROOM = 3 * SHORTEST_ANSWER
"""Tokens for a question that a target writes itself, what the template writes behind it, and an
answer."""
TRIED = 200
"""Prompts that are looked at first; all others are only where these have a fault."""
MARK = re.compile(r"<\|[^<>|\s]{1,40}\|>")
"""What most chat templates write around turns."""


@dataclass(frozen=True)
class Beginnings:
    """First tokens of texts, for a target to go on from.

    Attributes
    ----------
    ids : the tokens, as many of each text.
    too_short : texts that have not so many.
    in_marks : texts that are cut inside a mark of a chat template.
    """

    ids: list[list[int]]
    too_short: int
    in_marks: int


def refuse_prompts(
    checkpoint: CausalCheckpoint, prompts: Sequence[str], spec: SelfPromptReference
) -> None:
    """Refuse prompts that a target cannot use, or that it has no room to write; loads its
    tokenizer, and no model.

    Raises
    ------
    InputError
        If no prompt can be used, or all ask for one thing.
    """
    tokenizer, training = tokenizer_of(checkpoint), checkpoint.training
    length = min(spec.max_tokens, checkpoint.context or spec.max_tokens)
    if spec.prompts == "none" and training is not None and training.format == "chat":
        refuse_no_room(len(_before_question(tokenizer, training)), length)
    if not prompts:
        return
    is_text = training is None or training.format == "text"
    if is_text:
        refuse_long_prompts(spec.prompt_tokens, length)

    def look_at(some: Sequence[str]) -> None:
        if is_text:
            adds = training is None or training.special_tokens
            beginnings_of(tokenizer, some, spec.prompt_tokens, adds)
        else:
            assert training is not None
            usable, _ = answerable(some, Answering(tokenizer, training), length)
            refuse_one_prompt([ids for _, ids in usable])

    try:
        look_at(prompts[:: max(1, len(prompts) // TRIED)][:TRIED])
    except InputError:
        look_at(prompts)


def _before_question(tokenizer: Any, training: Training) -> list[int]:
    try:
        return Answering(tokenizer, training).user_turn_ids()
    except RenderingError as error:
        raise InputError(f"self-prompting: {error}; name files of prompts") from None


# --------------------------------------------------------------------- texts, continued


def beginnings_of(
    tokenizer: Any, prompts: Sequence[str], count: int, special_tokens: bool = True
) -> Beginnings:
    """The first tokens of texts, without the end that some tokenizers add.

    Parameters
    ----------
    special_tokens : whether the tokenizer adds its own.

    Raises
    ------
    InputError
        If no text has so many, if all begin alike, or if all are cut inside a mark.
    """
    options = {} if special_tokens else {"add_special_tokens": False}
    whole = beginnings(tokenizer, prompts, **options)
    encoded = [ids[:count] for ids in whole]
    _refuse_one_beginning(encoded, whole, count)
    long = [n for n, ids in enumerate(encoded) if len(ids) == count]
    if not long:
        raise InputError(
            f"self-prompting: not one of {len(encoded)} prompts has {count} tokens; "
            "give longer prompts or a smaller prompt_tokens"
        )
    marks = marks_of(tokenizer)
    cut = {n: mark for n in long if (mark := _cut_mark(tokenizer, prompts[n], count, marks))}
    if len(cut) == len(long):
        raise InputError(
            f"self-prompting: all {len(cut):,} prompts of {count} tokens end inside a mark of a "
            f"chat template, as {next(iter(cut.values()))!r}; where they are conversations, give "
            "them as records of the format chat, else another prompt_tokens"
        )
    kept = [encoded[n] for n in long if n not in cut]
    return Beginnings(kept, len(encoded) - len(long), len(cut))


def marks_of(tokenizer: Any) -> list[str]:
    """What a tokenizer's own chat template writes between and after turns, line by line."""
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str):
        return []
    answering = Answering(tokenizer, Training("chat", "all", template=template))
    try:
        return [*dict.fromkeys(line for line in answering.around() if not line.isalnum())]
    except RenderingError:
        return []


def _cut_mark(tokenizer: Any, text: str, count: int, marks: Sequence[str]) -> str | None:
    """The mark that a text's first tokens end inside of; None where they end outside."""
    found = [*_spans(text, marks)]
    if not found or not tokenizer.is_fast:
        return None
    offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    end = offsets[count - 1][1]
    return next((text[start:stop] for start, stop in found if start < end < stop), None)


def _spans(text: str, marks: Sequence[str]) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in MARK.finditer(text))
    for mark in marks:
        yield from (match.span() for match in re.finditer(re.escape(mark), text))


def _refuse_one_beginning(
    encoded: Sequence[Sequence[int]], whole: Sequence[Sequence[int]], count: int
) -> None:
    """Refuse prompts that differ only after what the target is given of them."""
    if len({tuple(ids) for ids in whole}) < 2 or len({tuple(ids) for ids in encoded}) > 1:
        return
    raise InputError(
        f"self-prompting: all {len(encoded):,} prompts begin with the same {count} tokens, "
        "so that the target would be asked one thing again and again; they have the first "
        f"{shared_start(whole)} in common, so make prompt_tokens larger than that, or, where they "
        "are conversations, give them as records of the format chat"
    )


# --------------------------------------------------------------------- records, answered


def answerable(
    payloads: Sequence[str], answering: Answering, length: int
) -> tuple[list[tuple[str, list[int]]], Counter[str]]:
    """The prompts that leave room for an answer, with their tokens, and why others do not.

    Parameters
    ----------
    length : tokens of prompt and answer together, at most.

    Raises
    ------
    InputError
        If there is none.
    """
    longest = length - SHORTEST_ANSWER
    usable, reasons = [], Counter[str]()
    for payload in payloads:
        try:
            ids = answering.prompt(payload)
        except RenderingError as error:
            reasons[str(error)] += 1
            continue
        if not ids:
            reasons["there is nothing before the answer"] += 1
        elif len(ids) > longest:
            reasons[
                f"longer than the {longest} tokens that leave room for an answer; make max_tokens "
                "larger"
            ] += 1
        else:
            usable.append((payload, ids))
    if not usable:
        said = reasons.most_common(1)
        why = said[0][0] if said else "the target wrote none"
        raise InputError(f"self-prompting: not one of {len(payloads)} prompts can be used: {why}")
    return usable, reasons


def refuse_no_room(beginning: int, length: int) -> None:
    """Refuse to have a target write a question and its answer where what the template writes before
    the question leaves no room for them.

    Parameters
    ----------
    beginning, length : tokens before the question, and of all.
    """
    if length - beginning < MIN_ROOM:
        raise InputError(
            f"self-prompting: of {length} tokens, {beginning} are the template's before a "
            "question, which leaves too few for it and its answer; make max_tokens at least "
            f"{beginning + MIN_ROOM}, or name files of prompts"
        )


def refuse_long_prompts(count: int, length: int) -> None:
    """Refuse to have a target continue texts where their first tokens are all that fit.

    Parameters
    ----------
    count, length : tokens of a prompt, and of all.
    """
    if length <= count:
        raise InputError(
            f"self-prompting: a text of {length} tokens has no room for a prompt of {count}; make "
            "max_tokens larger or prompt_tokens smaller"
        )


def refuse_one_prompt(prompts: Sequence[Sequence[int]]) -> None:
    """Refuse several prompts that are the same tokens."""
    if len(prompts) > 1 and len({tuple(prompt) for prompt in prompts}) == 1:
        raise InputError(
            f"self-prompting: all {len(prompts):,} prompts are the same {len(prompts[0])} tokens, "
            "so that the target would be asked one thing again and again; give prompts that differ "
            "before their last answer, or `prompts: none`"
        )
