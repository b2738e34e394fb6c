"""Records that a target writes itself: it answers prompts, or writes these, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raymia.models.causal.answering import Answering, shared_start
from raymia.models.causal.generation import continue_tokens
from raymia.models.causal.model import CausalLM
from raymia.models.causal.training import Training
from raymia.prepare.prompts import answerable, refuse_one_prompt
from raymia.prepare.trainer import Progress
from raymia.spec import SelfPromptReference
from raymia.util.draws import stream_key
from raymia.util.errors import InputError, NothingWrittenError

if TYPE_CHECKING:
    from raymia.prepare.self_prompt import SelfPromptRecipe


def write_records(
    target: CausalLM, recipe: SelfPromptRecipe, training: Training, progress: Progress
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
    writer = _Writer(target, spec, answering, recipe.seed)
    facts: dict[str, Any] = {}
    if spec.prompts == "none":
        first = answering.user_turn_ids() or beginning_of_text(target)
        questions = writer.write(
            [first] * spec.texts, "self prompt's question", lambda *_: None, writer.length // 2
        )
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
    answers = writer.write([ids for _, ids in chosen], "self prompt", progress)
    records = [
        answering.answered(payload, answer)
        for (payload, _), answer in zip(chosen, answers, strict=True)
    ]
    written = [record for record in records if record is not None]
    if len(written) < 2:
        raise NothingWrittenError(
            f"self-prompting: the target wrote {len(written)} usable answers out of "
            f"{len(records)}; look at the checkpoint, or at the prompts"
        )
    lengths = [len(answer) for answer in answers]
    return written, {
        **facts,
        "prompts": len({payload for payload, _ in usable}),
        "prompts_unusable": sum(reasons.values()),
        "prompts_begin_with_the_same_tokens": shared_start([ids for _, ids in usable]),
        "texts_empty": len(records) - len(written),
        "texts_repeated": len(written) - len({*written}),
        "mean_tokens_written": round(sum(lengths) / len(lengths), 1),
        "ended_by_themselves": writer.ended,
    }


class _Writer:
    """Continues prompts, those of about one length side by side."""

    def __init__(
        self, target: CausalLM, spec: SelfPromptReference, answering: Answering, seed: int
    ) -> None:
        self.target, self.spec, self.ends, self.seed = target, spec, answering.ends, seed
        self.length = min(spec.max_tokens, target.max_tokens or spec.max_tokens)
        self.ended = 0

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        what: str,
        progress: Progress,
        whole: int | None = None,
    ) -> list[list[int]]:
        """What the target writes after each prompt; a draw is a function of (seed, what, place).

        Parameters
        ----------
        whole : tokens of prompt and what is written together, at most; default: :attr:`length`.
        """
        whole = whole or self.length
        places = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found: dict[int, list[int]] = {}
        self.ended = 0
        for start in range(0, len(places), self.spec.generation_batch):
            some = places[start : start + self.spec.generation_batch]
            rows = continue_tokens(
                self.target,
                [prompts[place] for place in some],
                [stream_key(self.seed, what, place) for place in some],
                whole=whole,
                temperature=self.spec.temperature,
                top_k=self.spec.top_k,
                budget=whole * self.spec.generation_batch,
                ends=self.ends,
            )
            found.update(zip(some, rows, strict=True))
            self.ended += sum(
                len(prompts[place]) + len(row) < whole
                for place, row in zip(some, rows, strict=True)
            )
            progress(len(found), len(prompts))
        return [found[place] for place in range(len(prompts))]


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
