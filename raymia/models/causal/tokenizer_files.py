"""Tokenizers in folders: which an adapter brings, and whether it is another than its base's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raymia.models.source import file_hash, read_json
from raymia.models.text_source import files_of
from raymia.util.errors import InputError
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
MISTRAL = frozenset({"mistral", "mistral3", "voxtral", "ministral", "pixtral"})
"""Types of models in whose tokenizers transformers puts another regex, where `FIX` asks for it."""
FIX = "fix_mistral_regex"
_BEFORE_5 = re.compile(r"[0-4](\.|$)|5\.0\.0\.?(dev|a|b|rc)")


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


def regex_is_fixed(folder: Path, once: Once) -> bool | None:
    """Whether transformers cuts texts by another regex than tokenizer.json has: where the settings
    of a Mistral tokenizer ask for it, by the version of transformers that wrote config.json.

    Returns
    -------
    None where the settings do not ask for it.
    """
    settings, config = folder / SETTINGS, folder / "config.json"
    if not (settings.is_file() and config.is_file()) or not once(read_json, settings).get(FIX):
        return None
    found = once(read_json, config)
    if found.get("model_type") not in {*MISTRAL, None}:
        return None
    version = found.get("transformers_version")
    return not version or _BEFORE_5.match(str(version)) is not None


@dataclass(frozen=True)
class Tokens:
    """What tokenizer.json says of the tokens that it makes of texts; None where there is none.

    Attributes
    ----------
    tokenization : hash of what decides how texts are cut into tokens.
    largest : id of a token that is no added one.
    """

    tokenization: str | None = None
    largest: int | None = None


def read_tokens(folder: Path, where: str) -> Tokens:
    """What a folder's tokenizer.json says of its tokens."""
    file = folder / TOKENIZER
    if not file.is_file():
        return Tokens()
    content = read_json(file, where)
    parts = {part: content.get(part) for part in TOKENIZATION}
    if regex_is_fixed(folder, Once()):
        parts[FIX] = True
    hashed = digest(parts)
    return Tokens(hashed, _largest(content))


def _largest(content: Mapping[str, Any]) -> int | None:
    """The largest id of a vocabulary, of names to ids or a list in their order; an added token may
    be in it too, and is never made of a text that does not spell it out."""
    model, added = content.get("model"), content.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary or ()))
    names = added if isinstance(added, list) else []
    others = {token.get("id") for token in names if isinstance(token, dict)}
    return max((n for n in ids if isinstance(n, int) and n not in others), default=None)


def refuse_more_tokens(largest: int | None, rows: int, folder: str, label: str, where: str) -> None:
    """Refuse a tokenizer whose own vocabulary is larger than the embedding: it is another model's.
    A token that was added beyond the embedding spoils only the texts that spell it out.

    Raises
    ------
    InputError
        Naming the tokenizer's folder and both sizes.
    """
    if largest is not None and largest >= rows:
        raise InputError(
            f"{where}: the tokenizer in {folder} makes tokens up to the id {largest:,}, and "
            f"{label} has {rows:,} embeddings; copy the tokenizer that the model was trained with"
        )


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
