"""Records that a target writes itself: it answers prompts, or writes these, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raymia.models.causal.answering import Answering, shared_start
from raymia.models.causal.generation import ends_of
from raymia.models.causal.model import CausalLM
from raymia.models.causal.training import Training
from raymia.models.token_ids import up_to_end
from raymia.prepare.parts import Parts
from raymia.prepare.prompts import answerable, refuse_no_room, refuse_one_prompt
from raymia.prepare.trainer import Progress
from raymia.prepare.writer import QUESTIONS, TEXTS, Writer
from raymia.util.errors import InputError, NothingWrittenError

if TYPE_CHECKING:
    from raymia.prepare.self_prompt import SelfPromptRecipe


def write_records(
    target: CausalLM,
    recipe: SelfPromptRecipe,
    training: Training,
    progress: Progress,
    parts: Parts | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """Let the target answer prompts, record i prompt ``i % prompts``, or prompts of its own.

    Returns
    -------
    Payloads of records, and facts about them.

    Raises
    ------
    InputError
        If no prompt can be used, all begin with the same tokens and nothing else, or the target
        writes next to nothing.
    """
    spec, answering = recipe.spec, Answering(target.tokenizer, training)
    # Templates write an end where an answer is read; to tokens nothing is added.
    writer = Writer(
        target, spec, recipe.seed, parts or Parts(), answering.ends, recipe.server,
        with_end=training.format == "tokens",
    )  # fmt: skip
    facts: dict[str, Any] = {}
    if spec.prompts == "none":
        first = answering.user_turn_ids() or beginning_of_text(target)
        refuse_no_room(len(first), writer.length)
        room = (len(first) + writer.length) // 2
        questions = writer.write([first] * spec.texts, QUESTIONS, lambda *_: None, room)
        asked = [answering.asking(question) for question in questions]
        payloads = [payload for payload in asked if payload is not None]
        facts["prompts_empty"] = len(asked) - len(payloads)
    else:
        payloads = list(recipe.prompts)
    usable, reasons = answerable(payloads, answering, writer.length)
    if spec.prompts == "none":
        chosen = usable
    else:
        chosen = [usable[i % len(usable)] for i in range(spec.texts)]
        refuse_one_prompt([ids for _, ids in usable])
    answers = writer.write([ids for _, ids in chosen], TEXTS, progress)
    ends = ends_of(target) | answering.ends
    lengths = [up_to_end(answer, ends) for answer in answers]
    records = [
        answering.answered(payload, answer) if length else None
        for (payload, _), answer, length in zip(chosen, answers, lengths, strict=True)
    ]
    written = [record for record in records if record is not None]
    if len(written) < 2:
        raise NothingWrittenError(
            f"self-prompting: the target wrote {len(written)} usable answers out of "
            f"{len(records)}; look at the checkpoint, or at the prompts"
        )
    return written, {
        **facts,
        "prompts": len({payload for payload, _ in usable}),
        "prompts_unusable": sum(reasons.values()),
        "prompts_begin_with_the_same_tokens": shared_start([ids for _, ids in usable]),
        "texts_empty": len(records) - len(written),
        "texts_repeated": len(written) - len({*written}),
        "mean_tokens_written": round(sum(lengths) / len(lengths), 1),
        "ended_by_themselves": sum(
            len(ids) + length < writer.length
            for (_, ids), length in zip(chosen, lengths, strict=True)
        ),
    }


def beginning_of_text(target: CausalLM) -> list[int]:
    """What stands for the beginning of a text."""
    tokenizer = target.tokenizer
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if begin is None:
        raise InputError(
            "self-prompting: `prompts: none` has the target begin by itself, and its tokenizer has "
            "no token for the beginning of a text; name files of prompts"
        )
    return [int(begin)]
