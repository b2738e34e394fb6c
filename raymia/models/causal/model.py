"""Causal language models: what a model says of each token of a text.

Which output predicts which token, for a text of tokens t0 t1 t2 t3, padded on the right::

    input      t0   t1   t2   t3   pad
    output     o0   o1   o2   o3   o4
    predicts   t1   t2   t3   -    -        t0 has no context, so it has no log-probability
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.batching import run_batched, worthwhile_tokens
from raymia.models.causal.facts import context_length
from raymia.models.causal.memory import HEAD_CHUNK_BYTES
from raymia.models.causal.windows import Window, windows
from raymia.spec import LongTexts
from raymia.util.errors import InputError

HEAD_TOLERANCE = 1e-6
"""Relative; both ways run the same operations, so a real difference is larger."""

Floats = npt.NDArray[np.float32]
Columns = tuple[Any, ...]
"""token_ids, log_prob, mean_log_prob, std_log_prob, is_top1 of :class:`TokenAnswer`."""


@dataclass(frozen=True)
class TokenAnswer:
    """What a causal model says of the tokens of one text that have a context.

    Attributes
    ----------
    token_ids : int32 [tokens], the tokens that were predicted; None from a server that does not
        say.
    log_prob : float32 [tokens], natural log-probability of each.
    mean_log_prob, std_log_prob : float32 [tokens], mean and standard deviation of log p(z) for z
        drawn from p at that position; None where they were not asked for. The entropy is
        ``-mean_log_prob``.
    is_top1 : bool [tokens], whether the token was the likeliest; None as above.
    truncated : whether the text was longer than the model's limit, so that its end was not scored.
    error : why a server refused the text; None where it did not.
    """

    token_ids: npt.NDArray[np.int32] | None
    log_prob: Floats
    mean_log_prob: Floats | None
    std_log_prob: Floats | None
    is_top1: npt.NDArray[np.bool_] | None
    truncated: bool
    error: str | None = None


class CausalLM:
    """A causal language model ready to answer.

    Parameters
    ----------
    model : a transformers causal model, in eval mode on its device.
    tokenizer : its tokenizer; texts are encoded as the tokenizer does by default.
    batch_tokens : padded tokens per forward pass.
    max_tokens : tokens per forward pass of a text; None takes the model's context.
    long_texts : whether longer texts are cut, or read in overlapping windows (:func:`windows`).
    stride : tokens from one window to the next; None takes half of ``max_tokens``.
    one_by_one : never put two texts in a batch, as LLM.int8 needs it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_tokens: int,
        max_tokens: int | None = None,
        long_texts: LongTexts = "cut",
        stride: int | None = None,
        one_by_one: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.one_by_one = one_by_one
        self.device = model.get_input_embeddings().weight.device
        limits = [max_tokens, _context_left(model)]
        self.max_tokens = min((n for n in limits if n is not None), default=None)
        if stride is not None and self.max_tokens is not None and stride >= self.max_tokens:
            raise InputError(
                f"stride: {stride} is not less than the {self.max_tokens} tokens that the model "
                "reads at once, so the first token of a window would have no context; give a "
                "smaller stride"
            )
        self.long_texts = long_texts
        self.stride = stride or max(1, (self.max_tokens or 0) // 2)
        self.head = Head(model)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize as the tokenizer does by default (a BOS where it adds one), uncut."""
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

    def encode_beginnings(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts that something is to follow: without the end that some tokenizers add."""
        end = self.tokenizer.eos_token_id
        return [
            ids[:-1] if ids and ids[-1] == end and not text.endswith(self.tokenizer.eos_token)
            else ids
            for ids, text in zip(self.encode(texts), texts, strict=True)
        ]  # fmt: skip

    def answer(self, texts: Sequence[str], *, moments: bool) -> list[TokenAnswer]:
        """Ask for the log-probability of every token of every text, in input order.

        Parameters
        ----------
        texts : the texts; each is answered as if it were alone.
        moments : also ask for the moments of log p and for the top-1 flags.
        """
        if not texts:
            return []
        full = self.encode(texts)
        parts = [(tokens, part) for tokens in full for part in self._parts(len(tokens))]
        ids = [tokens[part.start : part.end] for tokens, part in parts]

        def run(batch: list[int]) -> list[Columns]:
            answers = self._forward([ids[i] for i in batch], moments)
            # Output o predicts token o + 1, and the first token of a text is not scored.
            known = [max(0, parts[i][1].scored_from - parts[i][1].start - 1) for i in batch]
            return [
                tuple(c if c is None else c[k:] for c in answer)
                for k, answer in zip(known, answers, strict=True)
            ]

        answers = iter(
            run_batched(
                [len(tokens) for tokens in ids],
                run,
                budget=self.batch_tokens,
                most=1 if self.one_by_one else None,
                least=worthwhile_tokens(self.batch_tokens),
            )
        )
        return [_whole(len(tokens), self._parts(len(tokens)), answers) for tokens in full]

    def _parts(self, length: int) -> list[Window]:
        if self.max_tokens is None or length <= self.max_tokens:
            return [Window(0, length, 0)]
        if self.long_texts == "cut":
            return [Window(0, self.max_tokens, 0)]
        return windows(length, self.max_tokens, self.stride)

    @torch.inference_mode()
    def _forward(self, ids: list[list[int]], moments: bool) -> list[Columns]:
        width = max(len(tokens) for tokens in ids)
        if width < 2:
            empty = np.zeros(0, dtype=np.float32)
            flags = empty.astype(np.bool_)
            nothing = (empty, empty, flags) if moments else (None, None, None)
            return [(empty.astype(np.int32), empty, *nothing) for _ in ids]
        padded = torch.tensor([t + [0] * (width - len(t)) for t in ids], device=self.device)
        lengths = torch.tensor([len(t) for t in ids], device=self.device)
        positions = torch.arange(width, device=self.device)
        mask = positions[None, :] < lengths[:, None]
        hidden = self.head.hidden(mask.long(), input_ids=padded)[:, :-1]
        labels = padded[:, 1:]
        scored = mask[:, 1:]
        columns = self.head.log_probs(hidden[scored], labels[scored], moments)
        counts = [max(0, len(t) - 1) for t in ids]
        token_ids = np.split(labels[scored].cpu().numpy().astype(np.int32), np.cumsum(counts)[:-1])
        split = [
            [None] * len(ids) if c is None else np.split(c.cpu().numpy(), np.cumsum(counts)[:-1])
            for c in columns
        ]
        return list(zip(token_ids, *split, strict=True))


def _whole(length: int, parts: list[Window], answers: Iterator[Columns]) -> TokenAnswer:
    """Put the answers on a text's windows together."""
    found = [next(answers) for _ in parts]
    columns: Iterator[Any] = (
        None if column[0] is None else column[0] if len(column) == 1 else np.concatenate(column)
        for column in zip(*found, strict=True)
    )
    tokens, log_prob, mean, std, top1 = columns
    return TokenAnswer(tokens, log_prob, mean, std, top1, truncated=parts[-1].end < length)


class Head:
    """Hidden states first, then the vocabulary in chunks of positions."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.output = self.body.get_output_embeddings()
        self.chunked = self.output is not None and self._agrees()

    def hidden(self, mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Last hidden states [batch, length, width]; the logits themselves where the model's head
        is more than one linear map.

        Parameters
        ----------
        mask : [batch, length]; longer by the cached positions where ``past_key_values`` is given.
        inputs : ``input_ids`` or ``inputs_embeds``, and whatever else the model takes.
        """
        states: torch.Tensor = self.output_of(mask, **inputs)[0]
        given = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        # Adapters that prepend virtual tokens return logits for these too.
        return states[:, -given.shape[1] :]

    def output_of(self, mask: torch.Tensor, **inputs: Any) -> Any:
        """The model's own output, whose first entry is what :meth:`hidden` returns."""
        model = self.body.base_model if self.chunked else self.model
        return model(attention_mask=mask, **{"use_cache": False, **inputs})

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states, float32 [..., vocabulary]."""
        return (self.output(hidden) if self.chunked else hidden).float()

    def log_probs(
        self, hidden: torch.Tensor, labels: torch.Tensor, moments: bool
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probability of each label, and the moments where asked for; all float32 [tokens]."""
        vocabulary = self.body.config.get_text_config().vocab_size
        rows = max(1, HEAD_CHUNK_BYTES // (4 * vocabulary))
        # Filled in place: small results that are kept between the chunks would keep the allocator
        # from using the memory of one chunk for the next.
        count = len(labels)
        columns = [hidden.new_empty(count, dtype=torch.float32) for _ in range(3 * moments or 1)]
        if moments:
            columns.append(hidden.new_empty(count, dtype=torch.bool))
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            logits = self.logits(hidden[part])
            for column, answer in zip(
                columns, _answers(logits, labels[part], moments), strict=True
            ):
                column[part] = answer
        return tuple(columns) if moments else (*columns, None, None, None)

    @torch.inference_mode()
    def _agrees(self) -> bool:
        """Check that hidden states times the output matrix are this model's logits.

        They are not where an architecture scales or caps its logits, or where a PEFT method adds
        inputs of its own (prefixes, prompts); such a model is asked for its logits instead.
        """
        device = self.model.get_input_embeddings().weight.device
        vocabulary = self.body.config.get_text_config().vocab_size
        ids = torch.arange(8, device=device)[None] % vocabulary
        mask = torch.ones_like(ids)
        try:
            states = self.body.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            ours = self.output(states).float()
        except (TypeError, RuntimeError, AttributeError):
            return False
        theirs = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        if ours.shape != theirs.shape:
            return False
        return bool((ours - theirs).abs().max() <= HEAD_TOLERANCE * theirs.abs().max().clamp_min(1))


def _answers(logits: torch.Tensor, label: torch.Tensor, moments: bool) -> tuple[torch.Tensor, ...]:
    """Log-probability and, where asked for, mean and standard deviation of log p and top-1 flag.

    The logits are overwritten: the vocabulary is large and each pass over it is slow.
    """
    top = logits.max(-1, keepdim=True)
    shifted = logits.sub_(top.values)  # log p + log_z
    labelled = shifted.gather(-1, label[:, None])[:, 0]
    # A token of probability 0 adds nothing: 0 * -inf is 0 here, not NaN.
    weights = shifted.clamp_min_(-1e30).exp()
    z = weights.sum(-1)
    log_z = z.log()
    if not moments:
        return (labelled - log_z,)
    average = torch.linalg.vecdot(weights, shifted) / z
    deviation = shifted.sub_(average[:, None])
    variance = torch.linalg.vecdot(weights.mul_(deviation), deviation) / z
    return labelled - log_z, average - log_z, variance.sqrt(), top.indices[:, 0] == label


def _context_left(model: Any) -> int | None:
    """The context less what a PEFT method puts before each text (prefixes, prompts)."""
    context = context_length(model.config)
    method = getattr(model, "active_peft_config", None)
    taken = getattr(method, "num_virtual_tokens", None) or 0
    return None if context is None else context - taken
