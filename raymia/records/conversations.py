"""Records that are more than a text: conversations, completions, tokens and preferences.

Such a record's payload is JSON of its content, in one form however the file spells it; its id is a
hash of that content and of nothing that a template adds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any

from raymia.records.json_columns import NOT_TAKEN
from raymia.records.texts import NOT_UNICODE, is_unicode, why_no_text, why_too_long
from raymia.spec import RecordFormat
from raymia.util.hashing import digest_bytes
from raymia.util.strict_json import parse_json

LOSS_MASKS = ("loss_mask", "completion_mask", "assistant_masks")
"""Columns of tokens that are 0 where no loss was; the latter two are TRL's. They become labels."""
OTHER_MASKS = frozenset({"attention_mask", "special_tokens_mask"})
"""Columns of tokens that end as masks of losses do, and are none."""
PACKED = ("seq_lengths", "position_ids")
"""Columns of tokens by which rows are known that hold several records."""
PADDED = "attention_mask"
"""Column of tokens that is 0 where a row was filled up."""
ARGUMENTS = "chat_template_kwargs"
"""Column of TRL's that holds what else the template of one conversation is given."""
SYSTEM = "system"
"""Column of a conversation's system prompt, of axolotl and LLaMA-Factory; it becomes a turn."""
FOR_TEMPLATE = ("tools", ARGUMENTS)
COLUMNS: Mapping[RecordFormat, tuple[str, ...]] = {
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
    "tokens": ("input_ids",),
    "preference": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
}
"""Columns that a record of each format must have."""
OPTIONAL: Mapping[RecordFormat, tuple[str, ...]] = {
    "chat": (SYSTEM, *FOR_TEMPLATE),
    "completion": FOR_TEMPLATE,
    "tokens": ("labels", *LOSS_MASKS, *PACKED, PADDED),
    "preference": ("prompt", *FOR_TEMPLATE),
    "unpaired": FOR_TEMPLATE,
}
TRAINED = "trained"
"""The key of a message that carried no loss though its role does, in a record's content."""
TRAINED_KEYS = ("weight", "train", "training", TRAINED)
"""Keys of a message that say whether it carried a loss: OpenAI's, axolotl's, and raymia's."""
SHARE_GPT = "conversations"
"""The column that ShareGPT calls its messages."""
SHARE_GPT_ROLES = {"human": "user", "gpt": "assistant", "bard": "assistant", "chatgpt": "assistant"}
PARTS = ("prompt", "completion", "chosen", "rejected")
WRITTEN = frozenset({*PARTS, "content", "text", "thinking", "reasoning_content"})
"""Keys of what somebody wrote, in a record's content."""
NOT_TRAINED = -100
"""The label of a token without a loss."""


def found_format(columns: Iterable[str], text_column: str) -> RecordFormat | None:
    """The format that the columns of a file say; None where they say none, or more than one."""
    names = {"messages" if name == SHARE_GPT else name for name in columns}
    kinds: list[RecordFormat] = [
        kind
        for kind in ("chat", "tokens", "preference", "completion")
        if names.issuperset(COLUMNS[kind])
    ]
    if "completion" in kinds and "label" in names:
        kinds[kinds.index("completion")] = "unpaired"
    if text_column in names and not {"chat", "tokens", "preference"} & {*kinds}:
        return "text"
    return kinds[0] if len(kinds) == 1 and text_column not in names else None


def canonical(kind: RecordFormat, row: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The content of a record in one form, and why it cannot be used; None where it can.

    Parameters
    ----------
    row : values by the names of :data:`COLUMNS` and :data:`OPTIONAL`.
    """
    content: dict[str, Any] = {}
    for name in (*COLUMNS[kind], *OPTIONAL[kind]):
        value = row.get(name)
        if value is None and name in OPTIONAL[kind]:
            continue
        if name == "tools":
            value, reason = _tools(value)
        elif name == SYSTEM:
            is_text = isinstance(value, str)
            reason = _why_no_json(value, name) if is_text else "system should be a text"
        elif name == ARGUMENTS:
            value, reason = _arguments(value)
        elif name in ("input_ids", "labels", *LOSS_MASKS, *PACKED, PADDED):
            value, reason = _numbers(value, name)
        elif name == "label":
            value, reason = _flag(value)
        elif name == "messages":
            value, reason = _messages(value, name)
        else:
            value, reason = _text_or_messages(value, name)
        if reason is not None:
            return {}, reason
        if value is not None:
            content[name] = value
    if kind == "tokens" and (reason := _unpad(content)) is not None:
        return {}, reason
    if system := content.pop(SYSTEM, None):
        content["messages"] = _with_system(content["messages"], system)
    if kind == "preference":
        _leave_out_a_spare_prompt(content)
    reason = _too_long(kind, content) or _disagrees(kind, content)
    return (_labelled(content) if kind == "tokens" and reason is None else content), reason


def _unpad(content: dict[str, Any]) -> str | None:
    """Take away what a row of tokens was filled up with; why that cannot be done, or None."""
    mask, ids = content.pop(PADDED, None), content["input_ids"]
    if mask is None:
        return None
    if len(mask) != len(ids):
        return _of_another_length(PADDED, mask, ids)
    if not {*mask} <= {0, 1}:
        return f"{PADDED} holds other numbers than 0 and 1, as that of a packed row does"
    start, length = (mask.index(1), sum(mask)) if any(mask) else (0, 0)
    if not all(mask[start : start + length]) or not length:
        return f"{PADDED} is 0 elsewhere than at one end or at both"
    for name, held in content.items():
        if len(held) == len(ids):
            content[name] = held[start : start + length]
    return None


def _with_system(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    begins = messages[0]["role"] == SYSTEM
    return messages if begins else [{"role": SYSTEM, "content": system}, *messages]


def _leave_out_a_spare_prompt(content: dict[str, Any]) -> None:
    """A prompt that is a text, beside answers that are conversations and begin with it, as in the
    binarized UltraFeedback."""
    chosen, rejected = content["chosen"], content["rejected"]
    texts = [isinstance(part, str) for part in (content.get("prompt"), chosen, rejected)]
    if texts == [True, False, False] and chosen[0] == rejected[0]:
        del content["prompt"]


def _labelled(content: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens and their labels, which masks change."""
    ids = content["input_ids"]
    masks = [content[name] for name in LOSS_MASKS if name in content]
    if not masks:
        return {name: content[name] for name in ("input_ids", "labels") if name in content}
    given = zip(content.get("labels", ids), *masks, strict=True)
    labels = [label if all(carried) else NOT_TRAINED for label, *carried in given]
    return {"input_ids": ids, "labels": labels}


def payload_of(content: Mapping[str, Any]) -> str:
    """A record's content as one string; keys keep the order that templates print them in."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def content_id(content: Mapping[str, Any]) -> str:
    """The id of a record: a hash of its content, whatever the order of its keys."""
    return digest_bytes(
        json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    )


def content_of(payload: str) -> dict[str, Any]:
    """What :func:`payload_of` made a string of."""
    found: dict[str, Any] = json.loads(payload)
    return found


def beginning(payload: str, characters: int) -> str:
    """A payload whose texts are shortened alike, so that it has no more characters than that
    beside what its messages are wrapped in; one of tokens stays as it is."""
    content = content_of(payload) if len(payload) > characters else {}
    if not content or "input_ids" in content:
        return payload
    return payload_of(_shortened(content, characters / len(payload), ""))


def _shortened(value: Any, share: float, key: str) -> Any:
    if isinstance(value, str):
        return value[: ceil(len(value) * share)] if key in WRITTEN else value
    if isinstance(value, list):
        return [_shortened(held, share, key) for held in value]
    if isinstance(value, dict):
        return {name: _shortened(held, share, name) for name, held in value.items()}
    return value


def _text_or_messages(value: Any, name: str) -> tuple[Any, str | None]:
    if isinstance(value, str):
        if name == "prompt":  # which may be empty
            return value, None if is_unicode(value) else NOT_UNICODE
        reason = why_no_text(value)
        return value, None if reason is None else f"{name}: {reason}"
    if value is None:
        return None, f"{name} should be a text or a list of messages, but is null"
    return _messages(value, name)


def _of_json(text: str, name: str, otherwise: str) -> tuple[Any, str | None]:
    """What stands in a cell as JSON, and why it cannot be taken.

    Parameters
    ----------
    otherwise : what a cell is that holds no JSON.
    """
    try:
        return parse_json(text), None
    except json.JSONDecodeError:
        return None, f"{name} is {otherwise}"
    except ValueError as error:
        return None, f"{name}: {NOT_TAKEN}: {error}"


def _why_no_json(value: Any, name: str) -> str | None:
    """Why a value cannot be kept as JSON, as a time in a column of a table; None where it can."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        return f"{name} holds what no JSON has ({error}); leave it out, or make it a text"
    return None if is_unicode(text) else f"{name}: {NOT_UNICODE}"


def _messages(value: Any, name: str) -> tuple[list[dict[str, Any]], str | None]:
    if isinstance(value, str):
        value, reason = _of_json(value, name, "a text and no list of messages")
        if reason is not None:
            return [], reason
    if not isinstance(value, Sequence):
        came = "null" if value is None else type(value).__name__
        return [], f"{name} should be a list of messages, but is {came}"
    if not value:
        return [], f"{name} has no message"
    found = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            return [], f"message {number} of {name} should be an object with role and content"
        one = {key: held for key, held in message.items() if held is not None}
        if "role" not in one and "from" in one:
            one = {_as_chat(key): held for key, held in one.items()}
            one["role"] = SHARE_GPT_ROLES.get(str(one["role"]), one["role"])
        role = one.get("role")
        if not isinstance(role, str) or not role:
            return [], f"message {number} of {name} has no role"
        if "content" not in one and not {"tool_calls", "thinking", "reasoning_content"} & {*one}:
            return [], f"message {number} of {name} has no content"
        if (kind := _other_than_text(one.get("content"))) is not None:
            return [], f"message {number} of {name} holds a part of the type {kind!r}, not text"
        one, reason = _trained(one, f"message {number} of {name}", is_chat=name == "messages")
        if reason is not None:
            return [], reason
        found.append(one)
    return found, _why_no_json(found, name)


def _trained(
    message: dict[str, Any], which: str, is_chat: bool
) -> tuple[dict[str, Any], str | None]:
    """A message that says in one way that it carried no loss, and why it cannot be read."""
    said = {key: message[key] for key in TRAINED_KEYS if key in message}
    if any(value not in (0, 1) for value in said.values()):
        key = next(key for key, value in said.items() if value not in (0, 1))
        return {}, f"{which} has a {key} other than 0 and 1; came: {str(said[key])[:40]!r}"
    if all(said.values()) and said and message["role"] != "assistant":
        return {}, (
            f"{which}, of the role {message['role']!r}, says that it carried a loss; give tokens "
            "with labels, or leave such keys out"
        )
    # A turn that says what its role says without the key is the same turn as one that does not.
    kept = {key: value for key, value in message.items() if key not in said}
    if all(said.values()) or message["role"] != "assistant":
        return kept, None
    if not is_chat:
        return {}, f"{which} says that it carried no loss, which is read in conversations alone"
    return {**kept, TRAINED: False}, None


def given_to_template(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a record has its template given beside the messages; that it has no tools, too, where
    it says so."""
    tools = {"tools": content["tools"]} if "tools" in content else {}
    return {**tools, **content.get(ARGUMENTS, {})}


def without_empty_tools(content: dict[str, Any]) -> dict[str, Any]:
    """A record's content as it is where nobody says that there are no tools."""
    return {name: value for name, value in content.items() if name != "tools" or value}


def carried_a_loss(message: Mapping[str, Any]) -> bool:
    """Whether a message is the assistant's and does not say that it was left out of the loss."""
    return message["role"] == "assistant" and bool(message.get(TRAINED, True))


def _other_than_text(content: Any) -> str | None:
    """The type of a part of a message that is no text, such as an image."""
    parts = content if isinstance(content, list) else []
    kinds = (part.get("type", "text") for part in parts if isinstance(part, Mapping))
    return next((str(kind) for kind in kinds if kind != "text"), None)


def has_names_of_share_gpt(messages: Any) -> bool:
    """Whether some turn of a row is by one who is called otherwise than templates call him."""
    turns = messages if isinstance(messages, Sequence) else []
    return any(
        isinstance(turn, Mapping) and "role" not in turn and turn.get("from") in SHARE_GPT_ROLES
        for turn in turns
    )


def _as_chat(key: str) -> str:
    return {"from": "role", "value": "content"}.get(key, key)


def _tools(value: Any) -> tuple[Any, str | None]:
    if isinstance(value, str):
        value, reason = _of_json(value.strip() or "null", "tools", "a text, and no JSON")
        if reason is not None:
            return None, reason
    if value is not None and not isinstance(value, list):
        return None, f"tools should be a list, but is a {type(value).__name__}"
    return value, _why_no_json(value, "tools")


def _arguments(value: Any) -> tuple[dict[str, Any] | None, str | None]:
    """What a template is given by one record; a null is what files with a column for all have."""
    if not isinstance(value, Mapping):
        return None, f"{ARGUMENTS} should be an object, but is a {type(value).__name__}"
    given = {key: held for key, held in value.items() if held is not None}
    return given or None, _why_no_json(given, ARGUMENTS)


def _numbers(value: Any, name: str) -> tuple[list[int], str | None]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        came = "null" if value is None else type(value).__name__
        return [], f"{name} should be a list of whole numbers, but is {came}"
    flags = name in (*LOSS_MASKS, PADDED)
    if not all(isinstance(one, int) and (flags or not isinstance(one, bool)) for one in value):
        return [], f"{name} should be a list of whole numbers"
    if not value:
        return [], f"{name} is empty"
    return list(map(int, value)), None


def _flag(value: Any) -> tuple[bool, str | None]:
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value), None
    return False, "label should be true or false"


def _of_another_length(name: str, given: Sequence[Any], ids: Sequence[Any]) -> str:
    return (
        f"{name} of another length than input_ids; give one for each token; came: "
        f"{len(given)}, {len(ids)}"
    )


def _unlike_tokens(content: Mapping[str, Any]) -> str | None:
    """Why a row of tokens cannot be used; None where it can."""
    ids = content["input_ids"]
    for name in ("labels", *LOSS_MASKS):
        if len(content.get(name, ids)) != len(ids):
            return _of_another_length(name, content[name], ids)
    for name in LOSS_MASKS:
        if not {*content.get(name, ())} <= {0, 1}:
            return f"{name} should hold 0 and 1 alone"
    if len(content.get("seq_lengths", ())) > 1 or 0 in content.get("position_ids", ())[1:]:
        return "a packed row of several records; give the records as they were before"
    labels = _labelled(content).get("labels")
    if labels is None:
        return None
    if any(label not in (NOT_TRAINED, token) for label, token in zip(labels, ids, strict=True)):
        return f"labels that are neither {NOT_TRAINED} nor the token itself"
    if all(label == NOT_TRAINED for label in labels[1:]):
        masked = " or masked" if {*LOSS_MASKS} & {*content} else ""
        return (
            f"every label is {NOT_TRAINED}{masked}, so no token was trained on; leave the record "
            "out, or keep the labels of the tokens that carried a loss"
        )
    return None


def _too_long(kind: RecordFormat, content: Mapping[str, Any]) -> str | None:
    """Why a record's content is too long, all of it together; None where it is not."""
    if kind == "tokens":
        return why_too_long(0, len(content["input_ids"]))
    return why_too_long(len(payload_of(content)))


def _disagrees(kind: RecordFormat, content: Mapping[str, Any]) -> str | None:
    """Why the parts of a record do not go together; None where they do."""
    if kind == "tokens":
        return _unlike_tokens(content)
    parts = [content[n] for n in PARTS if n in content]
    if len({isinstance(part, str) for part in parts}) > 1:
        return "some parts are texts and others messages; give all of them as one or the other"
    if kind == "preference" and content["chosen"] == content["rejected"]:
        return "chosen and rejected are the same"
    return None
