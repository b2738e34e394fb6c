"""Tokenizers in folders, which transformers loads; loaded in one way wherever one is needed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from raymia.util.errors import InputError, first_line


@dataclass(frozen=True)
class TokenizerSource:
    """Where a tokenizer is, and what transformers is told of it.

    Attributes
    ----------
    gguf_file : name of the GGUF file in the folder that it is read from; None for its own files.
    """

    folder: str
    trust_remote_code: bool = False
    gguf_file: str | None = None

    def load(self) -> Any:
        """Load it.

        Raises
        ------
        InputError
            If transformers cannot.
        """
        from transformers import AutoTokenizer

        gguf = {} if self.gguf_file is None else {"gguf_file": self.gguf_file}
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.folder, trust_remote_code=self.trust_remote_code, **gguf
            )
        except Exception as error:  # of any kind, by what is damaged or unknown
            raise InputError(
                f"{self.folder}: transformers cannot load its tokenizer ({type(error).__name__}: "
                f"{first_line(error)}); copy the files again, or update transformers"
            ) from error
        with suppress(Exception):  # which says nothing of other texts
            tokenizer("")  # the first call sets it up, which two threads must not do at once
        return tokenizer


class HasTokenizer(Protocol):
    """A checkpoint whose tokenizer is known."""

    @property
    def tokenizer_source(self) -> TokenizerSource: ...

    @property
    def tokenizer_content(self) -> str:
        """Hash of all that the tokenizer can depend on."""


def tokenizer_of(checkpoint: HasTokenizer) -> Any:
    """A checkpoint's tokenizer, loaded once for its content; loads no model.

    Raises
    ------
    InputError
        If transformers cannot load it.
    """
    return _loaded(checkpoint.tokenizer_source, checkpoint.tokenizer_content)


@cache
def _loaded(source: TokenizerSource, _content: str) -> Any:
    return source.load()


def largest_token(tokenizer: Any) -> int | None:
    """The largest id that a tokenizer gives to a token that is no added one."""
    ids = tokenizer.get_vocab().values()
    return max((n for n in ids if n not in tokenizer.added_tokens_decoder), default=None)
