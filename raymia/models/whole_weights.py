"""Weights that are less or more than their model are refused: libraries fill gaps with random
numbers, leave out what they know no place for, and go on."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any

from raymia.util.caller import silenced
from raymia.util.errors import InputError
from raymia.util.listing import FEW, listed

LOADING = threading.RLock()
"""Held while a library builds a model: transformers changes its own classes meanwhile, and of two
threads that do so at once, one keeps the other's changes."""
HARMLESS = re.compile(
    r"(^|\.)(original_)?inv_freq$"
    r"|(^|\.)(attn|attention|self_attention|self_attn)\.(bias|masked_bias)$"
    r"|(^|\.)(position_ids|token_type_ids|embed_positions\.weights|cos_cached|sin_cached"
    r"|relative_position_index|num_batches_tracked|_extra_state|total_ops|total_params)$"
    r"|(^|\.)(v_head|value_head|pooler|seq_relationship)\."
    r"|(^|\.)((vision|visual|image|audio|multi_modal)[a-z_]*|mm_projector)\."
)
"""Names of tensors that change nothing that is asked of a model: what is computed from the config
(frequencies, positions, masks), counters, heads of other tasks, and what reads images and sounds
beside the text."""


def load_whole(kind: Any, where: Any, **options: Any) -> Any:
    """A model by its class's ``from_pretrained``, from safetensors alone; whole or not at all.

    Parameters
    ----------
    kind : a model class of transformers or diffusers.

    Raises
    ------
    InputError
        Naming tensors that the weights lack, or that the model has no place for. What the library
        itself raises is let through.
    """
    from raymia.models.fast_linear import gains_by_onednn, use_fast_linears

    with LOADING, silenced("bitsandbytes"):  # it tells of kernels that nothing here needs
        model, found = kind.from_pretrained(
            where, use_safetensors=True, output_loading_info=True, **options
        )
    asked = options.get("quantization_config") is not None and "gguf_file" not in options
    if asked and not _is_quantized(model):
        raise InputError(
            f"{where}: bitsandbytes quantized no layer of this model, so that the whole weights "
            "would be asked; leave out `quantization`"
        )
    refuse_missing(found["missing_keys"], str(where))
    refuse_unused(found["unexpected_keys"], str(where))
    keep_layout_of_4_bits(model)
    if gains_by_onednn():
        use_fast_linears(model)
    _give_names(model)
    return model


def _give_names(model: Any) -> None:
    """Have a model of transformers give its outputs names, also where its config says tuples."""
    for part in model.modules():
        config: Any = getattr(part, "config", None)
        if getattr(config, "return_dict", True) is False:
            config.return_dict = True


def keep_layout_of_4_bits(model: Any) -> None:
    """Have weights of 4 bits computed alike on every machine.

    On a CPU that computes in bfloat16, bitsandbytes lays them out anew when they are first asked,
    rounds their scales and what is multiplied with them to bfloat16, whatever dtype was asked for,
    and can train them no further.
    """
    for part in model.modules():
        if type(part).__name__ == "Linear4bit":
            part.support_avx512bf16_for_cpu = False


def _is_quantized(model: Any) -> bool:
    return any(type(part).__module__.startswith("bitsandbytes.") for part in model.modules())


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
            f"({listed(names, FEW)}); copy the whole checkpoint again, with its own {config}"
        )


def refuse_unused(tensors: Iterable[str], where: str, config: str = "config.json") -> None:
    """Refuse weights of which a model uses only a part.

    Raises
    ------
    InputError
        Naming some of the tensors that it has no place for, unless they are :data:`HARMLESS`.
    """
    names = sorted(name for name in tensors if not HARMLESS.search(name))
    if names:
        raise InputError(
            f"{where}: its weights hold {len(names):,} tensors for which the model that its "
            f"{config} describes has no place ({listed(names, FEW)}), and would be scored without "
            f"them; give the {config} that belongs to these weights, or the model that they were "
            "made for"
        )
