"""Captions that are longer than a model's text encoders read, counted before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from raymia.models.denoisers.captions import load_tokenizer
from raymia.models.denoisers.resolver import DenoiserCheckpoint, Part
from raymia.models.image_source import CONFIG
from raymia.models.source import read_json
from raymia.util.listing import listed


def cut_captions(
    models: Mapping[str, DenoiserCheckpoint], captions: Sequence[str | None]
) -> list[str]:
    """How many captions each text encoder cuts, as it did in training, each as a sentence.

    Parameters
    ----------
    models : by name; those on one base are looked at once.
    captions : of the records; None is the empty one. A model with one for all is asked with that.
    """
    names: dict[tuple[str, str | None], list[str]] = {}
    for name, model in models.items():
        names.setdefault((model.path, model.query.prompt), []).append(name)
    of_records = Counter(caption for caption in captions if caption)
    found = []
    for (path, prompt), on_it in names.items():
        model = models[on_it[0]]
        counted = of_records if prompt is None else Counter([prompt] if prompt else ())
        for part, limit, lengths in _lengths(model, [*counted]) if counted else ():
            cut = sum(counted[one] for one, length in lengths.items() if length > limit)
            if cut:
                found.append(
                    f"{listed(on_it)}: {cut:,} of {sum(counted.values()):,} captions are longer "
                    f"than the {limit} tokens that {part.folder} of {Path(path).name} reads, and "
                    f"are cut there; the longest has {max(lengths.values()):,}"
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
        tokenizer = load_tokenizer(folder, part)
        ids = tokenizer([face.spelled(one) for one in captions], verbose=False).input_ids
        yield part, limit, dict(zip(captions, map(len, ids), strict=True))
