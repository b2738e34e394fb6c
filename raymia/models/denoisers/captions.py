"""From captions to what a network is conditioned on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from raymia.models.denoisers.words import Word, spelled_out, tokenizer_in, with_words
from raymia.models.fit import read_transformers_config
from raymia.models.original_layout import renamed, tensors_of
from raymia.models.token_ids import refuse_unknown
from raymia.models.whole_weights import load_whole

if TYPE_CHECKING:
    from raymia.models.denoisers.parts import Part

KEPT = 64
"""Captions whose conditions are kept: a record is asked about many times in a row."""

Tensor = torch.Tensor
Condition = Mapping[str, Tensor]
"""What a network is given beside x_t and t, each [batch, ...], by name."""


class TextEncoder:
    """A text encoder of a pipeline with its tokenizer.

    Attributes
    ----------
    model : of transformers.
    tokenizer : of the encoder's vocabulary.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._own = tokenizer, model.get_input_embeddings().weight

    @torch.no_grad()
    def learn(self, words: Sequence[Word], files: Sequence[str]) -> None:
        """Read captions with words that were learned beside the encoder's own, and with no others.

        Parameters
        ----------
        files : with the embeddings of each word.
        """
        self.tokenizer, rows = self._own
        if words:
            first = len(self.tokenizer)
            learned = [
                read_tensor(file, word.tensor).reshape(word.vectors, -1).to(rows)
                for word, file in zip(words, files, strict=True)
            ]
            self.tokenizer = with_words(self.tokenizer, words)
            rows = torch.nn.Parameter(torch.cat([rows[:first], *learned]), requires_grad=False)
        self.model.get_input_embeddings().weight = rows

    def tokens(
        self, captions: Sequence[str], length: int | None = None, *, side: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, each [captions, length].

        Parameters
        ----------
        length : of all, cut or padded; None takes that which the encoder has positions for.
        side : that short ones are padded on, "left" or "right"; None for the tokenizer's own.
        """
        known = self.tokenizer is self._own[0]
        found = self.tokenizer(
            list(captions) if known else spelled_out(captions, self.tokenizer),
            padding="max_length",
            max_length=length or int(self.model.config.max_position_embeddings),
            truncation=True,
            padding_side=side,
            return_tensors="pt",
        )
        rows = len(self.model.get_input_embeddings().weight)
        refuse_unknown(found.input_ids.tolist(), rows, self.tokenizer)
        return found.input_ids.to(self.model.device), found.attention_mask.to(self.model.device)

    def __call__(self, captions: Sequence[str]) -> Any:
        """What a CLIP says of captions, with all hidden states."""
        return self.model(self.tokens(captions)[0], output_hidden_states=True)


def load_text_encoder(
    folder: Path, part: Part, dtype: torch.dtype, device: torch.device
) -> TextEncoder:
    """The encoder and tokenizer of a pipeline's folder."""
    import transformers

    kind, place = getattr(transformers, part.kind), folder / part.folder
    if part.file is None:
        variant = {} if part.variant is None else {"variant": part.variant}
        model = load_whole(kind, place, dtype=dtype, **variant).eval()
    else:
        config = read_transformers_config(place, where=str(place))
        state = renamed(tensors_of(Path(part.file), part.folder, part.kind), part.kind, config)
        model = load_whole(kind, None, config=config, state_dict=state, dtype=dtype).eval()
    return TextEncoder(model.to(device), tokenizer_in(folder, part.folder))


def read_tensor(file: str, name: str) -> Tensor:
    """One tensor of a file."""
    with safe_open(file, framework="pt") as content:
        tensor: Tensor = content.get_tensor(name)
    return tensor


class Captions:
    """The conditions of captions; the last ones are kept.

    Parameters
    ----------
    read : from captions, each another, to their conditions.
    one_by_one : never read two at once, as LLM.int8 needs it.
    """

    def __init__(
        self, read: Callable[[Sequence[str]], Condition], *, one_by_one: bool = False
    ) -> None:
        self._read, self._one_by_one = read, one_by_one
        self._known: OrderedDict[str, Condition] = OrderedDict()
        self._lock = Lock()

    def __call__(self, captions: Sequence[str]) -> Condition:
        with self._lock:  # the encoders are asked by one thread at a time
            found = self._found(captions)
        rows = [found[caption] for caption in captions]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _found(self, captions: Sequence[str]) -> dict[str, Condition]:
        found = {c: self._known[c] for c in captions if c in self._known}
        missing = [c for c in dict.fromkeys(captions) if c not in found]
        at_once = 1 if self._one_by_one else max(1, len(missing))
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            read = self._read(some)
            for row, caption in enumerate(some):
                found[caption] = {name: value[row] for name, value in read.items()}
        self._known |= found
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return found

    def forget(self) -> None:
        """Read all captions anew, as with another adapter on an encoder."""
        self._known.clear()
