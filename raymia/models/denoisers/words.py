"""Words that textual inversion learned: new tokens of a pipeline's text encoders, each with an
embedding of its own.

diffusers' scripts write the word as the name of the tensor. The web UI, and files for the two
encoders of SDXL, name the tensors after what they are for, and the word is the name of the file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.models.denoisers.faces import CLIP, CLIP_2
from raymia.models.fit import Described
from raymia.models.one_base import AdapterError
from raymia.models.single_file import EMBEDDINGS
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.once import Once

OF_ENCODER = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""Parts of a pipeline by the tensors that are for them."""


@dataclass(frozen=True)
class Word:
    """A word that a text encoder has learned.

    Attributes
    ----------
    part : of the pipeline: the text encoder.
    name : as captions have it.
    tensor : of its embeddings in the file.
    vectors : how many these are.
    """

    part: str
    name: str
    tensor: str
    vectors: int

    @property
    def tokens(self) -> tuple[str, ...]:
        """As diffusers calls the tokens of its embeddings, one by one."""
        return (self.name, *(f"{self.name}_{number}" for number in range(1, self.vectors)))


def read_words(
    file: Path, parts: Mapping[str, Described], base: Path, where: str, once: Once
) -> tuple[Word, ...]:
    """The words in a file, and the text encoders that they belong to.

    Parameters
    ----------
    parts : of the pipeline.
    base : its folder, where the tokenizers lie.

    Raises
    ------
    AdapterError
        If the pipeline has no text encoder for them.
    InputError
        If a tokenizer has the word already.
    """
    widths = {
        part: int(described.config.hidden_size)
        for part, described in parts.items()
        if described.auto in (*CLIP, *CLIP_2)
    }
    found = []
    for tensor, header in sorted(once(read_header, file, where=where).items()):
        width = header.shape[-1] if len(header.shape) in (1, 2) else 0
        fitting = [part for part in widths if widths[part] == width]
        part = OF_ENCODER.get(tensor, next(iter(fitting), ""))
        if tensor == "t5xxl" or part not in fitting:
            raise AdapterError(
                f"{where}: {file}: this adapter does not fit its base: {tensor} is a learned word "
                f"of {list(header.shape)}, and the base's text encoders that can learn some have "
                f"widths {listed([str(w) for w in widths.values()]) or '(none)'}; give the base "
                "that it was trained on"
            )
        name = file.stem if tensor in EMBEDDINGS else tensor
        vectors = header.shape[0] if len(header.shape) == 2 else 1
        if not name.strip() or vectors < 1:
            raise InputError(f"{where}: {file}: {tensor!r} is no word that captions can have")
        found.append(Word(part, name, tensor, vectors))
    for word in found:
        known = once(vocabulary, base, word.part)
        if twice := [token for token in word.tokens if token in known]:
            raise InputError(
                f"{where}: {file}: the tokenizer of {base} has {listed(twice)} already; rename the "
                "word, in the file and in the captions"
            )
    return tuple(found)


def vocabulary(base: Path, part: str) -> frozenset[str]:
    """All tokens of the tokenizer of a pipeline's text encoder."""
    return frozenset(tokenizer_in(base, part).get_vocab())


def tokenizer_in(base: Path, part: str) -> Any:
    """The tokenizer of a text encoder, which lies beside it."""
    import transformers

    beside = part.replace("text_encoder", "tokenizer")
    return transformers.AutoTokenizer.from_pretrained(base / beside)


def with_words(tokenizer: Any, words: Sequence[Word]) -> Any:
    """A tokenizer that knows words beside its own; their tokens have the numbers that follow."""
    if not words:
        return tokenizer
    found = copy.deepcopy(tokenizer)
    for word in words:
        found.add_tokens([*word.tokens])
    return found


def spelled_out(captions: Sequence[str], tokenizer: Any) -> list[str]:
    """Captions with all tokens of the words that have several, as diffusers reads them."""
    from diffusers.loaders import TextualInversionLoaderMixin

    found: list[str] = TextualInversionLoaderMixin().maybe_convert_prompt([*captions], tokenizer)
    return found
