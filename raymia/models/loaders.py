"""Small recipes from which an actor loads its model; what travels to a worker, never weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from raymia.errors import RaymiaError
from raymia.models.endpoint import Endpoint, connect
from raymia.models.source import Checkpoint, fingerprint


class Loader(Protocol):
    """Loads a model that probes can be put to."""

    @property
    def checkpoint(self) -> Checkpoint | Endpoint:
        """The files or the server, and the fingerprint that the planner saw."""

    def load(self) -> Any:
        """Load the model on the machine this is called on."""


def _check(checkpoint: Checkpoint) -> None:
    """Refuse files other than those the plan was made for.

    A folder that changed, or another machine's stale copy of it, would file one checkpoint's
    answers under the key of another.
    """
    try:
        found = fingerprint(checkpoint)
    except OSError as error:
        found = f"none: {error}"
    if found != checkpoint.fingerprint:
        raise RaymiaError(
            f"{checkpoint.adapter or checkpoint.path}: these are not the files that the audit was "
            f"planned with (fingerprint {found}, expected {checkpoint.fingerprint}). Every machine "
            "must see the same checkpoint, and nothing may write to it during an audit"
        )


@dataclass(frozen=True)
class CausalLMLoader:
    """Loads a causal language model."""

    checkpoint: Checkpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.causal_lm import load_causal_lm

        _check(self.checkpoint)
        return load_causal_lm(self.checkpoint, batch_tokens=self.batch_tokens)


@dataclass(frozen=True)
class EndpointLoader:
    """Connects to a language model behind an endpoint, whose limits ``actors`` workers share."""

    checkpoint: Endpoint
    actors: int

    def load(self) -> Any:
        return connect(self.checkpoint, share=self.actors)


@dataclass(frozen=True)
class MaskFillerLoader:
    """Loads a T5-like model that fills masks."""

    checkpoint: Checkpoint
    batch_tokens: int

    def load(self) -> Any:
        from raymia.models.mask_filler import load_mask_filler

        _check(self.checkpoint)
        return load_mask_filler(self.checkpoint.path, batch_tokens=self.batch_tokens)
