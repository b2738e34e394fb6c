"""How targets were trained, as far as it is said, and what is assumed where it is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from raymia.modalities.texts.templates import dated, refuse_unknown_arguments, template_of
from raymia.modalities.texts.training_files import (
    BITS,
    EOS_TOKEN,
    NO_EMPTY_TOOLS,
    NOT_CERTAIN,
    PROMPT_LIMIT,
    TEXT_FIELD,
    read_training_file,
)
from raymia.models.causal.answering import Answering
from raymia.models.causal.labels import has_marks
from raymia.models.causal.limits import RenderingError
from raymia.models.causal.rendering import TrainedReader, reader_for
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Side, Training
from raymia.models.endpoints.resolver import Endpoint
from raymia.models.tokenizers import tokenizer_of
from raymia.records.conversations import content_of
from raymia.spec import LossOn, RecordFormat, TrainingSpec
from raymia.util.errors import InputError

FIRST, TRIED = 4_000, 40
"""Records among which some are chosen, and how many of them are rendered before a model is
loaded."""
MAY_BE_PASSED_OVER = ("system", "developer", "tool")
"""Usual roles that some templates leave out without a word."""
OF_TEMPLATES = {"template", "template_arguments", "system", "date"}
"""Keys that say something of conversations alone."""

MEANINGFUL: Mapping[RecordFormat, tuple[LossOn, ...]] = {
    "text": ("all",),
    "chat": ("assistant", "last_assistant", "all"),
    "completion": ("completion", "assistant", "last_assistant", "all"),
    "tokens": ("labels", "all"),
    "preference": ("completion", "assistant", "last_assistant", "all"),
    "unpaired": ("completion", "assistant", "last_assistant", "all"),
}
"""What a loss can be on, by format; the first is the usual one."""


@dataclass(frozen=True)
class Resolved:
    """How one target was trained.

    Attributes
    ----------
    assumed : what is not said, each as a sentence, by the key that would say it.
    program : whose file was read; empty for none.
    text_field : the column from which texts were trained, where that file names it.
    """

    training: Training
    assumed: Mapping[str, str] = field(default_factory=dict)
    program: str = ""
    text_field: str | None = None


def resolve_training(
    spec: TrainingSpec | None,
    kind: RecordFormat,
    side: Side,
    checkpoint: CausalCheckpoint | Endpoint,
    payloads: Sequence[str],
    where: str,
    *,
    base: CausalCheckpoint | None = None,
) -> Resolved | None:
    """Find out how a target was trained, and try it on a few records.

    Parameters
    ----------
    spec : what the audit file says; None says nothing.
    payloads : of records, of which some are rendered.
    base : the reference of this name, whose template may be asked for.

    Returns
    -------
    None for plain texts of which nothing is said: they are read as the tokenizer does by default.

    Raises
    ------
    InputError
        If there is no template where one is needed, what is said does not go together, or not one
        of the records that were tried can be rendered.
    """
    if spec is None and kind == "text":
        return None
    spec = spec or TrainingSpec()
    own = spec.model_dump(exclude={"config"}, exclude_unset=True)
    own = {key: value for key, value in own.items() if value is not None}
    program, said = (
        ("", {}) if spec.config is None else read_training_file(spec.config, kind, where, own)
    )
    said = {**said, **own}
    conversations = _are_conversations(kind, payloads)
    training, assumed = _put_together(said, kind, side, conversations)
    if conversations:
        template = template_of(said.get("template"), checkpoint, base, where)
        if program == "TRL" and training.loss_on == "assistant" and "loss_on" not in own:
            _refuse_without_marks(template, checkpoint, where)
        refuse_unknown_arguments(own.get("template_arguments", {}), template, where)
        template = dated(template, said, where)
        training = replace(training, template=template)
    elif idle := sorted({*own} & OF_TEMPLATES):
        raise InputError(
            f"{where}.{idle[0]}: these records are {'tokens' if kind == 'tokens' else 'texts'}, "
            "which no template writes; leave the key out, or give conversations as messages"
        )
    elif training.eos:
        _refuse_another_end(said.get(EOS_TOKEN), checkpoint, where)
    _try(training, checkpoint, payloads, where)
    if conversations and (header := _scored_header(training, checkpoint, payloads)):
        assumed["template"] = (
            "the template writes nothing where an answer is to begin, so what it writes before the "
            f"assistant's words, {header!r}, is scored with them; name a template with "
            "{% generation %} marks where it carried no loss"
        )
    if conversations and (roles := _passed_over(training, checkpoint, payloads)):
        assumed["roles"] = (
            f"the template does not write turns of the role {' and '.join(roles)} as they stand; "
            "look at such a record with `raymia show`, and name the template that the training "
            "used where it wrote them"
        )
    if program and "loss_on" in assumed:
        assumed["loss_on"] += f", as {program} does by default"
    if BITS in said and (line := _on_a_whole_base(checkpoint, said[BITS])):
        assumed["quantization"] = line
    if spec.config is not None:
        assumed["config"] = _read_as(spec.config, program, said, own)
    uncertain = said.get(NOT_CERTAIN, {})
    assumed |= {key: line for key, line in uncertain.items() if key not in own}
    lines = {key: f"{where}: {line}" for key, line in assumed.items()}
    return Resolved(training, lines, program, said.get(TEXT_FIELD))


def _put_together(
    said: Mapping[str, Any], kind: RecordFormat, side: Side, conversations: bool
) -> tuple[Training, dict[str, str]]:
    assumed = {}
    loss_on = said.get("loss_on")
    if loss_on is None:
        loss_on, *others = MEANINGFUL[kind]
        if not conversations:
            others = [other for other in others if other == "all"]
        if others and kind != "tokens":
            assumed["loss_on"] = (
                f"it is assumed that the loss was on {IN_WORDS[loss_on]}; say `loss_on` where it "
                f"was on {' or '.join(IN_WORDS[other] for other in others)}"
            )
    elif loss_on not in MEANINGFUL[kind]:
        raise InputError(
            f"training.loss_on: {loss_on} means nothing for records of the format {kind}; there it "
            f"can be {', '.join(MEANINGFUL[kind])}"
        )
    if "max_length" not in said and kind != "tokens":
        assumed["max_length"] = (
            "it is assumed that no record was cut; say `max_length` where some were"
        )
    if PROMPT_LIMIT in said:
        assumed["prompt"] = (
            f"prompts of more than {said[PROMPT_LIMIT]:,} tokens were cut by themselves, and it is "
            "assumed that there were none; leave out the records that have one"
        )
    eos = said.get("eos")
    if eos is None:
        eos = kind != "tokens"
        if eos and not conversations:
            assumed["eos"] = (
                "it is assumed that an end-of-text token was put after each; say `eos: false` "
                "where none was"
            )
    training = Training(
        format=kind,
        loss_on=loss_on,
        template_arguments=json.dumps(said.get("template_arguments") or {}, sort_keys=True),
        max_length=said.get("max_length"),
        truncate=said.get("truncate") or "end",
        eos=bool(eos),
        system=said.get("system"),
        packing=said.get("packing") or "none",
        side=side,
        special_tokens=said.get("special_tokens") is not False,
        leaves_out_empty_tools=conversations and bool(said.get(NO_EMPTY_TOOLS)),
    )
    if training.packing == "joined":
        assumed["packing"] = (
            "rows held several texts as one: a text that began within a row was predicted after "
            "another one, which is not known; it is scored by itself"
        )
    return training, assumed


def _on_a_whole_base(checkpoint: CausalCheckpoint | Endpoint, bits: int) -> str:
    """That an adapter is scored on another base than it was trained on; empty where it is not."""
    if not isinstance(checkpoint, CausalCheckpoint) or checkpoint.adapter is None:
        return ""
    if checkpoint.quantization != "none":
        return ""
    named = {4: "nf4", 8: "int8"}.get(bits)
    return (
        f"the adapter was trained on a base in {bits} bits, and is scored on one that is not "
        "quantized" + (f"; say `quantization: {named}` under the target otherwise" if named else "")
    )


def begins_twice(
    training: Training | None, checkpoint: CausalCheckpoint | Endpoint, payloads: Sequence[str]
) -> str | None:
    """That the tokenizer puts before a text what it begins with already, as a sentence; None where
    it does not."""
    tokenizer = tokenizer_of(checkpoint)
    begins, reader = tokenizer.bos_token_id, reader_for(tokenizer, training)
    if begins is None or (training is not None and training.format == "tokens"):
        return None
    if all(read.ids[:2] != [begins, begins] for read in reader.read(_some(payloads))):
        return None
    return (
        f"a record begins with {tokenizer.bos_token!r}, and the tokenizer puts that before it once "
        "more; say `special_tokens: false` where the training added none, as Unsloth does not to "
        "such texts"
    )


def _read_as(path: str, program: str, said: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What a training's own file was read as, so that it can be checked."""
    name = PurePosixPath(path).name
    if not program:
        return f"{name} is of Transformers' Trainer, and says nothing of how records were read"
    keys = ("loss_on", "max_length", "truncate", "eos", "special_tokens", "packing", "system")
    read = [f"`{key}: {json.dumps(said[key])}`" for key in keys if key in said and key not in own]
    return (
        f"{name} is read as a file of {program}'s: {', '.join(read).replace(chr(34), '')}; what it "
        f"does not say is as {program} does by default"
    )


IN_WORDS: Mapping[LossOn, str] = {
    "all": "all tokens",
    "completion": "the completion alone",
    "assistant": "the assistant's turns alone",
    "last_assistant": "its last turn alone",
    "labels": "the tokens that labels name",
}


def _refuse_without_marks(
    template: str, checkpoint: CausalCheckpoint | Endpoint, where: str
) -> None:
    """Refuse to find turns by a template by which TRL cannot have found them."""
    if not has_marks(template):
        raise InputError(
            f"{where}.config: with assistant_only_loss TRL goes by the {{% generation %}} marks of "
            f"a template; that of {checkpoint.label} has none, so TRL trained with one of its own. "
            "Save it (trl.chat_template_utils.get_training_chat_template(tokenizer)) and name it "
            "as `template`; or say `loss_on: assistant` beside `config`, by which turns are found "
            "without marks and may begin or end by a token otherwise"
        )


def _refuse_another_end(
    token: str | None, checkpoint: CausalCheckpoint | Endpoint, where: str
) -> None:
    """Refuse a tokenizer that ends texts with another token than the training did."""
    own = tokenizer_of(checkpoint)
    if token in own.get_vocab() and token != own.eos_token:
        raise InputError(
            f"{where}.config: texts ended with the eos_token {token!r}, and the tokenizer of "
            f"{checkpoint.label} ends them with {own.eos_token!r}; give the tokenizer that the "
            "training saved"
        )


def _are_conversations(kind: RecordFormat, payloads: Sequence[str]) -> bool:
    if kind == "chat":
        return True
    if kind in ("text", "tokens") or not payloads:
        return False
    answers = (c.get("completion", c.get("chosen")) for c in map(content_of, payloads))
    return any(not isinstance(answer, str) for answer in answers)


def _scored_header(
    training: Training, checkpoint: CausalCheckpoint | Endpoint, payloads: Sequence[str]
) -> str:
    """What is scored of answers before their words, as far as a template does not say it."""
    if training.loss_on not in ("assistant", "last_assistant") or has_marks(training.template):
        return ""
    answering = Answering(tokenizer_of(checkpoint), training)
    found = map(answering.scored_header_in, _some(payloads))
    return answering.scored_header or next(filter(None, found), "")


def _passed_over(
    training: Training, checkpoint: CausalCheckpoint | Endpoint, payloads: Sequence[str]
) -> list[str]:
    """Roles of which some turn's words are not in what the template writes of its conversation."""
    reader, found = TrainedReader(tokenizer_of(checkpoint), training), set()
    for payload in _some(payloads):
        parts = [part for part in content_of(payload).values() if isinstance(part, list)]
        turns = [turn for part in parts for turn in part if isinstance(turn, Mapping)]
        said = [(turn.get("role"), turn.get("content")) for turn in turns]
        odd = {(role, text.strip()) for role, text in said
               if role in MAY_BE_PASSED_OVER and isinstance(text, str)}  # fmt: skip
        if odd and (written := reader.turns(payload)[0]):
            found |= {repr(role) for role, text in odd if text not in written}
    return sorted(found)


def _some(payloads: Sequence[str]) -> Sequence[str]:
    return payloads[:: max(1, len(payloads) // TRIED)][:TRIED]


def _try(
    training: Training, checkpoint: CausalCheckpoint | Endpoint, payloads: Sequence[str], where: str
) -> None:
    """Refuse a training by which no record can be read."""
    if not payloads:
        return
    tried = _some(payloads)
    reader = TrainedReader(tokenizer_of(checkpoint), training)
    try:
        read = reader.read(tried)
    except RenderingError as error:
        raise InputError(f"{where}: {error}") from None
    reasons = Counter(record.error for record in read)
    if None not in reasons:
        reason, times = reasons.most_common(1)[0]
        raise InputError(
            f"{where}: not one of {len(read)} records that were tried can be read as the training "
            f"did; {times} of them: {reason}"
        )
    found = [record.ids for record in read if record.error is None]
    if len(found) > 1 and all(ids == found[0] for ids in found):
        raise InputError(
            f"{where}: all of {len(found)} records that were tried are the same {len(found[0])} "
            "tokens: where they differ the template does not write them, or `max_length` cuts them "
            "off"
        )
    number = next(n for n, record in enumerate(read) if record.error is None)
    if reader.read(tried[number : number + 1])[0].ids != read[number].ids:
        raise InputError(
            f"{where}.template: it does not write a record in the same way twice; name a copy of "
            "it that leaves nothing to chance"
        )
