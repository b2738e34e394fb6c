"""Letting a causal language model write, with draws that are a function of counters."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from raymia.models.batching import run_batched
from raymia.models.causal.model import CausalLM
from raymia.models.sampling import CounterSampler
from raymia.models.token_ids import refuse_unknown


def continue_tokens(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[int],
    *,
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    budget: int,
    ends: Collection[int] = (),
) -> list[list[int]]:
    """Sample a continuation of each prompt, up to where the model ends it.

    A continuation does not depend on the others: draws are counter-based, and a row with a draw
    that rounding could have decided is sampled again alone.

    Parameters
    ----------
    prompts : token ids, all of one length.
    keys : one per prompt, from :func:`raymia.util.draws.stream_key`.
    budget : tokens of the texts that are written side by side.
    ends : tokens that end a text, beside the model's own.

    Returns
    -------
    The new tokens of each prompt, without the end-of-text token.
    """

    refuse_unknown(prompts, model.rows, model.tokenizer)

    def run(batch: list[int]) -> list[list[int]]:
        starts, own = [prompts[i] for i in batch], [keys[i] for i in batch]
        rows, close_calls = _sample(model, starts, own, new_tokens, temperature, top_k, ends)
        for n, close in enumerate(close_calls):
            if close and len(batch) > 1:
                rows[n] = run([batch[n]])[0]
        return rows

    return run_batched(
        [len(prompt) + new_tokens for prompt in prompts],
        run,
        budget=budget,
        max_rows=1 if model.one_by_one else None,
    )


@torch.inference_mode()
def _sample(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[int],
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    more_ends: Collection[int],
) -> tuple[list[list[int]], list[bool]]:
    tokenizer = model.tokenizer
    ids = torch.tensor([list(p) for p in prompts], device=model.device)
    ends = model.model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), *more_ends}
    sampler = CounterSampler(list(keys), temperature, top_k)
    output = model.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=1,
        max_new_tokens=new_tokens,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        logits_processor=[sampler],
        **({"eos_token_id": sorted(e for e in ends if e is not None)} if more_ends else {}),
    )
    rows = [_up_to_end(row, ends) for row in output[:, ids.shape[1] :].tolist()]
    return rows, sampler.close_calls.tolist()


def _up_to_end(tokens: list[int], ends: set[int]) -> list[int]:
    """Cut where the model ended the text; what stands after that is padding."""
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]
