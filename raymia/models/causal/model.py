"""Causal language models: what a model says of each token of a text.

Which output predicts which token, for a text of tokens t0 t1 t2 t3, padded on the right::

    input      t0   t1   t2   t3   pad
    output     o0   o1   o2   o3   o4
    predicts   t1   t2   t3   -    -        t0 has no context, so it has no log-probability
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.batching import run_batched, worthwhile_tokens
from raymia.models.causal.facts import context_length, frequencies_change
from raymia.models.causal.head import Head
from raymia.models.causal.packing import answers_in_a_row, hidden_of_row
from raymia.models.causal.reading import Bools, Reader, Rendered, beginnings, encoded
from raymia.models.causal.readings import Readings
from raymia.models.causal.rendering import reader_for
from raymia.models.causal.training import Training
from raymia.models.causal.windows import Window, windows
from raymia.models.lanes import Twins, lanes_here
from raymia.models.token_ids import unknown_token
from raymia.spec import LongTexts
from raymia.util.errors import InputError

BEYOND_CONTEXT = "what carried a loss is beyond the tokens that the model reads at once"
Answer = TypeVar("Answer")
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
    error : why a server refused the text, or why the record cannot be read as the training did;
        None where neither is so.
    """

    token_ids: npt.NDArray[np.int32] | None
    log_prob: Floats
    mean_log_prob: Floats | None
    std_log_prob: Floats | None
    is_top1: npt.NDArray[np.bool_] | None
    truncated: bool
    error: str | None = None


@dataclass(frozen=True)
class LogProbs:
    """What a causal model says of a text's tokens under a condition, and no more of each.

    Attributes
    ----------
    log_prob : float32 [tokens], natural.
    truncated : whether the text was longer than the model's limit, so that its end was not scored.
    error : why the record cannot be read; None where it can.
    """

    log_prob: Floats
    truncated: bool
    error: str | None = None


class CausalLM:
    """A causal language model ready to answer.

    Parameters
    ----------
    model : a transformers causal model, in eval mode on its device.
    tokenizer : its tokenizer; texts are encoded as the tokenizer does by default.
    batch_tokens : tokens per forward pass, those of padding among them.
    max_tokens : tokens per forward pass of a text; None takes the model's context.
    long_texts : whether longer texts are cut, or read in overlapping windows (:func:`windows`).
    stride : tokens from one window to the next; None takes half of ``max_tokens``.
    window_bos : whether later windows begin as texts do, with the tokenizer's BOS.
    one_by_one : never put two texts in a batch, as LLM.int8 needs it.
    training : how records are read; None reads plain texts.
    readings : of models that read alike; default: of this one alone.
    twins : of ``model``, where other models share it.

    Attributes
    ----------
    apart : texts of more tokens are in no batch with those of as many or fewer
        (:func:`raymia.models.causal.facts.frequencies_change`).
    packs : whether texts are run in one row, without padding.
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
        window_bos: bool = False,
        one_by_one: bool = False,
        training: Training | None = None,
        readings: Readings | None = None,
        twins: Twins | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.one_by_one = one_by_one
        self.device = model.get_input_embeddings().weight.device
        limits = [max_tokens, _after_virtual(model, context_length(model.config))]
        self.max_tokens = min((n for n in limits if n is not None), default=None)
        self.apart = _after_virtual(model, frequencies_change(model.config))
        self._lead = [tokenizer.bos_token_id] if window_bos else []
        if self._lead == [None]:
            raise InputError(
                "window_bos: this tokenizer has no beginning-of-text token; leave the key out"
            )
        room = None if self.max_tokens is None else self.max_tokens - len(self._lead)
        if stride is not None and room is not None and stride >= room:
            raise InputError(
                f"stride: {stride} is not less than the {room} tokens that the model "
                "reads at once, so the first token of a window would have no context; give a "
                "smaller stride"
            )
        self.long_texts = long_texts
        self.stride = stride or max(1, (self.max_tokens or 0) // 2)
        self.head = Head(model)
        self.packs = answers_in_a_row(self)
        self._twins: Twins | None = twins or Twins(model)
        self.readings = readings or Readings(reader_for(tokenizer, training))
        self.other_reader = reader_for(tokenizer, None if training is None else training.other_side)

    @property
    def reader(self) -> Reader:
        """Turns records into what the model reads."""
        return self.readings.reader

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize as the tokenizer does by default (a BOS where it adds one), uncut."""
        return encoded(self.tokenizer, texts)

    @property
    def rows(self) -> int:
        """Tokens that have an embedding."""
        return len(self.model.get_input_embeddings().weight)

    def known(self, records: Sequence[Rendered]) -> list[Rendered]:
        """The same records, but those with a token that has no embedding cannot be scored."""
        said = [unknown_token(record.ids, self.rows, self.tokenizer) for record in records]
        return [
            record if error is None else Rendered([], error=error)
            for record, error in zip(records, said, strict=True)
        ]

    def encode_beginnings(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts that something is to follow: see :func:`beginnings`."""
        return beginnings(self.tokenizer, texts)

    def prepare(self, texts: Sequence[str]) -> None:
        """Tokenize texts that it is about to be asked about, while it is asked about others."""
        self.readings.prepare(texts)

    def read(self, texts: Sequence[str]) -> list[Rendered]:
        """Tokenize texts, as far as they were not prepared."""
        return self.known(self.readings.read(texts))

    def answer(
        self, texts: Sequence[str], *, moments: bool, reader: Reader | None = None
    ) -> list[TokenAnswer]:
        """Ask for the log-probability of every token of every text, in input order.

        Parameters
        ----------
        texts : the texts; each is answered as if it were alone.
        moments : also ask for the moments of log p and for the top-1 flags.
        reader : reads them; default: :attr:`reader`.
        """
        records = self.read(texts) if reader is None else self.known(reader.read(texts))
        return self.answer_read(records, moments=moments)

    def answer_read(self, full: Sequence[Rendered], *, moments: bool) -> list[TokenAnswer]:
        """Answer records that were read; see :meth:`answer`."""
        windows_of = [self._parts(len(record.ids)) for record in full]
        parts = [(one, part) for one, own in zip(full, windows_of, strict=True) for part in own]
        ids = [
            record.ids
            if part == Window(0, len(record.ids), 0)
            else self._lead[: part.lead] + record.ids[part.start : part.end]
            for record, part in parts
        ]
        wanted = [_wanted(record, part) for record, part in parts]

        def run(model: CausalLM, batch: list[int]) -> list[Columns]:
            answers = model._forward([ids[i] for i in batch], [wanted[i] for i in batch], moments)
            # Output o predicts token o + 1, and the first token of a text is not scored.
            known = [
                max(0, parts[i][1].scored_from - _first(parts[i][1])) if wanted[i] is None else 0
                for i in batch
            ]
            return [
                tuple(c if c is None else c[k:] for c in answer)
                for k, answer in zip(known, answers, strict=True)
            ]

        answers = iter(self.run([len(tokens) for tokens in ids], run, is_padded=not self.packs))
        return [_whole(one, own, answers) for one, own in zip(full, windows_of, strict=True)]

    def run(
        self,
        lengths: Sequence[int],
        run: Callable[[CausalLM, list[int]], Sequence[Answer]],
        *,
        budget: int | None = None,
        is_padded: bool = True,
    ) -> list[Answer]:
        """Run a function over micro-batches of texts; see :func:`run_batched`.

        Parameters
        ----------
        lengths : tokens of each text.
        run : from a model, which is this one or a twin of it, and a batch to its answers.
        budget : tokens at once, with padding; None takes ``batch_tokens``.
        """
        budget = self.batch_tokens if budget is None else budget
        return run_batched(
            lengths,
            *(partial(run, model) for model in self._lanes()),
            budget=budget,
            max_rows=1 if self.one_by_one else None,
            min_tokens=worthwhile_tokens(budget),
            apart=self.apart,
            is_padded=is_padded,
        )

    def _lanes(self) -> list[CausalLM]:
        """This model for each batch that is run side by side, with its share of the memory."""
        lanes, _ = lanes_here()
        copies = self._twins.of(lanes) if self._twins is not None and lanes > 1 else []
        twins = [copy(self) for _ in copies]
        for twin, model in zip(twins, copies, strict=True):
            twin.model, twin._twins = model, None
            twin.head = self.head.of_twin(model, lanes)
            twin.batch_tokens = max(1, self.batch_tokens // lanes)
        return twins or [self]

    def only_window(self, length: int) -> int | None:
        """Where the one window ends that a text is read in; None where there are several, or where
        it has no token that is scored."""
        parts = self._parts(length)
        return parts[0].end if len(parts) == 1 and length > 1 else None

    def _parts(self, length: int) -> list[Window]:
        if self.max_tokens is None or length <= self.max_tokens:
            return [Window(0, length, 0)]
        if self.long_texts == "cut":
            return [Window(0, self.max_tokens, 0)]
        return windows(length, self.max_tokens, self.stride, len(self._lead))

    @torch.inference_mode()
    def _forward(
        self, ids: list[list[int]], wanted: list[Bools | None], moments: bool
    ) -> list[Columns]:
        if max(len(tokens) for tokens in ids) < 2:
            empty = np.zeros(0, dtype=np.float32)
            flags = empty.astype(np.bool_)
            nothing = (empty, empty, flags) if moments else (None, None, None)
            return [(empty.astype(np.int32), empty, *nothing) for _ in ids]
        states, starts = self._in_a_row(ids) if self.packs else self.padded(ids)
        followed = [np.asarray(tokens[1:], np.int32) for tokens in ids]
        chosen = [
            np.arange(len(tokens)) if own is None else np.flatnonzero(own)
            for tokens, own in zip(followed, wanted, strict=True)
        ]
        token_ids = [tokens[own] for tokens, own in zip(followed, chosen, strict=True)]
        places = np.concatenate([start + own for start, own in zip(starts, chosen, strict=True)])
        scored = states[torch.from_numpy(places).to(states.device)]
        labels = torch.from_numpy(np.concatenate(token_ids).astype(np.int64)).to(states.device)
        columns = self.head.log_probs(scored, labels, moments).fetched()
        ends = np.cumsum([len(own) for own in chosen])[:-1]
        split = [[None] * len(ids) if c is None else np.split(c, ends) for c in columns]
        return list(zip(token_ids, *split, strict=True))

    def padded(self, ids: Sequence[list[int]]) -> tuple[torch.Tensor, list[int]]:
        """What enters the output layer for each token of some texts one below another, and of the
        padding between them [tokens, width]; and where each text begins in it."""
        width = max(len(tokens) for tokens in ids)
        padded = torch.tensor([t + [0] * (width - len(t)) for t in ids], device=self.device)
        lengths = torch.tensor([len(t) for t in ids], device=self.device)
        mask = torch.arange(width, device=self.device)[None, :] < lengths[:, None]
        hidden = self.head.hidden(mask.long(), input_ids=padded)
        return hidden.flatten(0, 1), [row * width for row in range(len(ids))]

    def _in_a_row(self, ids: list[list[int]]) -> tuple[torch.Tensor, list[int]]:
        """The same of texts one after another, with nothing between them."""
        starts = [0, *accumulate(map(len, ids))][:-1]
        return hidden_of_row(self, ids), starts


def _wanted(record: Rendered, part: Window) -> Bools | None:
    """Which tokens of a window are scored, of those that have a context; None for all of them."""
    if record.scored is None:
        return None
    chosen = record.scored[_first(part) : part.end].copy()
    chosen[: max(0, part.scored_from - _first(part))] = False
    return chosen


def _first(part: Window) -> int:
    """The first token of a window that has a context: what is before it in the window."""
    return part.start + 1 - part.lead


def chosen_of(
    ids: Sequence[Sequence[int]], wanted: Sequence[Bools | None], there: torch.Tensor
) -> tuple[torch.Tensor, list[int]]:
    """Which positions of padded texts are scored, and how many of each text.

    Parameters
    ----------
    wanted : for each text, which of its own positions; None for all.
    there : bool [texts, width], the positions that are no padding.
    """
    counts = [len(t) if w is None else int(w.sum()) for t, w in zip(ids, wanted, strict=True)]
    if all(chosen is None for chosen in wanted):
        return there, counts
    mask = there.clone()
    for row, chosen in enumerate(wanted):
        if chosen is not None:
            mask[row, : len(chosen)] &= torch.from_numpy(chosen).to(mask.device)
    return mask, counts


def _whole(record: Rendered, parts: list[Window], answers: Iterator[Columns]) -> TokenAnswer:
    """Put the answers on a record's windows together."""
    columns, *others = (next(answers) for _ in parts)
    if others:
        joined = zip(columns, *others, strict=True)
        columns = tuple(None if column[0] is None else np.concatenate(column) for column in joined)
    tokens, log_prob, mean, std, top1 = columns
    truncated = parts[-1].end < len(record.ids)
    error = record.error
    if record.scored is not None and error is None and not len(log_prob):
        error = BEYOND_CONTEXT
    return TokenAnswer(tokens, log_prob, mean, std, top1, truncated, error)


def _after_virtual(model: Any, tokens: int | None) -> int | None:
    """What is left of a number of tokens after those that a PEFT method puts before each text
    (prefixes, prompts)."""
    method = getattr(model, "active_peft_config", None)
    taken = getattr(method, "num_virtual_tokens", None) or 0
    return None if tokens is None else tokens - taken
