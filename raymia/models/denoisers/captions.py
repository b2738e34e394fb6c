"""From captions to what a network is conditioned on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from raymia.models.fit import read_transformers_config
from raymia.models.original_layout import renamed, tensors_of
from raymia.models.token_ids import refuse_unknown
from raymia.models.whole_weights import load_whole

if TYPE_CHECKING:
    from raymia.models.denoisers.resolver import Part

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

    def tokens(
        self, captions: Sequence[str], length: int | None = None, *, side: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, each [captions, length].

        Parameters
        ----------
        length : of all, cut or padded; None takes that which the encoder has positions for.
        side : that short ones are padded on, "left" or "right"; None for the tokenizer's own.
        """
        found = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=length or int(self.model.config.max_position_embeddings),
            truncation=True,
            padding_side=side,
            return_tensors="pt",
        )
        refuse_unknown(found.input_ids.tolist(), self.model.config.vocab_size, self.tokenizer)
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
    return TextEncoder(model.to(device), load_tokenizer(folder, part))


def load_tokenizer(folder: Path, part: Part) -> Any:
    """The tokenizer of a text encoder, which lies beside it."""
    import transformers

    beside = part.folder.replace("text_encoder", "tokenizer")
    return transformers.AutoTokenizer.from_pretrained(folder / beside)


class Captions:
    """The conditions of captions; the last ones are kept.

    Parameters
    ----------
    read : from captions, each another, to their conditions.
    """

    def __init__(self, read: Callable[[Sequence[str]], Condition]) -> None:
        self._read = read
        self._known: OrderedDict[str, Condition] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> Condition:
        found = {c: self._known[c] for c in captions if c in self._known}
        missing = [c for c in dict.fromkeys(captions) if c not in found]
        if missing:
            read = self._read(missing)
            for row, caption in enumerate(missing):
                found[caption] = {name: value[row] for name, value in read.items()}
        self._known |= found
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        rows = [found[caption] for caption in captions]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def forget(self) -> None:
        """Read all captions anew, as with another adapter on an encoder."""
        self._known.clear()
