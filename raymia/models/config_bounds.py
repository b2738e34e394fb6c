"""Configs that say of models far larger than there are: building one would not end, or would fill
the memory, before it could be compared with its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError
from raymia.util.stated import shown

FEWEST_PARTS, PARTS, MOST_PARTS = 1_000, 10, 100_000
"""Modules, tensors and buffers that a model may have: so many, and more for each tensor of its
weights; or where these are not looked at."""
COUNTS = re.compile(r"layers?($|_per_block)|blocks?$|depths?$|num_labels|experts|attention_types")
"""Keys of configs under which stand numbers of layers, and of what else is gone through."""
HEADS = re.compile(r"(^|_)n?_?heads?$")
"""Keys of numbers of heads: by a negative one, shapes can be computed that fit the weights."""
MOST_NUMBERS = 100
"""Numbers of a model to each that its weights have, of which packed ones may hold up to 32."""


def refuse_many(content: Any, place: str, key: str = "") -> None:
    """Refuse a config that counts more layers, experts or labels than any model has: libraries go
    through so many before they build one. Nor can there be less than no heads.

    Parameters
    ----------
    place : of the config, for the message.
    key : that the content stands under.

    Raises
    ------
    InputError
        Naming the key.
    """
    if isinstance(content, Mapping):
        for name, value in content.items():
            refuse_many(value, place, name if COUNTS.search(name) or HEADS.search(name) else key)
    elif isinstance(content, list):
        for value in content:
            refuse_many(value, place, key)
    elif key and isinstance(content, int | float):
        least = 0 if HEADS.search(key) else -MOST_PARTS
        if not least <= content <= MOST_PARTS:
            raise InputError(
                f"{place}: {key} should be from {least:,} to {MOST_PARTS:,}, but is "
                f"{shown(content)}; copy the checkpoint's own config.json"
            )


@contextmanager
def no_more_parts(tensors: int) -> Iterator[None]:
    """Have no model built of many more parts than its weights have tensors.

    Parameters
    ----------
    tensors : that its weights have; 0 where these are not looked at.

    Raises
    ------
    InputError
        While such a model is built.
    """
    from torch.nn.modules import module

    most = FEWEST_PARTS + PARTS * tensors if tensors else MOST_PARTS
    parts = 0

    def count(*_: object) -> None:
        nonlocal parts
        parts += 1
        if parts > most:
            raise InputError(
                f"it says of a model of more than {most:,} parts (layers, what they are made of, "
                "and tensors), far more than its weights have; copy the checkpoint's own "
                "config.json"
            )

    registrations = (
        module.register_module_module_registration_hook,
        module.register_module_parameter_registration_hook,
        module.register_module_buffer_registration_hook,
    )
    handles = [register(count) for register in registrations]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def refuse_vast(model: Any, tensors: Collection[tuple[str, TensorHeader]]) -> None:
    """Refuse a model of many more numbers than its weights have, before any part of it is made that
    is no weight, as frequencies and masks are.

    Raises
    ------
    InputError
        Saying how many they are.
    """
    wanted = sum(one.numel() for ones in (model.parameters(), model.buffers()) for one in ones)
    given = sum(math.prod(tensor.shape) for _, tensor in tensors)
    if wanted > MOST_NUMBERS * given:
        raise InputError(
            f"it says of a model of {wanted:,} numbers, and its weights have {given:,}; copy the "
            "checkpoint's own config.json"
        )
