"""T5 models that fill masked spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raymia.models.batching import run_batched
from raymia.models.causal.family import neutral_generation
from raymia.models.sampling import CounterSampler, StopAtOwnToken
from raymia.models.token_ids import refuse_unknown
from raymia.models.whole_weights import load_whole
from raymia.spec import T5_SPANS
from raymia.util.errors import InputError


@dataclass(frozen=True)
class FillRequest:
    """A text with ``<extra_id_0>`` ... in place of its masked spans.

    Attributes
    ----------
    text : the masked text.
    spans : how many sentinels it has.
    max_new_tokens : generation limit.
    key : the stream of draws that its fills are sampled with.
    """

    text: str
    spans: int
    max_new_tokens: int
    key: int


class MaskFiller:
    """A T5-like model ready to fill masked spans.

    Parameters
    ----------
    model, tokenizer : from transformers; the tokenizer has the sentinels ``<extra_id_N>``.
    batch_tokens : padded input tokens per batch.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        vocabulary = tokenizer.get_vocab()
        self.sentinels = [vocabulary[f"<extra_id_{i}>"] for i in range(T5_SPANS + 1)]

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans of the text's tokens, without tokens that cover white space alone."""
        offsets = self.tokenizer(
            text, return_offsets_mapping=True, add_special_tokens=False, verbose=False
        )["offset_mapping"]
        spans: list[tuple[int, int]] = []
        for begin, end in offsets:
            inner = text[begin:end]
            begin += len(inner) - len(inner.lstrip())
            if text[begin:end].strip() and (not spans or begin >= spans[-1][1]):
                spans.append((begin, end))
        return spans

    def fill(
        self, requests: Sequence[FillRequest], *, temperature: float, top_k: int | None
    ) -> list[list[str] | None]:
        """Sample the fills of each request; None where a fill is missing or empty.

        The answer to a request does not depend on the others: draws are counter-based, and a
        request with a draw that rounding could have decided is sampled again alone.
        """
        ids = [self.tokenizer(r.text, verbose=False)["input_ids"] for r in requests]
        refuse_unknown(ids, len(self.model.get_input_embeddings().weight), self.tokenizer)

        def run(batch: list[int]) -> list[tuple[list[int], bool]]:
            return self._generate([requests[i] for i in batch], [ids[i] for i in batch],
                                  temperature, top_k)  # fmt: skip

        lengths = [len(tokens) for tokens in ids]
        answers = run_batched(lengths, run, budget=self.batch_tokens)
        fills = []
        for number, (request, (tokens, close_call)) in enumerate(
            zip(requests, answers, strict=True)
        ):
            if close_call:
                tokens = run([number])[0][0]
            fills.append(self._read(tokens, request.spans))
        return fills

    @torch.inference_mode()
    def _generate(
        self,
        requests: list[FillRequest],
        ids: list[list[int]],
        temperature: float,
        top_k: int | None,
    ) -> list[tuple[list[int], bool]]:
        width = max(len(tokens) for tokens in ids)
        device = self.model.device
        padding = self.tokenizer.pad_token_id
        padded = torch.tensor([t + [padding] * (width - len(t)) for t in ids], device=device)
        lengths = torch.tensor([len(t) for t in ids], device=device)
        mask = torch.arange(width, device=device)[None, :] < lengths[:, None]
        sampler = CounterSampler([r.key for r in requests], temperature, top_k)
        output = self.model.generate(
            input_ids=padded,
            attention_mask=mask.long(),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max(r.max_new_tokens for r in requests),
            logits_processor=[sampler],
            stopping_criteria=[StopAtOwnToken([self.sentinels[r.spans] for r in requests])],
        )
        generated = output[:, 1:].tolist()
        return [
            (tokens[: r.max_new_tokens], close)
            for r, tokens, close in zip(requests, generated, sampler.close_calls, strict=True)
        ]

    def _read(self, tokens: list[int], spans: int) -> list[str] | None:
        """Cut the generated tokens at the sentinels, which must come in order.

        None where a sentinel is missing, a fill is empty, or the last fill does not end.
        """
        end = self.tokenizer.eos_token_id
        closers = {*self.sentinels, end}
        if end in tokens:
            tokens = tokens[: tokens.index(end) + 1]
        fills: list[str] = []
        for index in range(spans):
            if self.sentinels[index] not in tokens:
                return None
            tokens = tokens[tokens.index(self.sentinels[index]) + 1 :]
            stop = next((i for i, token in enumerate(tokens) if token in closers), None)
            if stop is None:
                return None
            text = self.tokenizer.decode(tokens[:stop], skip_special_tokens=True).strip()
            if not text:
                return None
            fills.append(text)
        return fills


def load_mask_filler(path: str, *, batch_tokens: int) -> MaskFiller:
    """Load a T5-like model from a local folder, in float32, onto the GPU where there is one."""
    import transformers
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = load_whole(AutoModelForSeq2SeqLM, path, dtype=torch.float32)
    except InputError:
        raise
    except Exception as error:  # transformers, safetensors and tokenizers each raise their own
        raise InputError(f"{path}: cannot be loaded as a T5 model: {error}") from error
    missing = [
        f"<extra_id_{i}>" for i in (0, T5_SPANS) if f"<extra_id_{i}>" not in tokenizer.get_vocab()
    ]
    if missing:
        raise InputError(
            f"{Path(path).name}: its tokenizer has no {missing[0]}, so it cannot fill masks; "
            "give a T5 with sentinel tokens"
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    model.generation_config = neutral_generation(model.generation_config)
    return MaskFiller(model, tokenizer, batch_tokens=batch_tokens)
