"""Letting a causal language model write, with draws that are a function of counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch

from raymia.models.batching import run_batched
from raymia.models.causal.beginnings import tokens_kept
from raymia.models.causal.model import CausalLM
from raymia.models.sampling import CounterSampler
from raymia.models.token_ids import refuse_unknown, up_to_end

STRETCH = 16
"""Tokens that are written before rows that have ended are let go of."""


def continue_tokens(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[int],
    *,
    whole: int,
    temperature: float,
    top_k: int | None,
    budget: int,
    ends: Collection[int] = (),
    with_end: bool = False,
) -> list[list[int]]:
    """Sample a continuation of each prompt, up to where the model ends it.

    A continuation does not depend on the others: draws are counter-based, and a row with a draw
    that rounding could have decided is sampled again alone. Prompts of several lengths are written
    side by side where the model answers the same behind padding; else those of one length are.

    Parameters
    ----------
    prompts : token ids.
    keys : one per prompt, from :func:`raymia.util.draws.stream_key`.
    whole : tokens of a prompt and its continuation together, at most.
    budget : tokens of the texts that are written side by side.
    ends : tokens that end a text, beside the model's own.
    with_end : whether the token that ended a text stands at its end.

    Returns
    -------
    The new tokens of each prompt.
    """
    refuse_unknown(prompts, model.rows, model.tokenizer)
    writer = _Writer(model, whole, temperature, top_k, ends, with_end)

    def run(batch: list[int]) -> list[list[int]]:
        rows, close_calls = writer.write([prompts[i] for i in batch], [keys[i] for i in batch])
        for n, close in enumerate(close_calls):
            if close and len(batch) > 1:
                rows[n] = run([batch[n]])[0]
        return rows

    def some(places: list[int], batch: list[int]) -> list[list[int]]:
        return run([places[i] for i in batch])

    groups: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[0 if writer.in_stretches else len(prompt)].append(place)
    alone = model.one_by_one or (model.apart is not None and whole > model.apart)
    found: dict[int, list[int]] = {}
    for places in groups.values():
        rows = run_batched(
            [whole] * len(places),
            partial(some, places),
            budget=budget,
            max_rows=1 if alone else None,
        )
        found.update(zip(places, rows, strict=True))
    return [found[place] for place in range(len(prompts))]


def ends_of(model: CausalLM) -> set[int]:
    """Tokens with which a model ends a text."""
    own = model.model.generation_config.eos_token_id
    return {*(own if isinstance(own, list) else [own])} - {None}


class _Writer:
    """Writes rows side by side.

    Attributes
    ----------
    in_stretches : whether rows that have ended are let go of, and prompts are of several lengths.
    """

    def __init__(
        self,
        model: CausalLM,
        whole: int,
        temperature: float,
        top_k: int | None,
        ends: Collection[int],
        with_end: bool,
    ) -> None:
        self.model, self.whole, self.temperature, self.top_k = model, whole, temperature, top_k
        self.ends, self.with_end = ends_of(model) | {*ends}, with_end
        self.in_stretches = tokens_kept(model) > 0

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[int]
    ) -> tuple[list[list[int]], list[bool]]:
        """The new tokens of each prompt, and whether rounding could have decided one of them."""
        sampler = CounterSampler(list(keys), self.temperature, self.top_k)
        width = max(map(len, prompts))
        device = self.model.device
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
        rooms = [self.whole - len(prompt) for prompt in prompts]
        written: list[list[int]] = [[] for _ in prompts]
        live, cache = [n for n, room in enumerate(rooms) if room > 0], None
        if len(live) < len(prompts):
            raise ValueError(f"a prompt leaves no room for a continuation in {self.whole} tokens")
        while live:
            left = max(rooms[n] - len(written[n]) for n in live)
            steps = min(left, STRETCH) if self.in_stretches else left
            output = self._go_on(ids, mask, cache, steps, sampler)
            new = output.sequences[:, ids.shape[1] :]
            kept = []
            for place, (n, tokens) in enumerate(zip(live, new.tolist(), strict=True)):
                written[n] = (written[n] + tokens)[: rooms[n]]
                if not self.ends.intersection(tokens) and len(written[n]) < rooms[n]:
                    kept.append(place)
            live = [live[place] for place in kept]
            if live:
                rows = torch.tensor(kept, device=device)
                cache = output.past_key_values
                cache.batch_select_indices(rows)
                ids = output.sequences[rows]
                mask = torch.cat([mask[rows], mask.new_ones(len(rows), new.shape[1])], dim=1)
                sampler.keep(kept)
        # What stands after an end is padding.
        stops = [up_to_end(tokens, self.ends) for tokens in written]
        return (
            [row[: stop + self.with_end] for row, stop in zip(written, stops, strict=True)],
            [close <= stop for close, stop in zip(sampler.first_close, stops, strict=True)],
        )

    def _go_on(self, ids: Any, mask: Any, cache: Any, steps: int, sampler: CounterSampler) -> Any:
        pad = self.model.tokenizer.pad_token_id
        return self.model.model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            do_sample=False,
            num_beams=1,
            max_new_tokens=steps,
            pad_token_id=0 if pad is None else pad,
            logits_processor=[sampler],
            return_dict_in_generate=True,
            **({"eos_token_id": sorted(self.ends)} if self.ends else {}),
        )
