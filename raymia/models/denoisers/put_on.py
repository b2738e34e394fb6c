"""Adapters on a pipeline as an audit file names them: low-rank weights, and learned words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raymia.models.denoisers.lora_files import config_beside, locate_adapter
from raymia.models.denoisers.lora_fit import Placed, place_adapter
from raymia.models.denoisers.words import Word, read_words
from raymia.models.fit import Described
from raymia.models.idle import adds_nothing
from raymia.models.image_source import ImageFolder
from raymia.models.single_file import are_embeddings
from raymia.models.source import file_hash
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError
from raymia.util.hashing import digest
from raymia.util.once import Once
from raymia.util.optional import require


@dataclass(frozen=True)
class PutOn:
    """An adapter on a pipeline.

    Attributes
    ----------
    file : it is read from.
    weight : of its change, beside the scale that the file gives it.
    placed : what it changes.
    words : that it adds to text encoders.
    """

    file: str
    weight: float
    placed: tuple[Placed, ...] = ()
    words: tuple[Word, ...] = ()


class HasAdapters(Protocol):
    """A model with adapters on it."""

    @property
    def adapters(self) -> tuple[PutOn, ...]:
        """One after the other."""


def adapters_on(folder: ImageFolder, parts: Mapping[str, Described]) -> tuple[PutOn, ...]:
    """The adapters that an audit file names on a pipeline.

    Parameters
    ----------
    parts : of the pipeline, by the names of :class:`LowRank`.

    Raises
    ------
    InputError
        By the key of an adapter that cannot be put there.
    """
    found: list[PutOn] = []
    for number, one in enumerate(folder.adapters):
        where = folder.where_one(number)
        file = folder.once(locate_adapter, one.path, where=where)
        if str(file) in [other.file for other in found]:
            raise InputError(f"{where}: {file} is on the model already; give it one weight")
        if are_embeddings(folder.once(read_header, file, where=where)):
            words = read_words(file, parts, folder.path, where, folder.once)
            _refuse_words(words, found, one.weight, f"{where}: {file}")
            found.append(PutOn(str(file), one.weight, words=words))
        else:
            folder.once(require, "peft", "adapters", where=where)
            placed = place_adapter(file, parts, where, folder.once)
            found.append(PutOn(str(file), one.weight, placed))
    return tuple(found)


def _refuse_words(
    words: Sequence[Word], before: Sequence[PutOn], weight: float, place: str
) -> None:
    if weight != 1:
        raise InputError(
            f"{place}: learned words have no weight, and it is {weight:g}; leave it out"
        )
    known = {(word.part, token) for one in before for word in one.words for token in word.tokens}
    for word in words:
        if any((word.part, token) in known for token in word.tokens):
            raise InputError(
                f"{place}: {word.name!r} is a word of another adapter on the model; leave one out"
            )


def idle_adapters(models: Mapping[str, HasAdapters], once: Once) -> Iterator[str]:
    """A sentence for each adapter that changes nothing."""
    for name, model in models.items():
        for one in model.adapters:
            ups = {low.tensors["up"] for low in (placed.weights for placed in one.placed)}
            plain = all({*placed.weights.tensors} == {"down", "up"} for placed in one.placed)
            if one.weight == 0:
                why = "its weight is 0"
            elif plain and adds_nothing(Path(one.file), ups, once):
                why = "all that it adds is zero, as before its first step of training"
            else:
                continue
            file = Path(one.file).name
            yield f"{name}: the adapter {file} changes nothing: {why}"


def with_adapters(fingerprint: str, adapters: Sequence[PutOn], once: Once) -> str:
    """The fingerprint of a base with adapters on it, by the content of their files."""
    content = [_content(one, once) for one in adapters]
    weights = [one.weight for one in adapters]
    if weights == [1]:
        return digest({"base": fingerprint, "adapter": content[0]})
    return digest({"base": fingerprint, "adapters": content, "weights": weights})


def _content(one: PutOn, once: Once) -> list[str]:
    """Hashes of an adapter's file, and of the config that PEFT puts beside it; and its words, which
    can be the file's name."""
    file = Path(one.file)
    beside = config_beside(file, one.file)
    files = [file] if beside is None else [file, beside]
    return [*(file_hash(f, once) for f in files), *(word.name for word in one.words)]
