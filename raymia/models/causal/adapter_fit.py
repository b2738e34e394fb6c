"""Whether an adapter's tensors are those that its config puts on its base; nothing is loaded.

PEFT leaves out what it finds no place for, as the layers of a deeper base, or modules that the
config does not name. So both are built without numbers, and PEFT is given the shapes that the
header of the adapter's weights tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raymia.models.causal.adapters import adapted_rows, check_found, resize
from raymia.models.fit import Described, build_hollow, hollow, in_silence, needs_numbers
from raymia.models.one_base import AdapterError
from raymia.models.source import ADAPTER_CONFIG
from raymia.storage.safetensors import TensorHeader
from raymia.util.caller import silenced
from raymia.util.errors import first_line
from raymia.util.once import Once


@dataclass(frozen=True)
class DescribedAdapter:
    """An adapter as its files describe it; two are equal where base, config and headers are.

    Attributes
    ----------
    base : what the adapter is put on.
    config_hash : of the adapter's config.
    tensors : names and headers of the adapter's weights.
    folder : of the adapter.
    """

    base: Described
    config_hash: str
    tensors: frozenset[tuple[str, TensorHeader]]
    folder: Path = field(compare=False)


@dataclass(frozen=True)
class AdapterFit:
    """How an adapter fits its base.

    Attributes
    ----------
    rows : of the embedding that the adapter brings; None where it leaves the base's as it is.
    why_not : why it does not fit; None where it does.
    """

    rows: int | None = None
    why_not: str | None = None


def check_adapter(described: DescribedAdapter, where: str, once: Once) -> int | None:
    """Refuse an adapter that does not fit its base.

    Returns
    -------
    Rows of the embedding that it brings; None where it leaves the base's as it is.

    Raises
    ------
    AdapterError
        Saying which tensors are missing, too many, or of another shape.
    """
    found = once(_compare, described)
    if found.why_not is not None:
        raise AdapterError(
            f"{where}: {described.folder}: this adapter does not fit its base: {found.why_not}"
        )
    return found.rows


def _compare(described: DescribedAdapter) -> AdapterFit:
    import torch

    tensors = dict(described.tensors)
    rows = None
    with in_silence(), silenced("bitsandbytes"):  # which PEFT imports
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

        try:
            model = build_hollow(described.base)
            rows = adapted_rows(model, {name: t.shape for name, t in tensors.items()})
            if rows is not None:
                resize(model, rows)
            config = PeftConfig.from_pretrained(str(described.folder))
            with torch.device("meta"):
                adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
            check_found(set_peft_model_state_dict(adapted, hollow(tensors)), adapted)
        except Exception as error:  # whatever PEFT stumbles over, it is this adapter
            if needs_numbers(error):  # as some methods do when they are set up
                return AdapterFit(rows)
            return AdapterFit(why_not=_in_words(error))
    return AdapterFit(rows)


def _in_words(error: Exception) -> str:
    """What PEFT stumbled over, in a sentence: torch lists shapes after a first line without any."""
    if isinstance(error, KeyError):  # of which torch and PEFT say nothing but the name
        return (
            f"its weights lack {error.args[0]}, which its {ADAPTER_CONFIG} asks for; copy the "
            "whole adapter again"
        )
    shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    if not shapes:
        said = first_line(error)
        return f"PEFT: {said}" if isinstance(error, TypeError | AttributeError) else said
    others = f", and {len(shapes) - 1:,} more" if len(shapes) > 1 else ""
    return f"{shapes[0].rstrip('.')}{others}"
