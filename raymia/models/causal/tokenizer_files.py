"""Tokenizers in folders: which an adapter brings, and whether it is another than its base's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymia.models.source import file_hash, read_json
from raymia.models.text_source import files_of
from raymia.util.hashing import digest
from raymia.util.once import Once

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
TOKENIZATION = ("normalizer", "pre_tokenizer", "post_processor", "model")
"""Parts of tokenizer.json that decide which tokens a text becomes. Added tokens are left out: a pad
token that fine-tuning added changes no text, and attacks compare the tokens of each record."""
WHOLE = re.compile(r"tokenizer\.json|vocab\..+|.+\.model|.+\.tiktoken")
"""Files of which one is enough to have a tokenizer."""
PARTS = re.compile(WHOLE.pattern + r"|tokenizer_config\.json|merges\.txt|added_tokens\.json")
OF_BATCHES = frozenset({"padding", "truncation"})
"""Keys of tokenizer.json that say how texts are put together."""
OF_NO_TEXT = frozenset(
    {
        "added_tokens_decoder", "backend", "chat_template", "extra_special_tokens", "is_local",
        "local_files_only", "max_length", "model_max_length", "name_or_path", "pad_to_multiple_of",
        "pad_token", "pad_token_type_id", "padding_side", "processor_class", "response_schema",
        "special_tokens_map_file", "stride", "truncation_side", "truncation_strategy",
    }
)  # fmt: skip
"""Keys of tokenizer_config.json that change no text's tokens, and that training often adds."""


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a folder's tokenizer, as far as they can change the tokens of a text.

    Attributes
    ----------
    hashes : names and hashes of content.
    """

    hashes: tuple[tuple[str, str], ...]
    folder: Path = field(compare=False)

    @property
    def is_whole(self) -> bool:
        """Whether there is a tokenizer in them."""
        return any(WHOLE.fullmatch(name) for name, _ in self.hashes)


def tokenizer_files(folder: Path, once: Once) -> TokenizerFiles:
    """The files of a folder's tokenizer; of a folder without, none that is whole."""
    files = [file for file in once(files_of, folder) if PARTS.fullmatch(file.name)]
    return TokenizerFiles(tuple((file.name, file_hash(file, once)) for file in files), folder)


def is_another(one: TokenizerFiles, other: TokenizerFiles, once: Once) -> bool:
    """Whether two tokenizers may make other tokens of a text."""
    return one.hashes != other.hashes and once(_meaning, one) != once(_meaning, other)


def tokenization(folder: Path, where: str) -> str | None:
    """Hash of what decides how texts are cut into tokens; None where no tokenizer.json says it."""
    file = folder / TOKENIZER
    if not file.is_file():
        return None
    content = read_json(file, where)
    return digest({part: content.get(part) for part in TOKENIZATION})


def _meaning(files: TokenizerFiles) -> str:
    names = dict(files.hashes)
    content: dict[str, Any] = {"settings": _without(files.folder, SETTINGS, OF_NO_TEXT, names)}
    if TOKENIZER in names:
        content["tokenizer"] = _without(files.folder, TOKENIZER, OF_BATCHES, names)
    else:
        content["files"] = {name: hashed for name, hashed in names.items() if name != SETTINGS}
    return digest(content)


def _without(
    folder: Path, name: str, keys: frozenset[str], there: Mapping[str, str]
) -> dict[str, Any]:
    if name not in there:
        return {}
    content = read_json(folder / name, str(folder))
    return {key: value for key, value in content.items() if key not in keys}
