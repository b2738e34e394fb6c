"""From a record to tokens, and to which of them carried a loss: what the training did.

Rendering is a function of the record, the tokenizer and the training alone. Conversations are
written by their chat template in the sandbox of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raymia.models.causal.labels import has_marks, labelled, runs_of
from raymia.models.causal.limits import RenderingError, each_within_limits, within_limits
from raymia.models.causal.reading import (
    Bools,
    PlainReader,
    Reader,
    Rendered,
    added_around,
    text_of,
)
from raymia.models.causal.scored_parts import (
    BETWEEN,
    Part,
    changed_parts,
    scored_parts,
    shared_beginning,
    split_prompt,
)
from raymia.models.causal.training import NO_WORDS, Training
from raymia.records.conversations import (
    carried_a_loss,
    content_of,
    given_to_template,
    without_empty_tools,
)
from raymia.util.reasons import CAME

USUAL_ROLES = {"system", "developer", "user", "assistant", "tool"}

Given = Mapping[str, Any]
"""What a template is given beside the messages, by a record."""


class TrainedReader:
    """Reads records as a training did.

    Parameters
    ----------
    tokenizer : of the model, from transformers.
    """

    def __init__(self, tokenizer: Any, training: Training) -> None:
        self.tokenizer = tokenizer
        self.training = training
        self._plain = PlainReader(tokenizer, training.special_tokens)

    def read(self, payloads: Sequence[str]) -> list[Rendered]:
        return each_within_limits(self._read, payloads, _unread)

    def read_after(self, payloads: Sequence[str]) -> list[Rendered]:
        return [_without_beginning(one, self.tokenizer.bos_token_id) for one in self.read(payloads)]

    def before(self, payloads: Sequence[str]) -> list[int]:
        first, *others = payloads
        found = self.read([first])[0].ids
        for rendered in self.read_after(others):
            found = [*found, *rendered.ids]
        return found

    def begun(self, payload: str, share: float) -> tuple[list[int], int, int]:
        """What is written is the last of the parts that are scored; of tokens all from the first
        one that is scored. Where nothing stands before that, the first share of it is given."""
        rendered, text = self.read([payload])[0], self.text(payload)
        if rendered.scored is None or rendered.error is not None:
            return [], 0, 0
        if self.training.format == "text":
            return self._plain.begun(text, share)
        places = np.flatnonzero(rendered.scored)
        length = int(places[-1]) + 1
        is_tokens = self.training.format == "tokens"
        last = len(text) if is_tokens else sum(map(len, self._parts(payload)[-1:]))
        if is_tokens:
            first = int(places[0])
        elif self.training.loss_on == "all":
            first = 0 if rendered.truncated else self._before_last(payload, rendered.ids)
        else:
            first = int(places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1]])
        if first > 1:
            return rendered.ids[:first], length, len(text) - last
        first = int(share * length)
        rest = self.tokenizer.decode(rendered.ids[first:length], skip_special_tokens=not is_tokens)
        return rendered.ids[:first], length, max(0, len(text) - len(rest.rstrip()))

    def _before_last(self, payload: str, ids: Sequence[int]) -> int:
        """Tokens of a record before its last message, or before its completion; 0 where the
        template does not write these alone."""
        content = self.content_of(payload)
        if self.training.format == "chat":
            prompt, last = content["messages"][:-1], content["messages"][-1:]
        else:
            prompt, last = split_prompt(content, self.training.side)
            if not isinstance(prompt, str) and not isinstance(last, str):
                prompt, last = [*prompt, *last[:-1]], last[-1:]
        try:
            before = self.prompt_ids(prompt, given_to_template(content)) if prompt else []
        except RenderingError:
            return 0
        return shared_beginning(before, ids)

    def text(self, payload: str) -> str:
        if self.training.format != "tokens":
            text = BETWEEN.join(self._parts(payload))
            if text.strip():
                return text
        # Tokens have no words, and neither have answers that only call tools.
        found = self.read([payload])[0]
        ids = [] if found.scored is None else np.array(found.ids)[found.scored].tolist()
        return str(self.tokenizer.decode(ids)) or " "

    def _parts(self, payload: str) -> list[str]:
        """The words of each part that is scored; of one that was cut, those of its tokens."""
        parts, training = scored_parts(payload, self.training), self.training
        rendered = Rendered([]) if training.limit is None else self.read([payload])[0]
        if not rendered.truncated or rendered.scored is None:
            return parts
        if training.format == "text":
            return [self._of_text(parts[0], rendered.ids)]
        places = np.flatnonzero(rendered.scored)
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        cut = [self._words(np.array(rendered.ids)[run].tolist()) for run in runs]
        if training.loss_on == "all":
            return cut
        left = parts[: len(cut)] if training.truncate == "end" else parts[-len(cut) :]
        # A part that is there in whole is without the template's marks, as where nothing was cut.
        if len(left) < len(cut):
            return cut
        return [part if part in words else words for part, words in zip(left, cut, strict=True)]

    def _of_text(self, text: str, ids: Sequence[int]) -> str:
        """What was cut out of a text, with the marks that stand in it, as those that were not cut
        have them, and without what was put before and after it."""
        adds = self.training.special_tokens
        before, after = added_around(self.tokenizer) if adds else ([], [])
        if self.training.truncate == "end":
            kept = ids[len(before) :]
        else:
            is_ended = self._ended(text) != text
            kept = ids[: len(ids) - len(after) - is_ended]
        return text_of(self.tokenizer, kept)

    def _words(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def words(self, ids: Sequence[int]) -> str:
        if self.training.format in ("text", "tokens"):
            return text_of(self.tokenizer, ids)
        return self._words(ids)

    def changed(self, payload: str, change: Callable[[str], str]) -> str:
        if self.training.format == "tokens":
            raise RenderingError(NO_WORDS)
        return changed_parts(payload, self.training, change)

    def content_of(self, payload: str) -> dict[str, Any]:
        """A record's content, as the training gave it to its template."""
        content = content_of(payload)
        return without_empty_tools(content) if self.training.leaves_out_empty_tools else content

    def prompt_ids(self, prompt: Part, given: Given) -> list[int]:
        """The tokens of a prompt that is to be answered."""
        if isinstance(prompt, str):
            return self._encode(prompt)
        out = self._apply(self._with_system(prompt), given, add_generation_prompt=True)
        return list(out["input_ids"])

    def text_of(
        self,
        messages: Sequence[dict[str, Any]],
        given: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """What the template writes of messages, with the training's system prompt.

        Parameters
        ----------
        given : to the template beside them, as tools.
        """
        return self._text(self._with_system(messages), given or {}, **options)

    def turns(self, payload: str) -> tuple[str, list[tuple[int, str]]]:
        """What the template writes of a conversation before anything is cut, and where its turns
        begin, in characters, with their roles.

        A turn is left out where the template writes those before it otherwise when they stand
        alone; there is none, and no text, where the record is no conversation.
        """
        content = {} if self.training.format in ("text", "tokens") else self.content_of(payload)
        if self.training.format == "chat":
            parts: Sequence[Part] = [content["messages"]]
        else:
            parts = split_prompt(content, self.training.side) if content else ()
        if not parts or any(isinstance(part, str) for part in parts):
            return "", []
        turns = [message for part in parts if not isinstance(part, str) for message in part]
        messages = self._with_system(turns)
        given = given_to_template(content)
        try:
            text = self._text(messages, given)
            before = [self._text(messages[:n], given) for n in range(len(messages))]
        except RenderingError:
            return "", []
        starts = enumerate(before)
        return text, [(len(b), messages[n]["role"]) for n, b in starts if text.startswith(b)]

    def _read(self, payload: str) -> Rendered:
        try:
            ids, scored = self._whole(payload)
        except RenderingError as error:
            return _unread(error)
        limit = self.training.limit
        truncated = limit is not None and len(ids) > limit
        if truncated and self.training.truncate == "drop":
            return Rendered([], error=f"longer than {limit} tokens, so it is left out")
        if truncated:
            ids, scored = ids[self.training.kept], scored[self.training.kept]
        if not scored[1:].any():
            cut = f" among the {limit} tokens that are left of it" if truncated else ""
            return Rendered([], error=f"no token carried a loss{cut}")
        scored[0] = False
        return Rendered(ids, scored, truncated)

    def _whole(self, payload: str) -> tuple[list[int], Bools]:
        """All tokens, and which carried a loss before anything was cut."""
        kind = self.training.format
        if kind == "text":
            return self._all(self._encode(self._ended(payload)))
        content = self.content_of(payload)
        if kind == "tokens":
            ids = list(content["input_ids"])
            self._refuse_unknown(ids)
            if self.training.loss_on == "labels":
                return ids, labelled(content, ids)
            return self._all(ids)
        if kind == "chat":
            return self._conversation(content)
        given, side = given_to_template(content), self.training.side
        ids, scored = self._completion(*split_prompt(content, side), given)
        if kind == "preference":
            # The prompt is what it shares with either answer.
            prompt, other = split_prompt(content, "rejected" if side == "chosen" else "chosen")
            _, others = self._completion(prompt, other, given)
            if self.training.loss_on == "completion" and others.any():
                scored[int(np.argmax(others)) :] = True
        return ids, scored

    def _conversation(self, content: dict[str, Any]) -> tuple[list[int], Bools]:
        messages, given = self._with_system(content["messages"]), given_to_template(content)
        self._refuse_unwritten(messages, given)
        if self.training.loss_on == "all":
            return self._all(self._apply(messages, given, add_generation_prompt=False)["input_ids"])
        return self._assistant(messages, given)

    def _completion(self, prompt: Part, completion: Part, given: Given) -> tuple[list[int], Bools]:
        if isinstance(prompt, str) or isinstance(completion, str):
            before = self.prompt_ids(str(prompt), {})
            ids = self._encode(self._ended(str(prompt) + str(completion)))
            turns = None
        else:
            before = self.prompt_ids(prompt, given) if prompt else []
            whole = self._with_system([*prompt, *completion])
            self._refuse_unwritten(whole, given)
            if self.training.loss_on in ("assistant", "last_assistant"):
                ids, turns = self._assistant(whole, given)
            else:
                ids = self._apply(whole, given, add_generation_prompt=False)["input_ids"]
                turns = None
        scored = np.ones(len(ids), bool)
        if self.training.loss_on != "all":
            scored[: shared_beginning(before, ids)] = False
        if turns is not None:
            scored &= turns
        return list(ids), scored

    def _assistant(self, messages: list[dict[str, Any]], given: Given) -> tuple[list[int], Bools]:
        """The tokens of a conversation, and which of them the assistant's turns are."""
        answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            roles = dict.fromkeys(message["role"] for message in messages)
            raise RenderingError(
                "the conversation has no turn of the assistant; call the role of answers so, or "
                f"say `loss_on: all`{CAME}{', '.join(map(repr, roles))}"
            )
        trained = [n for n in answers if carried_a_loss(messages[n])]
        if not trained:
            raise RenderingError("every turn of the assistant says that it carried no loss")
        if self.training.loss_on == "last_assistant":
            trained = trained[-1:]
        if has_marks(self.training.template):
            out = self._apply(
                messages, given, add_generation_prompt=False, return_assistant_tokens_mask=True
            )
            scored = np.array(out["assistant_masks"], bool)
            if not scored.any():
                raise RenderingError(
                    "the template marks what is generated, and marked nothing in this conversation"
                )
            if len(trained) < len(answers):
                scored = runs_of(scored, [answers.index(n) for n in trained], len(answers))
            return list(out["input_ids"]), scored
        text = self._text(messages, given)
        spans = [self._span(messages, number, given, text) for number in trained]
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        begins, stops = np.array(encoded["offset_mapping"], int).reshape(-1, 2).T
        scored = np.zeros(len(begins), bool)
        for start, end in spans:
            scored |= (begins < end) & (stops > start)
        return list(encoded["input_ids"]), scored

    def _span(
        self, messages: list[dict[str, Any]], number: int, given: Given, text: str
    ) -> tuple[int, int]:
        """Where the answer of a turn stands in the rendering, in characters.

        It is what comes after the turns before it, rendered to be answered, and ends where the
        rendering of the turns up to it ends, without the end-of-text token that some templates
        write where no turn follows.
        """
        before = self._until_answer(messages[:number], given, text)
        is_last = number + 1 == len(messages)
        until = text if is_last else self._text(messages[: number + 1], given)
        if not text.startswith(until):
            until = until.removesuffix(self.tokenizer.eos_token or "")
        for prefix, what in ((before, "before"), (until, "up to")):
            if not text.startswith(prefix):
                raise RenderingError(
                    f"the template writes the turns {what} turn {number + 1} otherwise where "
                    "others follow, so it cannot be told which tokens are the assistant's; name a "
                    "template with {% generation %} marks as `training.template`, or say "
                    "`loss_on: all`"
                )
        return len(before), len(until)

    def _until_answer(self, messages: list[dict[str, Any]], given: Given, text: str) -> str:
        """What the rendering of a conversation begins with, up to the answer to some messages."""
        if messages:
            return self._text(messages, given, add_generation_prompt=True)
        # Templates write no conversation without a turn, so what they write is told by another.
        asked = [{"role": "user", "content": "?"}]
        begun = self._text(asked, given, add_generation_prompt=True)
        question = self._text(asked, given)
        if not begun.startswith(question):
            question = question.removesuffix(self.tokenizer.eos_token or "")
        header = begun.removeprefix(question)
        before, found, _ = text.partition(header) if header else ("", "", "")
        if not found:
            raise RenderingError(
                "the conversation begins with a turn of the assistant, and the template does not "
                "tell where such a turn begins, so it cannot be told which tokens are the "
                "assistant's; name a template with {% generation %} marks as `training.template`, "
                "or say `loss_on: all`"
            )
        return before + header

    def _refuse_unwritten(self, messages: Sequence[dict[str, Any]], given: Given) -> None:
        """Refuse turns of a role that the template passes over without a word, and contents in
        parts that it writes as a list is printed."""
        odd = [message for message in messages if message["role"] not in USUAL_ROLES]
        in_parts = [str(m["content"]) for m in messages if isinstance(m.get("content"), list)]
        if not odd and not in_parts:
            return
        text = self._text(messages, given)
        if any(printed in text for printed in in_parts):
            raise RenderingError(
                "the template takes no contents in parts, and prints them as a list; give each "
                "content as one text, or name the template that the training used"
            )
        for message in odd:
            content = message.get("content")
            if isinstance(content, str) and content.strip() not in text:
                raise RenderingError(
                    "the template writes nothing of turns of a role; name the template that the "
                    "training used, or give these turns a role that it knows"
                    f"{CAME}{message['role']!r}"
                )

    def _with_system(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        system = self.training.system
        if system is None or (messages and messages[0]["role"] == "system"):
            return list(messages)
        return [{"role": "system", "content": system}, *messages]

    def _ended(self, text: str) -> str:
        end = self.tokenizer.eos_token
        if not self.training.eos or not end or text.endswith(end):
            return text
        return text + str(end)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, verbose=False, **self._plain.options)["input_ids"]
        return ids

    def _all(self, ids: Sequence[int]) -> tuple[list[int], Bools]:
        return list(ids), np.ones(len(ids), bool)

    def _refuse_unknown(self, ids: Sequence[int]) -> None:
        known = len(self.tokenizer)
        if ids and not 0 <= min(ids) <= max(ids) < known:
            raise RenderingError(
                f"a token that the tokenizer does not have; it has 0 to {known - 1}, came: "
                f"{min(ids)} to {max(ids)}"
            )

    def _text(self, messages: Sequence[dict[str, Any]], given: Given, **options: Any) -> str:
        if not messages:
            return ""
        return str(self._apply(messages, given, tokenize=False, **options))

    def _apply(self, messages: Sequence[dict[str, Any]], given: Given, **options: Any) -> Any:
        """Write messages by the template, as transformers does; tokens unless it is told not to."""

        def render() -> Any:
            return self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.training.template,
                return_dict=options.get("tokenize", True),
                tokenizer_kwargs={"verbose": False},
                **{**self.training.arguments, **given, "tokenize": True, **options},
            )

        return within_limits(render)


def _unread(error: RenderingError) -> Rendered:
    return Rendered([], error=str(error))


def _without_beginning(rendered: Rendered, begin: int | None) -> Rendered:
    if begin is None or rendered.ids[:1] != [begin] or rendered.scored is None:
        return rendered
    return replace(rendered, ids=rendered.ids[1:], scored=rendered.scored[1:])


def reader_for(tokenizer: Any, training: Training | None) -> Reader:
    """What reads the records of a model that was trained so; None stands for plain texts."""
    return PlainReader(tokenizer) if training is None else TrainedReader(tokenizer, training)
