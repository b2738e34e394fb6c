"""A target writes on from prompts, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from raymia.models.causal.generation import continue_tokens
from raymia.models.causal.model import CausalLM
from raymia.models.endpoints.writing import Server
from raymia.prepare.parts import Batch, Parts
from raymia.prepare.served import Served
from raymia.prepare.trainer import Progress
from raymia.spec import SelfPromptReference
from raymia.util.draws import stream_key
from raymia.util.hashing import digest

TEXTS, QUESTIONS = "self prompt", "self prompt's question"
"""What is written; parts of the draws' keys."""


class Writer:
    """Continues prompts, those of about one length side by side.

    Parameters
    ----------
    ends : tokens that end a text, beside the model's own.
    server : writes in place of the model that was loaded.
    with_end : whether the token that ended a text stands at its end.

    Attributes
    ----------
    length : tokens of a prompt and what is written after it, at most.
    """

    def __init__(
        self,
        target: CausalLM,
        spec: SelfPromptReference,
        seed: int,
        parts: Parts,
        ends: Collection[int] = (),
        server: Server | None = None,
        *,
        with_end: bool = False,
    ) -> None:
        self.target, self.spec, self.seed, self.parts, self.ends = target, spec, seed, parts, ends
        self.with_end = with_end
        self.served = None if server is None else Served(server, target, ends)
        self.length = min(spec.max_tokens, target.max_tokens or spec.max_tokens)

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
        whole, side_by_side = whole or self.length, self.spec.generation_batch
        places = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))

        def write(batches: Sequence[Batch], tell: Callable[[int], None]) -> pa.Table:
            rows: list[list[int]] = []
            for some in batches:
                given = [prompts[place] for place in some]
                keys = [stream_key(self.seed, what, place) for place in some]
                how: dict[str, Any] = {
                    "whole": whole, "temperature": self.spec.temperature,
                    "top_k": self.spec.top_k, "with_end": self.with_end,
                }  # fmt: skip
                if self.served is not None:
                    rows += self.served.write(given, keys, **how)
                else:
                    rows += continue_tokens(
                        self.target, given, keys, budget=whole * side_by_side, ends=self.ends, **how
                    )
                tell(len(rows))
            return pa.table({"ids": pa.array(rows, pa.list_(pa.int32()))})

        starts = range(0, len(places), side_by_side)
        batches = [places[start : start + side_by_side] for start in starts]
        asked = digest([[*prompt] for prompt in prompts])
        found = self.parts.written(what, batches, write, progress, asked)["ids"].to_pylist()
        in_order: list[list[int]] = [[] for _ in places]
        for place, ids in zip(places, found, strict=True):
            in_order[place] = ids
        return in_order
