"""What of a language model is trained: its weights, or an adapter of PEFT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raymia.models.causal.facts import LOADS, code_of_its_own, read_causal_config
from raymia.models.causal.family import neutral_generation, quantization_options
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.fit import (
    Described,
    build_hollow,
    in_silence,
    is_quantizable,
    needs_numbers,
)
from raymia.models.whole_weights import load_whole
from raymia.prepare.together import device_map
from raymia.prepare.trainer import base_dtype, pad_batch
from raymia.spec.methods import Ia3Method, LowRank, Method, PrefixMethod
from raymia.util.caller import silenced
from raymia.util.errors import InputError, first_line
from raymia.util.listing import listed
from raymia.util.optional import require

TRAINED_ON = frozenset({"nf4", "fp4", "int8"})
"""Quantizations that gradients pass through, so that an adapter can be trained on them."""


@dataclass(frozen=True)
class Counted:
    """Numbers in the weights; None where they cannot be told without loading them.

    Attributes
    ----------
    trained, all : those that are trained, and all with the base's.
    """

    trained: int | None
    all: int | None


def check_method(method: Method, base: CausalCheckpoint, where: str) -> Counted:
    """Refuse a method that the base cannot be trained by; loads nothing.

    Raises
    ------
    InputError
        For quantized weights that cannot be trained, layers that are not there, and whatever PEFT
        does not take.
    """
    saved_as = base.facts.saved_as
    if saved_as is not None and (method.peft is None or saved_as not in TRAINED_ON):
        raise InputError(
            f"base.model: {base.path} was saved quantized ({saved_as}), and "
            + (
                "quantized weights cannot be trained themselves; give the model that it was made "
                "from, or a method that trains an adapter"
                if method.peft is None
                else f"no gradient passes through such weights, as it does through "
                f"{listed(sorted(TRAINED_ON))}; give the model that it was made from"
            )
        )
    if method.peft is not None:
        require("peft", "adapters", where)
    if method.quantized:
        require("bitsandbytes", "quantized models", where)
    with in_silence(), silenced("bitsandbytes"):  # which PEFT imports
        config = read_causal_config(Path(base.path), None, base.trust_remote_code, "base.model")
        if code_of_its_own(config, base.trust_remote_code) == "loads":
            return Counted(None, None)
        hollow = Described(LOADS, "", frozenset(), config)
        model = build_hollow(hollow)
        _check_layers(method, model, where)
        if method.quantized and saved_as is None and not is_quantizable(hollow):
            raise InputError(
                f"{where}: bitsandbytes quantizes no layer of a {base.facts.model_type}, so that "
                "it would be LoRA on whole weights; take `lora`"
            )
        try:
            if method.peft is not None:
                with torch.device("meta"):
                    model = adapted(model, method, low_cpu_mem_usage=True)
        except Exception as error:  # whatever PEFT stumbles over
            if needs_numbers(error):  # as some methods do when they are set up
                return Counted(None, None)
            raise InputError(
                f"{where}: PEFT cannot train a {base.facts.model_type} by {method.kind}: "
                f"{first_line(error)}; name `target_modules` among the layers "
                f"{listed(_layers(model), 12)}, or take another method"
            ) from None
        return Counted(
            sum(one.numel() for one in model.parameters() if one.requires_grad),
            sum(one.numel() for one in model.parameters()),
        )


def check_checkpointing(base: CausalCheckpoint, where: str) -> None:
    """Refuse a base whose layers cannot be recomputed; loads nothing.

    Raises
    ------
    InputError
        Naming the kind of model.
    """
    config = read_causal_config(Path(base.path), None, base.trust_remote_code, where)
    if code_of_its_own(config, base.trust_remote_code) == "loads":
        return
    with in_silence():
        model = build_hollow(Described(LOADS, "", frozenset(), config))
    if not model.supports_gradient_checkpointing:
        raise InputError(
            f"{where}: transformers cannot recompute the layers of a {base.facts.model_type}; "
            "leave `gradient_checkpointing` out, and make `batch_size` smaller if memory runs out"
        )


def load_to_train(
    base: CausalCheckpoint, method: Method, seed: int, bf16: bool | None = None
) -> Any:
    """The base with what is trained on it, in :func:`base_dtype`."""
    from transformers import AutoModelForCausalLM

    is_adapter = method.peft is not None
    dtype = base_dtype(bf16, is_adapted=is_adapter)
    is_quantized = method.quantized or base.facts.saved_as is not None
    quantization = "nf4" if method.quantized and base.facts.saved_as is None else "none"
    torch.manual_seed(seed)
    model = load_whole(
        AutoModelForCausalLM,
        base.path,
        dtype=dtype,
        device_map=device_map(is_quantized),
        trust_remote_code=base.trust_remote_code,
        **quantization_options(quantization, dtype),
    )
    make_savable(model)
    if is_quantized:
        model = ready_for_an_adapter(model)
    torch.manual_seed(seed)  # the adapter's, whatever loading drew
    return adapted(model, method) if is_adapter else model


def make_savable(model: Any) -> None:
    """Leave out a base's settings of generation that contradict each other, as some of the hub do:
    with these, some versions of transformers would not save what was trained."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    try:
        config.validate(strict=True)
    except ValueError:
        model.generation_config = neutral_generation(config)


def ready_for_an_adapter(model: Any) -> Any:
    """A quantized model whose other weights are float32 and not trained, as PEFT has it."""
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def check_passes(model: Any, method: Method, row: Mapping[str, list[int]]) -> None:
    """Refuse a model that cannot be trained on a record, whatever is in the way.

    Raises
    ------
    InputError
        Naming the method, and what the model says.
    """
    batch = {name: table.to(model.device) for name, table in pad_batch([row]).items()}
    model.train()
    with torch.random.fork_rng():
        try:
            model(**batch).loss.backward()
        except Exception as error:  # of any kind, by what does not go together
            raise InputError(
                f"method: a {model.config.model_type} cannot be trained by {method.kind}: "
                f"{first_line(error)}; take another method"
            ) from error
    model.zero_grad()


@contextmanager
def measured(model: Any) -> Iterator[None]:
    """A model that is being trained as it answers, for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def adapted(model: Any, method: Method, **options: Any) -> Any:
    """The model with a fresh adapter, which alone is trained."""
    require("peft", "adapters")
    with silenced("bitsandbytes"):  # which PEFT imports
        import peft

    assert method.peft is not None
    settings = method.settings
    if isinstance(method, PrefixMethod):
        settings |= _shared_head(model.config)
    config = getattr(peft, method.peft)(task_type="CAUSAL_LM", **settings)
    return peft.get_peft_model(model, config, **options)


def _shared_head(config: Any) -> dict[str, int]:
    """Heads and width of a prefix where all heads share keys and values, which PEFT does not see
    in the configs that say it as `multi_query`."""
    if not getattr(config, "multi_query", False) or getattr(
        config, "new_decoder_architecture", False
    ):
        return {}
    return {
        "num_attention_heads": 1,
        "token_dim": config.hidden_size // config.num_attention_heads,
    }


def _check_layers(method: Method, model: Any, where: str) -> None:
    if not isinstance(method, LowRank | Ia3Method):
        return
    names = [name for name, _ in model.named_modules()]
    for key in ("target_modules", "feedforward_modules"):
        missing = [
            one
            for one in getattr(method, key, None) or []
            if not any(name == one or name.endswith(f".{one}") for name in names)
        ]
        if missing:
            raise InputError(
                f"{where}.{key}: the model has no layer {listed(missing)}; its layers end in "
                f"{listed(_layers(model), 12)}"
            )
    _check_feedforward(method, where)


def _check_feedforward(method: Method, where: str) -> None:
    if not isinstance(method, Ia3Method) or not (inputs := method.feedforward_modules):
        return
    if method.target_modules is None:
        raise InputError(
            f"{where}.feedforward_modules: they are some of `target_modules`, which has to be "
            "given, too"
        )
    others = sorted({*inputs} - {*method.target_modules})
    if others:
        raise InputError(
            f"{where}.feedforward_modules: {listed(others)} is not among `target_modules`, "
            f"{listed(method.target_modules, 12)}"
        )


def _layers(model: Any) -> list[str]:
    """Last parts of the names of the layers with a matrix."""
    found = {
        name.rpartition(".")[2]: None
        for name, module in model.named_modules()
        if name and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }
    return list(found)
