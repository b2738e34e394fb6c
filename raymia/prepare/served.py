"""Texts that a server of the target writes, which is first seen to have the target's weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import torch

from raymia.models.causal.generation import ends_of
from raymia.models.causal.model import CausalLM
from raymia.models.endpoints.client import EndpointClient, RefusedError
from raymia.models.endpoints.writing import NEEDED, Server, Written, written_on
from raymia.util.errors import RaymiaError

LOOKS, LOOKED_AT = 4, 16
"""Prompts after which the server writes first, and how many tokens each, at most; the target is
asked about them."""
MAX_DIFFERENCE = 0.1
"""Nats per token by which the two may differ, on average: more than numbers of 16 or 8 bits make of
the same weights. Checkpoints of one training that lie close together may differ by less."""


class Served:
    """A server that writes in place of a target.

    Parameters
    ----------
    target : loaded here; it writes nothing.
    ends : tokens that end a text, beside the model's own.
    """

    def __init__(self, server: Server, target: CausalLM, ends: Collection[int]) -> None:
        self.server, self.target, self.ends = server, target, ends_of(target) | {*ends}
        self.is_known = False

    @cached_property
    def client(self) -> EndpointClient:
        return self.server.client()

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        *,
        whole: int,
        temperature: float,
        top_k: int | None,
        with_end: bool,
    ) -> list[list[int]]:
        """The new tokens of each prompt; see :func:`raymia.models.endpoints.writing.written_on`.

        Raises
        ------
        RaymiaError
            If the server has other weights than the target, or cannot be asked.
        """
        if not self.is_known:
            self._refuse_another_model(prompts[:LOOKS], whole)
            self.is_known = True
        written = written_on(
            self.server, self.client, prompts, seeds, whole=whole, temperature=temperature,
            top_k=top_k, ends=self.ends, with_end=with_end,
        )  # fmt: skip
        return [ids for ids, _ in written]

    def _refuse_another_model(self, prompts: Sequence[Sequence[int]], whole: int) -> None:
        differences: list[float] = []
        for seed, prompt in enumerate(prompts):
            ids, said = self._first_written(prompt, seed, min(whole, len(prompt) + LOOKED_AT))
            own = _log_probs(self.target, [*prompt, *ids])[len(prompt) - 1 :]
            differences += [abs(one - other) for one, other in zip(own, said, strict=True)]
        if not differences:
            raise RaymiaError(
                f"written_by: {self.server.label} writes nothing after the first prompts, so it "
                "cannot be seen whether it has the target's weights; look at the server"
            )
        mean = sum(differences) / len(differences)
        if not mean <= MAX_DIFFERENCE:
            raise RaymiaError(
                f"written_by: {self.server.label} says of the tokens that it writes "
                f"log-probabilities that are {mean:.2g} nats from the target's on average; serve "
                "the target's own weights, or leave the key out"
            )

    def _first_written(self, prompt: Sequence[int], seed: int, whole: int) -> Written:
        try:
            (written,) = written_on(
                self.server, self.client, [prompt], [seed], whole=whole, temperature=1, top_k=None,
                ends=(),
            )  # fmt: skip
        except RefusedError as error:
            if error.status not in (400, 422):
                raise
            raise RaymiaError(f"{error}. {NEEDED}") from None
        return written


@torch.inference_mode()
def _log_probs(target: CausalLM, ids: Sequence[int]) -> list[float]:
    """The log-probability of each token after the first."""
    rows = torch.tensor([ids], device=target.device)
    logits = target.model(input_ids=rows).logits[0, :-1].float()
    found: list[float] = logits.log_softmax(-1).gather(1, rows[0, 1:, None])[:, 0].tolist()
    return found
