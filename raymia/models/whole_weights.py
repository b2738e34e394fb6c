"""Weights that lack tensors are refused: libraries fill the gaps with random numbers and go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raymia.util.errors import InputError


def load_whole(kind: Any, where: Any, **options: Any) -> Any:
    """A model by its class's ``from_pretrained``, from safetensors alone; whole or not at all.

    Parameters
    ----------
    kind : a model class of transformers or diffusers.

    Raises
    ------
    InputError
        Naming tensors that the weights lack. What the library itself raises is let through.
    """
    from raymia.models.fast_linear import gains_by_onednn, use_fast_linears

    model, found = kind.from_pretrained(
        where, use_safetensors=True, output_loading_info=True, **options
    )
    refuse_missing(found["missing_keys"], str(where))
    if gains_by_onednn():
        use_fast_linears(model)
    return model


def refuse_missing(tensors: Iterable[str], where: str, config: str = "config.json") -> None:
    """Refuse weights that lack tensors.

    Raises
    ------
    InputError
        Naming some of them.
    """
    names = sorted(tensors)
    if names:
        raise InputError(
            f"{where}: its weights lack {len(names):,} of the tensors that its {config} asks for "
            f"({', '.join(names[:3])}{', ...' if names[3:] else ''}); copy the whole checkpoint "
            f"again, with its own {config}"
        )
