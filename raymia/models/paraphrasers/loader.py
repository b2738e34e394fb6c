"""How an actor loads a model that makes neighbors of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.loaders import Loader
from raymia.models.memory import Memory
from raymia.models.paraphrasers.memory import memory
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.paraphrasers.resolver import InfillerCheckpoint, MaskFillerCheckpoint


@dataclass(frozen=True)
class MaskFillerLoader(Loader):
    """Loads a T5-like model that fills masks."""

    checkpoint: MaskFillerCheckpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.paraphrasers.mask_filler import load_mask_filler

        self.checkpoint.check()
        return load_mask_filler(self.checkpoint.path, batch_tokens=self.batch_tokens)

    def memory(self, once: Once) -> Memory | None:
        return memory(self.checkpoint, self.batch_tokens, once)


@dataclass(frozen=True)
class InfillerLoader(Loader):
    """Loads a causal language model that fills spans."""

    checkpoint: InfillerCheckpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.causal.family import load_causal_lm
        from raymia.models.paraphrasers.infiller import CausalInfiller

        self.checkpoint.check()
        return CausalInfiller(load_causal_lm(self.checkpoint.lm, batch_tokens=self.batch_tokens))

    def memory(self, once: Once) -> Memory | None:
        return memory(self.checkpoint, self.batch_tokens, once)
