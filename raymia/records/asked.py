"""What is asked in a record: what stands before its answer, however a template writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from raymia.records.conversations import NOT_TRAINED, TRAINED_KEYS, content_of
from raymia.spec import RecordFormat
from raymia.util.column import Column
from raymia.util.hashing import digest

ALSO_ASKED = "also what stands before a record's answer"


def before_answer(messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The turns before the answer; all of them where the last is still to be answered."""
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def ids_before_answer(content: Mapping[str, Any]) -> list[int]:
    """The tokens before the last answer: before the last run of those that carried a loss."""
    labels = content.get("labels", content["input_ids"])
    last = max(n for n, label in enumerate(labels) if label != NOT_TRAINED)
    before = (n for n in range(last, 0, -1) if labels[n - 1] == NOT_TRAINED)
    return list(content["input_ids"][: next(before, 0)])


def also_asked(
    kind: RecordFormat, records: pa.ChunkedArray
) -> Callable[[Mapping[str, str]], dict[str, str]]:
    """Finds which prompts ask what a record asks, whatever the answers are.

    Parameters
    ----------
    records : payloads; these are read one by one, and nothing of them is kept.

    Returns
    -------
    From payloads of prompts by id, the reason why some must not be used, by id.
    """

    def among(prompts: Mapping[str, str]) -> dict[str, str]:
        ids_of: dict[str, list[str]] = {}
        for prompt, payload in prompts.items():
            for asked in map(digest, _asked(kind, content_of(payload))):
                ids_of.setdefault(asked, []).append(prompt)
        found: set[str] = set()
        for payload in Column[str](records) if ids_of else ():
            content = content_of(payload)
            for asked in map(digest, [*_asked(kind, content), *_answered_before(kind, content)]):
                found.update(ids_of.pop(asked, ()))
        return {prompt: ALSO_ASKED for prompt in prompts if prompt in found}

    return among


def _asked(kind: RecordFormat, content: Mapping[str, Any]) -> list[Any]:
    """What a model is given so that it answers; nothing where that is empty."""
    if kind == "chat":
        return _turns(before_answer(content["messages"]), content)
    if kind == "tokens":
        before = ids_before_answer(content)
        return [before] if before else []
    prompt = content["prompt"]
    if isinstance(prompt, str):
        return [prompt] if prompt else []
    return _turns(prompt, content)


def _answered_before(kind: RecordFormat, content: Mapping[str, Any]) -> list[Any]:
    """The turns before the last answer of a conversation that goes on after it."""
    messages = content["messages"] if kind == "chat" else []
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    return _turns(messages[: answers[-1]], content) if answers else []


def _turns(messages: Sequence[dict[str, Any]], content: Mapping[str, Any]) -> list[Any]:
    if not messages:
        return []
    turns = [
        {
            key: _words(held) if key == "content" else held
            for key, held in message.items()
            if key not in TRAINED_KEYS
        }
        for message in messages
    ]
    return [[turns, content.get("tools") or None]]


def _words(content: Any) -> Any:
    """A content in parts as one text, which templates write alike."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
    words = [text for text in texts if isinstance(text, str)]
    return "".join(words) if len(words) == len(content) else content
