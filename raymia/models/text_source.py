"""What the folders of language models share: their parts, and what they hash to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymia.models.config_bounds import refuse_many
from raymia.models.source import (
    PROVENANCE,
    adapter_hint,
    content_hashes,
    model_weights_in,
    names_in,
    read_json,
)
from raymia.models.tokenizers import TokenizerSource
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.once import Once

CONFIGS = ("config.json",)
TOKENIZERS, SETTINGS = ("tokenizer*", "vocab*", "*.model"), "tokenizer_config.json"
"""Names of files of which one should be there, and of the one that is not enough for most."""
BESIDE = (SETTINGS, "generation_config.json", "special_tokens_map.json", "added_tokens.json")
"""JSON that transformers reads as it loads a model or a tokenizer, where it is there."""

IGNORED = {"training_args.json", "trainer_state.json", "facts.json"}
SUFFIXES = {".safetensors", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py"}


def read_config(path: Path, where: str) -> dict[str, Any]:
    """The config of a folder that should hold a whole language model.

    Raises
    ------
    InputError
        If it has none, or it says of more layers than any model has.
    """
    if not (path / "config.json").is_file():
        hint = adapter_hint(path)
        more = f"; {hint}" if hint else ""
        raise InputError(f"{where}: {path} has no config.json (found: {names_in(path)}){more}")
    config = read_json(path / "config.json", where)
    refuse_many(config, f"{where}: {path / 'config.json'}")
    return config


def check_parts(path: Path, where: str, once: Once) -> None:
    """Refuse a folder without whole safetensors weights, without a tokenizer, or with JSON beside
    them that cannot be read."""
    model_weights_in(path, where, once)
    for name in BESIDE:
        if os.path.lexists(path / name):
            read_json(path / name, where)
    there = {file.name for names in TOKENIZERS for file in path.glob(names)}
    if not there - {SETTINGS} and not (there and _makes_a_tokenizer(path)):
        raise InputError(
            f"{where}: {path} has no tokenizer; save the base's beside the weights with "
            "tokenizer.save_pretrained(folder)"
        )


def _makes_a_tokenizer(path: Path) -> bool:
    """Whether the settings of a tokenizer are all that there is to it, as where tokens are bytes or
    code of its own makes them."""
    if read_json(path / SETTINGS).get("auto_map"):
        return True
    try:
        TokenizerSource(str(path)).load()
    except InputError:
        return False
    return True


def files_of(folder: Path) -> list[Path]:
    """The files that can change an answer."""
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name not in IGNORED)


def text_fingerprint(
    parts: Mapping[str, Path],
    once: Once,
    *,
    quantization: str,
    dtype: str,
    max_tokens: int | None,
    trust_remote_code: bool,
    **more: Any,
) -> str:
    """Hash the files of a language model, by their names in it, and what it is loaded with."""
    return digest(
        {
            "files": content_hashes(parts, CONFIGS, PROVENANCE, once),
            "quantization": quantization,
            "dtype": dtype,
            "max_tokens": max_tokens,
            "trust_remote_code": trust_remote_code,
            **more,
        }
    )
