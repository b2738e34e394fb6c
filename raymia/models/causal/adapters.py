"""PEFT adapters: which can share one base in memory, how they are put on it and switched."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from raymia.models.whole_weights import refuse_missing
from raymia.util.errors import InputError
from raymia.util.optional import require

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_SWITCHABLE = {"LORA": "lora_", "IA3": "ia3_"}
"""Methods that leave the base's own weights alone, and what the names of their tensors have."""

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
    config = json.loads((Path(adapter) / CONFIG).read_text(encoding="utf-8"))
    method = config.get("peft_type")
    settings = {key: value for key, value in config.items() if value and key not in _HARMLESS}
    plain = all(value in _HARMLESS_IF.get(key, ()) for key, value in settings.items())
    if method not in _SWITCHABLE or not plain:
        return None
    saved = config.get("modules_to_save") or []
    with safe_open(Path(adapter) / WEIGHTS, framework="numpy") as file:
        own = all(
            _SWITCHABLE[method] in name or any(f".{module}." in name for module in saved)
            for name in file.keys()  # noqa: SIM118 - not a mapping
        )
    feedforward = [f"feedforward:{name}" for name in config.get("feedforward_modules") or []]
    return " ".join([method, *sorted(saved), *sorted(feedforward)]) if own else None


class AdapterError(InputError):
    """An adapter that cannot be put on its base; ``folder`` is that of the adapter."""

    folder = ""


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

    def use(self, adapter: str | None) -> None:
        """Make one adapter active; None is the bare base."""
        if len(self._names) == 1:
            return
        name = self._names[adapter]
        if name is None:
            self.model.base_model.disable_adapter_layers()
        else:
            self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(name, inference_mode=True)


def _put_on(model: Any, folder: str, name: str, *, is_first: bool) -> Any:
    require("peft", "adapters")
    from peft import PeftModel

    try:
        if is_first:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", ".*missing adapter keys")
                return PeftModel.from_pretrained(model, folder, adapter_name=name)
        found = model.load_adapter(folder, adapter_name=name)
        refuse_missing(found.missing_keys, folder, CONFIG)
    except Exception as error:  # whatever PEFT stumbles over, it is this adapter
        wrong = AdapterError(f"{folder}: this adapter does not fit its base: {error}")
        wrong.folder = folder
        raise wrong from error
    return model
