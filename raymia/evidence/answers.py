"""The names by which attacks, questions and evidence know each other.

An attack asks for answers by name. The answers of raymia's own questions are the fields of the
model evidence of a kind of records, in the order in which they are asked; those of questions from
outside are in its mapping ``answers``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar

MODEL_NEEDS: Mapping[str, str] = {
    "moments": "mean and standard deviation of log p at each position",
    "token_ids": "tokens that can be compared with those of a reference",
    "tokenizer": "its tokenizer, to count a corpus with",
    "weights": "its weights, or what is done inside of it",
    "gradients": "gradients, which quantized weights have not",
    "words": "records of words, which can be changed",
    "pairs": "records of two answers, of which one was preferred",
    "prefixes": "answers about a text after other texts",
    "generation": "texts or images that it generates",
    "generated_images": "images that it generated, which attacks read as `evidence.samples`",
    "text_conditioning": "a condition on text",
    "denoiser": "that it is a diffusion model",
    "autoencoder": "that it is an autoencoder",
}
"""What attacks and questions may need of a model that not every model gives."""
MADE_BY: Mapping[str, str] = {"generated_images": "generation"}
"""What a model need not give that can make it, and what lets it."""


@dataclass(frozen=True)
class AnswersByQuestion:
    """Base of what one model answered: a field for each of raymia's own questions, named after it.

    Attributes
    ----------
    answers : answers to questions from outside, by name, as each question lays them out.
    """

    answers: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def names(cls) -> list[str]:
        """Names of raymia's own questions, in the order in which they are asked."""
        return [own.name for own in fields(cls) if own.name != "answers"]

    @classmethod
    def of(cls, found: Mapping[str, Any], count: int) -> Self:
        """From answers by name, about so many records."""
        del count
        own = {name: found[name] for name in cls.names() if name in found}
        outside = {name: value for name, value in found.items() if name not in cls.names()}
        return cls(**own, answers=outside)

    def read_by(self, asks: Collection[str]) -> dict[str, Any]:
        """The answers that have one of these names."""
        own = {name: getattr(self, name) for name in self.names() if name in asks}
        return own | {name: self.answers[name] for name in sorted(self.answers) if name in asks}


Holder = TypeVar("Holder", bound=type[AnswersByQuestion])
_HOLDERS: dict[str, type[AnswersByQuestion]] = {}
_OUTSIDE: dict[str, set[str]] = {}


def holds_answers(*records: str) -> Callable[[Holder], Holder]:
    """Say that a class holds what models answer about these kinds of records; a decorator."""

    def decorate(kind: Holder) -> Holder:
        _HOLDERS.update(dict.fromkeys(records, kind))
        return kind

    return decorate


def holder_of(records: str) -> type[AnswersByQuestion]:
    """The class that holds what models answer about a kind of records.

    Raises
    ------
    ValueError
        If there is none, with the kinds that there are.
    """
    if records not in _HOLDERS:
        raise ValueError(f"no kind of records {records!r}; there are: {', '.join(_HOLDERS)}")
    return _HOLDERS[records]


def answer_names(records: str) -> list[str]:
    """All that attacks on a kind of records may ask for, in the order in which it is asked."""
    return [*holder_of(records).names(), *sorted(_OUTSIDE.get(records, ()))]


def add_answer_name(records: str, name: str) -> None:
    """Make the name of a question from outside known."""
    if name not in holder_of(records).names():
        _OUTSIDE.setdefault(records, set()).add(name)


def drop_answer_name(records: str, name: str) -> None:
    """Forget the name of a question from outside."""
    _OUTSIDE.get(records, set()).discard(name)
