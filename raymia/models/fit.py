"""Whether a checkpoint's tensors are those of the model that its config describes.

The model is built without numbers (on torch's device "meta") and given the shapes that the headers
of the weights tell, by the library's own loading; so what it renames, merges or ties is known here
as it is there.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from raymia.models.config_bounds import no_more_parts, refuse_vast
from raymia.models.packed_weights import as_unpacked, by, refuse_other_scales
from raymia.models.saved_quantization import quantization_in, refuse_unscaled
from raymia.models.source import config_hash, model_weights_in, read_json
from raymia.models.whole_weights import LOADING, refuse_missing, refuse_unused
from raymia.storage.safetensors import TensorHeader
from raymia.util.caller import caller_state
from raymia.util.errors import InputError, first_line
from raymia.util.listing import FEW, listed
from raymia.util.once import Once

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""safetensors' names of the types of numbers that are what they stand for."""
OF_READING = ("conversion of the weights", "complex dtype", "GPU")
"""Words of errors of code that reads packed weights by their numbers, fills gaps between them, or
looks for a device; of a hollow model they say nothing."""
BY_DEVICE = frozenset({"awq", "compressed-tensors", "gptq", "mxfp4", "torchao"})
"""Methods whose packages choose by the device how weights are read, and know none without numbers:
what they raise of a hollow model says nothing of the checkpoint."""
KEPT = 64
"""Of so many models it is known what does not fit: it follows from what they are equal by."""


@dataclass(frozen=True)
class Described:
    """A model as its files describe it; two are equal where configs and headers are.

    Attributes
    ----------
    auto : name of the class that loads it: of transformers, as "AutoModelForCausalLM" or
        "CLIPTextModel", or of diffusers, as "UNet2DModel".
    config_hash : of the config's content.
    tensors : names and headers.
    config : of transformers; of diffusers its content.
    """

    auto: str
    config_hash: str
    tensors: frozenset[tuple[str, TensorHeader]]
    config: Any = field(compare=False, repr=False)

    @property
    def is_quantized(self) -> bool:
        """Whether its config says that its weights were quantized when they were saved."""
        return self.quantization is not None

    @property
    def quantization(self) -> Any:
        """How, as its config says it; None where it does not."""
        if isinstance(self.config, Mapping):
            return self.config.get("quantization_config")
        return quantization_in(self.config)


def described(auto: str, folder: Path, where: str, once: Once) -> Described:
    """The model in a folder that transformers loads by an auto class."""
    config = once(read_transformers_config, folder, where=where)
    tensors = model_weights_in(folder, where, once)
    return Described(auto, config_hash(folder, once), frozenset(tensors.items()), config)


def read_transformers_config(
    folder: Path, gguf_file: str | None = None, trust_remote_code: bool = False, *, where: str
) -> Any:
    """A folder's config, by transformers.

    Raises
    ------
    InputError
        If it cannot be read, or takes code from another repository.
    """
    from transformers import AutoConfig

    if trust_remote_code:
        _refuse_code_elsewhere(folder, where)

    source = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **source)
    except Exception as error:  # of any kind, by what is damaged or unknown
        raise InputError(
            f"{where}: transformers cannot read the config of {folder} ({type(error).__name__}: "
            f"{first_line(error)}); copy the files again, or update transformers"
        ) from error


def _refuse_code_elsewhere(folder: Path, where: str) -> None:
    """Refuse code that is fetched from elsewhere when a model is loaded: what it is by then, no
    fingerprint of these files says."""
    for name in ("config.json", "tokenizer_config.json"):
        file = folder / name
        found = (read_json(file, where) if file.is_file() else {}).get("auto_map")
        named = found.values() if isinstance(found, Mapping) else ()
        classes = [one for own in named for one in (own if isinstance(own, list) else [own])]
        elsewhere = [one for one in classes if isinstance(one, str) and "--" in one]
        if elsewhere:
            raise InputError(
                f"{where}: {file} takes its code from another repository ({elsewhere[0]}), which "
                "may be changed at any time; copy its files into the folder, and name them in "
                "`auto_map` without the repository"
            )


@dataclass(frozen=True)
class Misfit:
    """What does not fit; empty where all does.

    Attributes
    ----------
    missing, unused : names of tensors.
    shapes : a sentence for each tensor of another shape.
    unscaled : tensors that the model takes as they are, and that are integers or float8.
    unbuildable : why no model can be built from the config.
    """

    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    unscaled: tuple[str, ...] = ()
    unbuildable: str | None = None


def check_fit(described: Described, folder: Path, where: str, once: Once) -> None:
    """Refuse weights that are not those of the model that the config describes.

    Raises
    ------
    InputError
        Naming the tensors that are missing, too many, or of another shape, or quantized and without
        a scale that fits beside them.
    """
    if described.is_quantized:
        tensors = dict(described.tensors)
        refuse_unscaled(tensors, folder, where)
        refuse_other_scales(tensors, described.quantization, folder, where)
    compare = _in_diffusers if isinstance(described.config, Mapping) else _in_transformers
    found = once(compare, described)
    place = f"{where}: {folder}"
    if found.unbuildable is not None:
        raise InputError(
            f"{place}: no {described.auto} can be built from what its config.json describes: "
            f"{found.unbuildable}"
        )
    if found.unscaled:
        raise InputError(
            f"{place}: {len(found.unscaled):,} of its tensors are integers or float8, and no "
            f"quantization_config in its config.json says how they are scaled "
            f"({listed(found.unscaled, FEW)}); copy the checkpoint's own config.json"
        )
    if found.shapes:
        raise InputError(
            f"{place}: {len(found.shapes):,} of its tensors have other shapes than its config.json "
            f"says ({listed(found.shapes, FEW)}); copy the checkpoint's own config.json"
        )
    if wrapper := _wrapper_of(found):
        raise InputError(
            f"{place}: the names of its tensors begin with {wrapper!r}, as torch.compile and "
            "parallel training wrap a model; save the model within it, as model._orig_mod or "
            "model.module, with save_pretrained(folder)"
        )
    refuse_missing(found.missing, place)
    refuse_unused(found.unused, place)


def _wrapper_of(found: Misfit) -> str:
    """What stands before the names of all tensors that a model asks for; empty where nothing."""
    pairs = zip(sorted(found.missing), sorted(found.unused), strict=False)
    before = {own.removesuffix(name) for name, own in pairs if own.endswith(f".{name}")}
    (wrapper,) = before if len(before) == 1 else ("",)
    is_all = {f"{wrapper}{name}" for name in found.missing} == {*found.unused}
    return wrapper if is_all and found.missing else ""


@contextmanager
def in_silence() -> Iterator[None]:
    """Let libraries say nothing, and leave them as they were; no other thread builds meanwhile."""
    import transformers

    with LOADING, caller_state():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        yield


def build_hollow(described: Described, **changes: Any) -> Any:
    """The model that a config describes, without numbers; of its own copy of the config, which
    PEFT and transformers write to as they change a model.

    Parameters
    ----------
    changes : of the config, for a model of transformers.
    """
    import torch
    import transformers

    with torch.device("meta"), no_more_parts(len(described.tensors)):
        if isinstance(described.config, Mapping):
            import diffusers

            return getattr(diffusers, described.auto).from_config(dict(described.config))
        kind = getattr(transformers, described.auto)
        config = copy.deepcopy(described.config)
        if not hasattr(kind, "from_config"):  # a model's own class
            return kind(config)
        return kind.from_config(config, **changes)


def is_quantizable(described: Described) -> bool:
    """Whether bitsandbytes quantizes anything of a language model: it leaves the head as it is, and
    layers of a kind of their own, such as all of Falcon's."""
    import torch
    from transformers.pytorch_utils import Conv1D

    with in_silence():
        model = build_hollow(described)
    head = model.get_output_embeddings()
    return any(
        type(module) is torch.nn.Linear or isinstance(module, Conv1D)
        for module in model.modules()
        if module is not head
    )


def needs_numbers(error: Exception) -> bool:
    """Whether an error is of code that computes with weights, which a hollow model has not: what it
    would have come to is seen when the model is loaded."""
    return any(words in str(error) for words in ("meta tensor", "meta device", "register_meta"))


def hollow(tensors: Mapping[str, TensorHeader]) -> dict[str, Any]:
    """Tensors without numbers, of the shapes and types that headers tell."""
    import torch

    known = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I8": torch.int8,
    }  # fmt: skip
    return {
        name: torch.empty(tensor.shape, dtype=known.get(tensor.dtype, torch.uint8), device="meta")
        for name, tensor in tensors.items()
    }


@lru_cache(maxsize=KEPT)
def _in_transformers(described: Described) -> Misfit:
    tensors, config = dict(described.tensors), described.config
    packed: Mapping[str, int | None] = {}
    with in_silence():
        try:
            built = build_hollow(described)
            refuse_vast(built, described.tensors)
            kind = type(built)
            try:
                model, found = _load(kind, config, tensors)
            except Exception as error:
                if not described.is_quantized or not _is_of_the_reader(error, config):
                    raise
                plain, packed = as_unpacked(tensors)
                model, found = _load(kind, _without_quantization(config), plain)
        except Exception as error:  # of any kind, by what the config says
            return Misfit(unbuildable=first_line(error))
        plain = {name: tensor for name, tensor in tensors.items() if tensor.dtype in FLOATS}
        lost: set[str] = set()
        if not described.is_quantized and len(plain) < len(tensors):
            lost = _load(kind, config, plain)[1]["missing_keys"] - found["missing_keys"]
    state = model.state_dict()
    return Misfit(
        missing=tuple(sorted(found["missing_keys"])),
        unused=tuple(sorted(found["unexpected_keys"])),
        shapes=tuple(
            f"{name} is {by(given)} and should be {by(wanted)}"
            for name, given, wanted in sorted(found["mismatched_keys"])
            if not _is_of_packed(name, wanted, packed)
        ),
        unscaled=tuple(sorted(name for name in lost if state[name].is_floating_point())),
    )


def _is_of_the_reader(error: Exception, config: Any) -> bool:
    """Whether an error is of the code that reads quantized weights, which lacks their numbers or
    the device, and not of what the config says."""
    from transformers.quantizers.auto import AutoQuantizationConfig

    settings = quantization_in(config)
    if isinstance(settings, Mapping):
        AutoQuantizationConfig.from_dict(dict(settings))
        method = settings.get("quant_method")
    else:
        method = getattr(settings, "quant_method", None)
    is_of_reading = any(words in str(error) for words in OF_READING)
    return method in BY_DEVICE or needs_numbers(error) or is_of_reading


def _without_quantization(config: Any) -> Any:
    plain = copy.deepcopy(config)
    for place in (plain, plain.get_text_config(decoder=True)):
        if hasattr(place, "quantization_config"):
            del place.quantization_config
    return plain


def _is_of_packed(name: str, wanted: Sequence[int], packed: Mapping[str, int | None]) -> bool:
    """Whether a tensor has another shape than is wanted because it is packed, and no other reason
    is seen. Experts that a model holds in one tensor have no name of their own there."""
    numbers = packed.get(name)
    # Of an odd count, one number is added.
    is_whole = numbers is None or 0 <= numbers - math.prod(wanted) <= 1
    return is_whole and (name in packed or bool(packed and ".experts." in name))


@lru_cache(maxsize=KEPT)
def _in_diffusers(described: Described) -> Misfit:
    import torch

    with in_silence():
        try:
            model = build_hollow(described)
            refuse_vast(model, described.tensors)
        except Exception as error:  # of any kind, by what the config says
            return Misfit(unbuildable=first_line(error))
        tensors, packed = dict(described.tensors), dict[str, int | None]()
        if described.is_quantized:
            if described.quantization.get("quant_method") in BY_DEVICE:
                return Misfit()  # it is not known how these call their tensors
            tensors, packed = as_unpacked(tensors)
        given, wanted = hollow(tensors), model.state_dict()
        # Parts of attention layers had other names once, which diffusers changes as it loads them.
        getattr(model, "_fix_state_dict_keys_on_load", lambda _: None)(given)
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    both = sorted(given.keys() & wanted.keys())
    return Misfit(
        missing=tuple(sorted(wanted.keys() - given.keys())),
        unused=tuple(sorted(given.keys() - wanted.keys())),
        shapes=tuple(
            f"{name} is {by(given[name].shape)} and should be {by(wanted[name].shape)}"
            for name in both
            if given[name].shape != wanted[name].shape
            and not _is_of_packed(name, wanted[name].shape, packed)
        ),
        unscaled=tuple(
            name
            for name in both
            if wanted[name].is_floating_point() and given[name].dtype not in floats
        ),
    )


def _load(kind: Any, config: Any, tensors: Mapping[str, TensorHeader]) -> tuple[Any, Any]:
    """Have transformers load tensors without numbers; the model, and what is said of them."""
    return kind.from_pretrained(  # type: ignore[no-any-return]
        None,
        config=copy.deepcopy(config),
        state_dict=hollow(tensors),
        device_map="meta",
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
