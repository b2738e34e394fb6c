"""Texts one after another in one row, each with positions and an attention of its own.

    input       t0 t1 t2 t3   u0 u1   v0 v1 v2
    positions    0  1  2  3    0  1    0  1  2

Nothing is padding, and what is computed for a text does not depend on those beside it, but for
rounding: by the length of the row a matrix product may choose the order of its sums. Only in
attention do a transformer's tokens meet; there each text is given the mask that transformers makes
for it alone. That only attention does so is known of the architectures in :data:`KINDS`. A model of
these is asked so if it says the same of a few made-up texts in a row as of the same texts padded,
and if each of its layers asked for attention in this way. What others are given is padded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raymia.models.batching import is_lost_device, is_out_of_memory
from raymia.models.causal.causality import FIRST, dtype_of

if TYPE_CHECKING:
    from raymia.models.causal.model import CausalLM

NAME = "raymia_packed"
"""What transformers knows the attention by."""
KINDS = frozenset({
    "arcee", "biogpt", "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5",
    "exaone4", "gemma", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gptj",
    "granite", "granitemoe", "helium", "llama", "mistral", "mixtral", "nemotron", "olmo", "olmo2",
    "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "seed_oss", "smollm3", "stablelm", "starcoder2",
})  # fmt: skip
"""Model types of transformers whose tokens meet in attention alone, and whose attention is asked
for by name; a test holds each to its answers on single texts."""
LENGTHS = (9, 7, 7, 1, 4)
"""Tokens of the texts that a model is tried on."""
HALF = (torch.float16, torch.bfloat16)
ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-4}
"""By what share of their size logits may differ where nothing but the order of sums does, by the
type of the weights."""
COARSE = 0.1
"""The same for types of less precision, whose rounding adds up over layers: it comes to 1e-2, and
what a text would see of the one before it to more than half."""
LOG = logging.getLogger(__name__)
_ROW: ContextVar[_Row] = ContextVar("row of texts")


@dataclass
class _Row:
    """Texts in one row.

    Attributes
    ----------
    lengths : tokens of each.
    layers : how often attention was asked for.
    """

    lengths: list[int]
    layers: int = 0
    _ends: dict[torch.device, Tensor] = field(default_factory=dict)

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Where texts of one length begin, how many there are in turn, and their length."""
        start = 0
        for length, equal in groupby(self.lengths):
            count = len(list(equal))
            if length:
                yield start, count, length
            start += count * length

    def ends(self, device: torch.device) -> Tensor:
        """int32 [texts + 1], where each text begins, and where the last ends."""
        if device not in self._ends:
            ends = [0, *accumulate(length for length in self.lengths if length)]
            self._ends[device] = torch.tensor(ends, dtype=torch.int32, device=device)
        return self._ends[device]


@dataclass(frozen=True)
class _Masks:
    """By a text's length, the mask that it would have alone; None where it is only causal."""

    row: _Row
    of: dict[int, Tensor | None]


def hidden_of_row(model: CausalLM, ids: Sequence[Sequence[int]]) -> Tensor:
    """What enters the output layer for each token of some texts, one after another [tokens, width].

    The model has to be one that :func:`answers_in_a_row`.
    """
    row = _Row([len(tokens) for tokens in ids])
    return _run(model, ids, row)


def answers_in_a_row(model: CausalLM) -> bool:
    """Whether a model may be asked so; found out by asking it for texts in a row, and padded."""
    config = _config(model)
    fits = model.max_tokens is None or model.max_tokens >= max(LENGTHS)
    if model.one_by_one or not fits or not _is_known(model, config):
        return False
    tokens = iter(range(FIRST, FIRST + sum(LENGTHS)))
    ids = [[next(tokens) % model.rows for _ in range(length)] for length in LENGTHS]
    row = _Row([*LENGTHS])
    try:
        with torch.inference_mode():
            in_row = model.head.logits(_run(model, ids, row))
            padded = model.head.logits(_padded(model, ids))
    except Exception as error:  # of any kind, by what the architecture does with the row
        if is_out_of_memory(error) or is_lost_device(error):
            raise
        LOG.info("texts are padded: in a row they cannot be run (%s)", error)
        return False
    is_same = _gap(in_row, padded) <= ROUNDING.get(dtype_of(model), COARSE)  # NaN is not
    return is_same and row.layers == config.num_hidden_layers


def _gap(one: Tensor, other: Tensor) -> float:
    """How far logits lie apart, as a share of how far they spread over the vocabulary: of all
    together, as rounding moves single ones a lot, and without what a token's logits have in common,
    on which no probability depends."""
    of_one, of_other = (logits - logits.mean(-1, keepdim=True) for logits in (one, other))
    return float((of_one - of_other).norm() / of_other.norm())


def _is_known(model: CausalLM, config: Any) -> bool:
    """Whether tokens are known to meet in attention alone, and attention to be fast in a row."""
    is_ours = type(model.head.body).__module__.startswith("transformers.")  # not its own code
    is_standard = config.model_type in KINDS and config._attn_implementation == "sdpa"
    is_fast = model.device.type != "cuda" or dtype_of(model) in HALF
    return is_ours and is_standard and is_fast and _is_plain_adapter(model.model)


def _is_plain_adapter(model: Any) -> bool:
    """Whether what is put on a model does to each token the same, whatever stands beside it: of
    PEFT's methods LoRA, but for the one that begins after certain tokens."""
    settings = getattr(model, "active_peft_config", None)
    if settings is None:
        return True
    return settings.peft_type == "LORA" and not begins_after_tokens(settings)


def begins_after_tokens(settings: Any) -> bool:
    """Whether an adapter changes nothing before the tokens that invoke it (activated LoRA), which
    it looks for in all that it is given at once."""
    return bool(getattr(settings, "alora_invocation_tokens", None))


def _run(model: CausalLM, ids: Sequence[Sequence[int]], row: _Row) -> Tensor:
    tokens = torch.tensor([[t for text in ids for t in text]], device=model.device)
    places = [n for text in ids for n in range(len(text))]
    positions = torch.tensor([places], device=model.device)
    with _attention_of(model, row):
        states = model.head.hidden(
            torch.ones_like(tokens), input_ids=tokens, position_ids=positions
        )
    return states[0]


def _padded(model: CausalLM, ids: Sequence[list[int]]) -> Tensor:
    states, starts = model.padded(ids)
    return torch.cat([states[n : n + len(t)] for n, t in zip(starts, ids, strict=True)])


def _config(model: CausalLM) -> Any:
    return model.head.body.config.get_text_config()


@contextmanager
def _attention_of(model: CausalLM, row: _Row) -> Iterator[None]:
    """Have a model's layers ask here for attention."""
    _register()
    config = _config(model)
    before, token = config._attn_implementation, _ROW.set(row)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _ROW.reset(token)


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _masks)


def _masks(*, mask_function: Any, **options: Any) -> _Masks:
    """What transformers asks for as a mask; see ``transformers.masking_utils.sdpa_mask``."""
    from transformers.masking_utils import sdpa_mask

    row = _ROW.get()
    of_one = {"batch_size": 1, "q_offset": 0, "kv_offset": 0, "attention_mask": None}
    return _Masks(
        row,
        {
            length: sdpa_mask(
                **{**options, **of_one, "q_length": length, "kv_length": length},
                mask_function=mask_function,
            )
            for length in {*row.lengths} - {0}
        },
    )


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: _Masks, **given: Any
) -> tuple[Tensor, None]:
    """What transformers asks for as attention.

    Parameters
    ----------
    query, key, value : [1, heads, tokens of the row, width of a head].

    Returns
    -------
    attention : [1, tokens of the row, heads, width of a head].
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attention_mask.row.layers += 1
    is_causal = all(mask is None for mask in attention_mask.of.values())
    if is_causal and query.device.type == "cuda" and query.dtype in HALF:
        return _by_kernel(query, key, value, attention_mask.row, given.get("scaling")), None
    parts = []
    for start, count, length in attention_mask.row.runs():
        own = [_apart(states, start, count, length) for states in (query, key, value)]
        mask = attention_mask.of[length]
        if mask is not None:
            mask = mask.to(query.device)  # layers may lie on several
        part, _ = sdpa_attention_forward(module, *own, mask, **given)
        parts.append(part.reshape(1, count * length, *part.shape[2:]))
    return torch.cat(parts, dim=1), None


def _apart(states: Tensor, start: int, count: int, length: int) -> Tensor:
    """Texts of one length as a batch [texts, heads, length, width of a head]."""
    of_run = states[0, :, start : start + count * length]
    return of_run.reshape(len(of_run), count, length, -1).transpose(0, 1)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, row: _Row, scale: float | None) -> Tensor:
    """Flash attention over texts of different lengths."""
    from torch.nn.attention.varlen import varlen_attn

    ends, longest = row.ends(query.device), max(row.lengths)
    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    found = varlen_attn(
        q, k, v, ends, ends, longest, longest, scale=scale, window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
        num_splits=1,  # else a text's sums would depend on the longest beside it
    )  # fmt: skip
    assert isinstance(found, Tensor)
    return found[None]
