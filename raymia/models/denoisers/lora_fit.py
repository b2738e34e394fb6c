"""Which modules of a pipeline an adapter changes, and whether they have its shapes; the pipeline is
built without numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

from raymia.models.denoisers.faces import T5
from raymia.models.denoisers.lora_files import LowRank, config_beside, read_low_rank
from raymia.models.denoisers.original_names import original_name
from raymia.models.denoisers.original_transformers import TABLES, Place, original_places
from raymia.models.fit import Described, build_hollow, in_silence
from raymia.models.one_base import AdapterError
from raymia.util.listing import FEW, listed
from raymia.util.once import Once

OTHER_NAMES = {"_q_proj": "_to_q", "_k_proj": "_to_k", "_v_proj": "_to_v", "_out_proj": "_to_out"}
"""Ends of names of a text encoder's modules, and what diffusers once called them in adapters."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Modules that can have an adapter, with the shapes of their weights."""


@dataclass(frozen=True)
class Placed:
    """Low-rank weights, and the module of the base that they change.

    Attributes
    ----------
    rows : of the product that are the module's change, first and last of each piece; all where the
        module is one in the file as well.
    """

    weights: LowRank
    path: str
    rows: tuple[tuple[int, int], ...] = ()


def place_adapter(
    file: Path, parts: Mapping[str, Described], where: str, once: Once
) -> tuple[Placed, ...]:
    """Find the module of each of an adapter's weights.

    Parameters
    ----------
    parts : of the base, by the names of :class:`LowRank`.

    Raises
    ------
    AdapterError
        Naming modules that the base does not have, or that have another shape there.
    InputError
        If the file is no adapter's.
    """
    found = once(read_low_rank, file, where=where)
    shapes = {part: dict(once(adaptable, described)) for part, described in parts.items()}
    places = {part: _places(part, parts[part].auto, paths) for part, paths in shapes.items()}
    placed, lost, wrong = [], [], []
    if config_beside(file, where) is not None:
        found = _in_an_encoder(found, places, shapes, f"{where}: {file}")
    for weights in (_in_a_part(one, parts) for one in found):
        place = places.get(weights.part, {}).get(_flat(weights.module))
        if place is None:
            lost.append(weights.tensors["down"])
            continue
        heights = [shapes[weights.part][path][0] for path in place.paths]
        shape = sum(heights), *shapes[weights.part][place.paths[0]][1:]
        if why := _misfit(weights, shape):
            wrong.append(f"{weights.tensors['down']}: {why}")
        else:
            rows = _rows(place, heights)
            placed += [Placed(weights, *of) for of in zip(place.paths, rows, strict=True)]
    if lost:
        raise AdapterError(
            f"{where}: {file}: this adapter does not fit its base: {len(lost):,} of its "
            f"{len(found):,} modules are not in the base ({listed(lost, FEW)}); "
            f"{_remedy(lost, parts[''].auto)}"
        )
    if wrong:
        raise AdapterError(
            f"{where}: {file}: this adapter does not fit its base: {len(wrong):,} of its "
            f"{len(found):,} modules have another shape there ({listed(wrong, FEW)}); give the "
            "base that it was trained on"
        )
    return tuple(placed)


def _in_an_encoder(
    found: tuple[LowRank, ...],
    places: Mapping[str, Mapping[str, Place]],
    shapes: Mapping[str, Mapping[str, Sequence[int]]],
    place: str,
) -> tuple[LowRank, ...]:
    """The same, of a text encoder where PEFT put them on one alone: it does not write on which."""

    def fits(part: str) -> bool:
        there = [(one, places[part].get(_flat(one.module))) for one in found]
        return all(
            at is not None and _misfit(one, tuple(shapes[part][at.paths[0]])) is None
            for one, at in there
        )

    if any(one.part or _flat(one.module) in places[""] for one in found):
        return found
    encoders = [part for part in places if part and fits(part)]
    if len(encoders) > 1:
        raise AdapterError(
            f"{place}: it fits {listed(encoders)}, and PEFT does not write which it is of; save it "
            "with the pipeline's save_lora_weights"
        )
    return tuple(replace(one, part=encoders[0]) for one in found) if encoders else found


def _in_a_part(weights: LowRank, parts: Mapping[str, Described]) -> LowRank:
    """The same, of the T5 that the base has where it has no third text encoder."""
    if weights.part != "text_encoder_3" or weights.part in parts:
        return weights
    return replace(weights, part=next((n for n, d in parts.items() if d.auto in T5), weights.part))


def _rows(place: Place, heights: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
    """The rows of an original module that each of its modules is."""
    if place.is_turned:
        (height,) = heights
        return [((height // 2, height), (0, height // 2))]
    if len(heights) == 1:
        return [()]
    return [(edges,) for edges in pairwise(accumulate(heights, initial=0))]


def _remedy(lost: Sequence[str], network: str) -> str:
    is_original = all(name.startswith(("lora_unet_", "diffusion_model.")) for name in lost)
    if is_original and "Transformer" in network and network not in TABLES:
        return (
            "if it was trained on this base, its names are those of the authors' own code, which "
            "raymia reads of UNets, Stable Diffusion 3 and FLUX.1; load it with diffusers' "
            "load_lora_weights, and save it with save_lora_weights"
        )
    if all(name.startswith("lycoris_") for name in lost):
        return (
            "it is one of LyCORIS in names of its own, as SimpleTuner writes them, and raymia does "
            "not read these; fuse it into its base, and audit that"
        )
    return "give the base that it was trained on"


def adaptable(described: Described) -> Shapes:
    """The linear layers and convolutions of a model, without numbers."""
    from torch import nn

    with in_silence():
        model = build_hollow(described)
    return tuple(
        (name, tuple(module.weight.shape))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    )


def _flat(name: str) -> str:
    return name.replace(".processor.", ".").replace(".", "_")


def _places(part: str, kind: str, paths: Mapping[str, object]) -> dict[str, Place]:
    """Modules by all names that adapters have for them, with underscores alone."""
    if part:
        found = {name: Place((p,)) for p in paths for name in _of_text_encoder(_flat(p))}
    else:
        found = {_flat(name): place for name, place in original_places(kind, paths)}
        found |= {_flat(name): Place((p,)) for p in paths for name in _of_network(p, [*paths])}
    return found | {_flat(path): Place((path,)) for path in paths}


def _of_network(path: str, paths: Sequence[str]) -> Iterator[str]:
    if path.endswith(".to_out.0"):  # which was once a module of its own
        yield path.removesuffix(".0")
    if (original := original_name(path, paths)) is not None:
        yield original


def _of_text_encoder(name: str) -> Iterator[str]:
    # transformers once had a text_model within the encoder, and files name it still.
    own = name.removeprefix("text_model_")
    for start in ("", "text_model_"):
        yield start + own
        for end, other in OTHER_NAMES.items():
            if own.endswith(end):
                yield start + own.removesuffix(end) + other


def _misfit(weights: LowRank, shape: tuple[int, ...]) -> str | None:
    """Why weights cannot be added to those of a module of a shape; None where they can."""
    down, up, rank = weights.shapes["down"], weights.shapes["up"], weights.rank
    by = [1] * (len(shape) - 2)
    if list(down) != [rank, *shape[1:]] or list(up) != [shape[0], rank, *by]:
        return f"matrices of {list(up)} and {list(down)} for a weight of {list(shape)}"
    for role in ("bias", "magnitude"):
        own = weights.shapes.get(role, shape[:1])
        if max(own, default=1) != shape[0] or sorted(own)[:-1] != [1] * (len(own) - 1):
            return f"a {role} of {list(own)} for a weight of {list(shape)}"
    if weights.tensors.get("magnitude", "").endswith(".dora_scale"):
        own = weights.shapes["magnitude"]
        if own[:1] != shape[:1]:
            return f"a magnitude of {list(own)} for a weight of {list(shape)}"
    return None
