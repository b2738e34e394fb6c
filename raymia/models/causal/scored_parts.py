"""Which words of a record carried a loss, without a tokenizer: to show, to compress, to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raymia.models.causal.training import Side, Training
from raymia.records.conversations import carried_a_loss, content_of, payload_of

Part = str | Sequence[dict[str, Any]]
"""A text, or messages."""
BETWEEN = "\n\n"
"""Stands between the parts of what is scored where they are shown as one text."""

Change = Callable[[str], str]


def scored_text(payload: str, training: Training | None) -> str:
    """The text of what is scored, its parts in their order."""
    return BETWEEN.join(scored_parts(payload, training))


def scored_parts(payload: str, training: Training | None) -> list[str]:
    """The texts of what is scored, in the order of the record."""
    found: list[str] = []

    def keep(text: str) -> str:
        found.append(text)
        return text

    changed_parts(payload, training, keep)
    return found


def prompt_text(payload: str, training: Training | None) -> str:
    """The text of what stands in a record and is not scored."""
    if training is None or training.format in ("text", "tokens"):
        return ""
    everything = _texts_in(content_of(payload), training)
    for part in scored_parts(payload, training):
        if part in everything:
            everything.remove(part)
    return BETWEEN.join(everything)


def changed_parts(payload: str, training: Training | None, change: Change) -> str:
    """A payload with the texts of what is scored changed, and nothing else."""
    if training is None or training.format == "text":
        return change(payload)
    content = content_of(payload)
    if training.format == "chat":
        content["messages"] = _in_turns(content["messages"], training.loss_on, change)
    elif training.format in ("completion", "unpaired"):
        if training.loss_on == "all":
            content["prompt"] = _in_part(content["prompt"], "all", change)
        content["completion"] = _in_part(content["completion"], training.loss_on, change)
    elif training.format == "preference":
        prompt, answer = split_prompt(content, training.side)
        changed = _in_part(answer, training.loss_on, change)
        if "prompt" in content:
            content[training.side] = changed
        elif isinstance(prompt, str):
            content[training.side] = prompt + str(changed)
        else:
            content[training.side] = [*prompt, *changed]
    return payload_of(content)


def split_prompt(content: Mapping[str, Any], side: Side) -> tuple[Part, Part]:
    """The prompt of a record, and its completion or the answer of one side.

    Where a preference has no prompt it is what both answers begin with, and as in TRL not all of
    an answer with which the other begins.
    """
    if "completion" in content:
        return content["prompt"], content["completion"]
    answer: Part = content[side]
    if "prompt" in content:
        return content["prompt"], answer
    chosen, rejected = content["chosen"], content["rejected"]
    shared = shared_beginning(chosen, rejected)
    if shared == min(len(chosen), len(rejected)):
        shared -= 1
    elif isinstance(chosen, str) and shared and chosen[shared - 1] == " ":
        shared -= 1  # a tokenizer takes the space before a word as a part of it
    return answer[:shared], answer[shared:]


def shared_beginning(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences have in common from their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _in_part(part: Part, loss_on: str, change: Change) -> Part:
    return change(part) if isinstance(part, str) else _in_turns(part, loss_on, change)


def _in_turns(
    messages: Sequence[dict[str, Any]], loss_on: str, change: Change
) -> list[dict[str, Any]]:
    answers = [n for n, message in enumerate(messages) if carried_a_loss(message)]
    chosen = {"assistant": answers, "last_assistant": answers[-1:]}.get(
        loss_on, list(range(len(messages)))
    )
    return [_in_turn(m, change) if n in chosen else m for n, m in enumerate(messages)]


def _in_turn(message: dict[str, Any], change: Change) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": change(content)}
    if isinstance(content, list):
        changed = [
            {**block, "text": change(block["text"])}
            if isinstance(block, dict) and isinstance(block.get("text"), str)
            else block
            for block in content
        ]
        return {**message, "content": changed}
    return message


def _texts_in(content: Mapping[str, Any], training: Training) -> list[str]:
    """All texts of a record: of a preference, those of the side that is scored."""
    found: list[str] = []

    def keep(text: str) -> str:
        found.append(text)
        return text

    if training.format == "chat":
        parts: Sequence[Part] = [content["messages"]]
    else:
        parts = split_prompt(content, training.side)
    for part in parts:
        _in_part(part, "all", keep)
    return found
