"""Records that a model is to answer: what it is given, and what becomes of what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from raymia.models.causal.limits import RenderingError
from raymia.models.causal.reading import Reader
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.records.asked import before_answer, ids_before_answer
from raymia.records.conversations import (
    NOT_TRAINED,
    content_of,
    given_to_template,
    payload_of,
)

QUESTION, ANSWER = "raymia asks this", "raymia answers that"
"""Contents that no template has in itself."""


class Answering:
    """How a model that was trained so is asked to write a record's answer anew.

    Parameters
    ----------
    tokenizer : of the model, from transformers.
    """

    def __init__(self, tokenizer: Any, training: Training) -> None:
        self.tokenizer = tokenizer
        self.training = training
        self.reader = TrainedReader(tokenizer, training)

    def prompt(self, payload: str) -> list[int]:
        """What the model is given: all that stands before the record's last answer.

        Raises
        ------
        RenderingError
            If the record has no answer, or the template cannot write what stands before it.
        """
        kind, content = self.training.format, self.reader.content_of(payload)
        given = given_to_template(content)
        if kind == "chat":
            return self.reader.prompt_ids(before_answer(content["messages"]), given)
        if kind == "completion":
            return self.reader.prompt_ids(content["prompt"], given)
        if kind == "tokens":
            return ids_before_answer(content)
        raise RenderingError(f"a record of the format {kind} has no one answer")

    def user_turn_ids(self) -> list[int]:
        """What a model is given so that it writes the user's turn, too: the template up to it."""
        begun = self.reader.text_of([{"role": "user", "content": QUESTION}])
        before, found, _ = begun.partition(QUESTION)
        if not found:
            raise RenderingError("the template does not write the user's turn as it stands")
        ids = self.tokenizer(before, add_special_tokens=False, verbose=False)["input_ids"]
        return list(ids)

    def asking(self, question: Sequence[int]) -> str | None:
        """The record of a user's turn that was written, still to be answered; None for an empty
        one."""
        text = self._until(question, self.user_end).strip()
        if not text:
            return None
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": ANSWER}]
        return payload_of({"messages": turns})

    def answered(self, payload: str, answer: Sequence[int]) -> str | None:
        """The record with what was written as its answer; None for an empty one."""
        kind, content = self.training.format, content_of(payload)
        if kind == "tokens":
            prompt = self.prompt(payload)
            labels = [NOT_TRAINED] * len(prompt)
            whole = {"input_ids": [*prompt, *answer], "labels": [*labels, *answer]}
            return payload_of(whole) if answer else None
        is_text = isinstance(content.get("completion"), str)
        text = self._until(answer, "" if is_text else self.answer_end)
        if not text.strip():
            return None
        if is_text:
            return payload_of({**content, "completion": text})
        turn = {"role": "assistant", "content": text.strip()}
        if kind == "completion":
            return payload_of({**content, "completion": [turn]})
        return payload_of({**content, "messages": [*before_answer(content["messages"]), turn]})

    @cached_property
    def answer_end(self) -> str:
        """What the template writes after an answer, as far as it tells that the answer ended."""
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        return _first_mark(self.reader.text_of(turns).rpartition(ANSWER)[2])

    @cached_property
    def user_end(self) -> str:
        """The same after the user's turn."""
        turns = [{"role": "user", "content": QUESTION}]
        rest = self.reader.text_of(turns, add_generation_prompt=True).rpartition(QUESTION)[2]
        return _first_mark(rest)

    @cached_property
    def scored_header(self) -> str:
        """What stands before an answer's words and is taken for part of it, as the template writes
        nothing where an answer is to begin; empty where there is no such thing."""
        asked = [{"role": "user", "content": QUESTION}]
        return self._header([*asked, {"role": "assistant", "content": ANSWER}], {})

    def scored_header_in(self, payload: str) -> str:
        """The same before the answers of a conversation, as to a tool."""
        content = self.reader.content_of(payload)
        messages = content["messages"] if self.training.format == "chat" else []
        ends = (n + 1 for n, one in enumerate(messages) if n and one["role"] == "assistant")
        found = (self._header(messages[:end], given_to_template(content)) for end in ends)
        return next(filter(None, found), "")

    def _header(self, messages: Sequence[dict[str, Any]], given: Mapping[str, Any]) -> str:
        answer = messages[-1].get("content")  # none where it calls a tool
        if not isinstance(answer, str) or not answer.strip():
            return ""
        try:
            before = self.reader.text_of(messages[:-1], given)
            begun = self.reader.text_of(messages[:-1], given, add_generation_prompt=True)
            whole = self.reader.text_of(messages, given)
        except RenderingError:
            return ""
        header, is_written, _ = whole.removeprefix(before).partition(answer.strip())
        return header.strip() if begun == before and is_written else ""

    def around(self) -> list[str]:
        """What the template writes before an answer, behind the question, and after it, line by
        line."""
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        between, _, after = self.reader.text_of(turns).partition(QUESTION)[2].partition(ANSWER)
        return [line.strip() for line in (between + after).splitlines() if line.strip()]

    @property
    def ends(self) -> set[int]:
        """Tokens that end what is written, beside the model's own."""
        if self.training.template is None:
            return set()
        added = self.tokenizer.added_tokens_encoder
        return {added[end] for end in (self.answer_end, self.user_end) if end in added}

    def _until(self, ids: Sequence[int], end: str) -> str:
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=not end))
        if end:
            text = text.partition(end)[0]
            for token in self.tokenizer.all_special_tokens:
                text = text.replace(token, "")
        return text


def ends_of_answers(reader: Reader) -> set[int]:
    """Tokens that end an answer where records are read so, beside the model's own."""
    if not isinstance(reader, TrainedReader):
        return set()
    try:
        return Answering(reader.tokenizer, reader.training).ends
    except RenderingError:  # a template that writes no such turns
        return set()


def shared_start(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with."""
    shortest = min(len(prompt) for prompt in prompts)
    same = np.array([prompt[:shortest] for prompt in prompts])
    differing = np.flatnonzero((same != same[0]).any(axis=0))
    return int(differing[0]) if differing.size else shortest


def _first_mark(text: str) -> str:
    """The first line of a text that is not empty; a line's end where there is nothing else."""
    return next((line.strip() for line in text.splitlines() if line.strip()), text)
