"""PEFT adapters: which can share one base in memory, how they are put on it and switched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from raymia.models.lanes import Twins
from raymia.models.one_base import AdapterError
from raymia.models.source import ADAPTER_CONFIG, read_json
from raymia.models.whole_weights import refuse_missing, refuse_unused
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError
from raymia.util.optional import require
from raymia.util.stated import TEXT, TEXTS, stated_if

WEIGHTS = "adapter_model.safetensors"

_SWITCHABLE = {"LORA": "lora_", "IA3": "ia3_"}
"""Methods that leave the base's own weights alone, and what the names of their tensors have."""

_BESIDE_THE_MODEL = ("prompt_embeddings", "prefix_task_")
"""Starts of names of tensors that PEFT loads into what it puts before a text, and calls unknown."""
_AGAIN = ".modules_to_save.weight"
"""End of names of an enlarged embedding that is saved as a whole: PEFT writes it twice, and reads
it by its other name."""

_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules",
    "fan_in_fan_out", "feedforward_modules", "inference_mode", "init_ia3_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
}  # fmt: skip
"""Keys of an adapter's config under which anything may stand."""

_HARMLESS_IF = {"bias": ("none",), "init_lora_weights": (True, "gaussian")}


def switchable_method(adapter: str) -> str | None:
    """What adapters that share a base must have in common; None where one can share with none.

    It is the PEFT method, the modules that an adapter replaces as a whole and, of (IA)3, those it
    takes for feed-forward: PEFT cannot have one module treated in two ways.

    An adapter needs a base of its own where it changes the base itself (biases, decomposed or
    replicated layers, an enlarged embedding) or the model's inputs (prefixes, prompts). A setting
    that is not known to be harmless counts as such a change.
    """
    place = Path(adapter) / ADAPTER_CONFIG
    config = read_json(place)
    method = stated_if(config, "peft_type", TEXT, str(place))
    settings = {key: value for key, value in config.items() if value and key not in _HARMLESS}
    plain = all(value in _HARMLESS_IF.get(key, ()) for key, value in settings.items())
    if method not in _SWITCHABLE or not plain:
        return None
    saved = stated_if(config, "modules_to_save", TEXTS, str(place)) or []
    ahead = stated_if(config, "feedforward_modules", TEXTS, str(place)) or []
    with safe_open(Path(adapter) / WEIGHTS, framework="numpy") as file:
        own = all(
            _SWITCHABLE[method] in name or any(f".{module}." in name for module in saved)
            for name in file.keys()  # noqa: SIM118 - not a mapping
        )
    feedforward = [f"feedforward:{name}" for name in ahead]
    return " ".join([method, *sorted(saved), *sorted(feedforward)]) if own else None


def another_base(adapter: str, base: str) -> str | None:
    """The base that an adapter's config names, where it is called otherwise than the one that the
    adapter is put on; shapes alone do not tell two models of one architecture apart.

    Parameters
    ----------
    adapter, base : folders.
    """
    named = read_json(Path(adapter) / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        return None
    config = Path(base) / "config.json"
    said = read_json(config).get("_name_or_path") if config.is_file() else None
    # A snapshot of the hub lies in a folder models--ORGANIZATION--NAME.
    of_hub = [p.rpartition("--")[2] for p in Path(base).parts if p.startswith("models--")]
    called = {Path(base).name, Path(str(said)).name, *of_hub}
    return None if Path(named).name in called else named


def is_off_at_first(adapter: str) -> bool:
    """Whether an adapter changes nothing before tokens that invoke it (activated LoRA), so that a
    text without them is answered by the base alone."""
    return bool(read_json(Path(adapter) / ADAPTER_CONFIG).get("alora_invocation_tokens"))


class AdapterSwitch:
    """A base and what is put on it, of which one is active at a time.

    Parameters
    ----------
    base : a transformers model; PEFT puts its layers into it.
    adapters : folders, and None for the bare base. More than one kind of entry only where all
        folders are of one :func:`switchable_method`.

    Raises
    ------
    AdapterError
        Naming an adapter that does not fit the base.
    """

    def __init__(self, base: Any, adapters: Sequence[str | None]) -> None:
        self.model = base
        self._names: dict[str | None, str | None] = {}
        for number, adapter in enumerate(dict.fromkeys(adapters)):
            self._names[adapter] = None if adapter is None else f"adapter_{number}"
            if adapter is not None:
                self.model = _put_on(
                    self.model, adapter, f"adapter_{number}", is_first=self.model is base
                )
        self.model.eval()
        self.twins = Twins(self.model)

    def use(self, adapter: str | None) -> None:
        """Make one adapter active; None is the bare base."""
        if len(self._names) == 1:
            return
        name = self._names[adapter]
        for model in (self.model, *self.twins.made):
            if name is None:
                model.base_model.disable_adapter_layers()
            else:
                model.base_model.enable_adapter_layers()
                model.set_adapter(name, inference_mode=True)


def _put_on(model: Any, folder: str, name: str, *, is_first: bool) -> Any:
    require("peft", "adapters")
    from peft import PeftModel

    header = read_header(Path(folder) / WEIGHTS, folder)
    try:
        if is_first:
            rows = adapted_rows(model, {name: tensor.shape for name, tensor in header.items()})
            if rows is not None:
                resize(model, rows)
            model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        # Of the first this is the second time: from_pretrained does not say what it left out.
        check_found(model.load_adapter(folder, adapter_name=name), model, name)
    except Exception as error:  # whatever PEFT stumbles over, it is this adapter
        wrong = AdapterError(f"{folder}: this adapter does not fit its base: {error}")
        wrong.adapter = folder
        raise wrong from error
    return model


def check_found(found: Any, model: Any, name: str = "default") -> None:
    """Refuse an adapter that PEFT has put on its base less than whole.

    Parameters
    ----------
    found : what PEFT says of the loading.
    model : of PEFT; what several of its layers share is saved once, and found by one of its names.
    name : that the adapter has in it.

    Raises
    ------
    InputError
        Naming tensors that are missing or have no place.
    """
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    own = PEFT_TYPE_TO_PREFIX_MAPPING.get(model.peft_config[name].peft_type)
    missing = {key for key in found.missing_keys if own and own in key and name in key}
    if missing:
        there = dict(model.named_parameters(remove_duplicate=False))
        loaded = {id(there[key]) for key in there.keys() - missing}
        missing = {key for key in missing if key not in there or id(there[key]) not in loaded}
    refuse_missing(missing, "the adapter", ADAPTER_CONFIG)
    refuse_unused(
        (
            key
            for key in found.unexpected_keys
            if not key.startswith(_BESIDE_THE_MODEL) and not key.endswith(_AGAIN)
        ),
        "the adapter",
        ADAPTER_CONFIG,
    )


def adapted_rows(base: Any, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the embedding that an adapter brings; None where it leaves the base's as it is.

    Parameters
    ----------
    base : a model of transformers; it may be without numbers.
    shapes : of the adapter's tensors, by name.

    Raises
    ------
    InputError
        If the adapter enlarges the embedding or the head, and not the other.
    """
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    found: dict[str, int] = {}
    for name, module in base.named_modules():
        if not any(module is end for end in ends):
            continue
        for tensor in (f"{name}.weight", f"{name}.base_layer.weight"):
            shape = shapes.get(f"base_model.model.{tensor}")
            if shape is not None and shape[0] != ends[0].weight.shape[0]:
                found[name] = shape[0]
    if not found:
        return None
    is_tied = ends[1] is None or bool(base.config.get_text_config().tie_word_embeddings)
    if len({*found.values()}) > 1 or (len(found) == 1 and not is_tied):
        said = ", ".join(f"{name}: {rows:,}" for name, rows in found.items())
        raise InputError(
            f"it brings tokens for which it has not both an embedding and a row of the head ({said}"
            f"; the base has {ends[0].weight.shape[0]:,})"
        )
    return next(iter(found.values()))


def resize(base: Any, rows: int) -> None:
    """Make room for the embedding that an adapter brings; PEFT fills it."""
    base.resize_token_embeddings(rows, mean_resizing=False)
