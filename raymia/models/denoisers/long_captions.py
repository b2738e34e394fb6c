"""Captions that are longer than what a model's text encoders are given of them, and learned words
that are in none; found before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from raymia.models.denoisers.parts import Part
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.denoisers.words import Word, spelled_out, tokenizer_in, with_words
from raymia.models.image_source import CONFIG
from raymia.models.source import read_json
from raymia.util.listing import listed

CHUNKS = ". Trainings by kohya's scripts with max_token_length read more of them, in chunks"
"""Of the families that these scripts train so."""


def cut_captions(
    models: Mapping[str, DenoiserCheckpoint], captions: Sequence[str | None]
) -> list[str]:
    """How many captions each text encoder cuts, and which learned words are in none, each as a
    sentence. In training it cut them too, unless that read them in chunks.

    Parameters
    ----------
    models : by name; those on one base are looked at once.
    captions : of the records; None is the empty one. A model with one for all is asked with that.
    """
    names: dict[tuple[str, str | None, tuple[Word, ...], int | None], list[str]] = {}
    for name, model in models.items():
        query = model.query
        read = model.path, query.prompt, model.words, query.told.caption_tokens
        names.setdefault(read, []).append(name)
    of_records = Counter(caption for caption in captions if caption)
    found = []
    for (path, prompt, words, _), on_it in names.items():
        model = models[on_it[0]]
        counted = of_records if prompt is None else Counter([prompt] if prompt else ())
        found += [
            f"{listed(on_it)}: no caption has the learned word {word!r}, so it changes nothing"
            for word in dict.fromkeys(word.name for word in words)
            if not any(word.lower() in caption.lower() for caption in counted)
        ]
        for part, limit, lengths in _lengths(model, [*counted]) if counted else ():
            cut = sum(counted[one] for one, length in lengths.items() if length > limit)
            if cut:
                found.append(
                    f"{listed(on_it)}: {cut:,} of {sum(counted.values()):,} captions are longer "
                    f"than the {limit} tokens that {part.folder} of {Path(path).name} reads, and "
                    f"are cut there; the longest has {max(lengths.values()):,}"
                    f"{'' if model.face.lengths else CHUNKS}"
                )
    return found


def _lengths(
    model: DenoiserCheckpoint, captions: Sequence[str]
) -> Iterator[tuple[Part, int, dict[str, int]]]:
    """Each text encoder, the tokens that it reads, and how many each caption has."""
    folder, face = Path(model.path), model.face
    for part in model.text_encoders:
        own = face.lengths.get(part.folder)
        if own is None:
            limit = int(read_json(folder / part.folder / CONFIG)["max_position_embeddings"])
        else:
            limit = own(model.query)
        words = [word for word in model.words if word.part == part.folder]
        tokenizer = with_words(tokenizer_in(folder, part.folder), words)
        read = [face.spelled(one) for one in captions]
        read = spelled_out(read, tokenizer) if words else read
        ids = tokenizer(read, verbose=False).input_ids
        yield part, limit, dict(zip(captions, map(len, ids), strict=True))
