"""How an actor loads a causal language model, and several on one base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raymia.models.causal.adapters import switchable_method
from raymia.models.causal.memory import memory
from raymia.models.loaders import Loader, Sharing
from raymia.models.memory import Memory
from raymia.models.one_base import load_on_one_base
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.causal.resolver import CausalCheckpoint


@dataclass(frozen=True)
class CausalLMLoader(Loader):
    """Loads a causal language model.

    Attributes
    ----------
    batch_tokens : padded tokens per forward pass.
    """

    checkpoint: CausalCheckpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.causal.family import load_causal_lm

        self.checkpoint.check()
        return load_causal_lm(self.checkpoint, batch_tokens=self.batch_tokens)

    def memory(self, once: Once) -> Memory | None:
        return memory(self.checkpoint, self.batch_tokens, once)

    @cached_property
    def sharing(self) -> Sharing | None:
        """The base is the same folder in the same quantization and dtype, and what is put on it can
        be switched: the bare base, and adapters of one :func:`switchable_method` that leave the
        embedding as large as it is."""
        c = self.checkpoint
        method = None if c.adapter is None else switchable_method(c.adapter)
        if c.adapter is not None and (method is None or c.rows is not None):
            return None
        base = (c.path, c.gguf_file, c.quantization, c.dtype, c.trust_remote_code)
        return Sharing(base, method)

    def load_with(self, others: Sequence[Loader]) -> Callable[[int], Any]:
        loaders = [self, *(other for other in others if isinstance(other, CausalLMLoader))]
        if len(loaders) != 1 + len(others):
            raise ValueError("models that share a base are all causal language models")
        return load_on_one_base(loaders, _load)


def _load(loaders: Sequence[CausalLMLoader]) -> Callable[[int], Any]:
    from raymia.models.causal.family import CausalLMFamily

    checkpoints = [loader.checkpoint for loader in loaders]
    return CausalLMFamily(checkpoints, [loader.batch_tokens for loader in loaders]).use
