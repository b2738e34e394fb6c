"""Low-rank adapters on a pipeline that is in memory once, of which some are active at a time."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import safe_open

from raymia.models.denoisers.lora_fit import Placed
from raymia.models.denoisers.put_on import PutOn
from raymia.models.lanes import Twins
from raymia.models.one_base import AdapterError
from raymia.util.caller import silenced
from raymia.util.optional import require

Tensor = torch.Tensor


class LoraSwitch:
    """Adapters on one pipeline.

    Parameters
    ----------
    parts : modules of the pipeline by the names of :class:`LowRank`; PEFT puts its layers into
        them.
    twins : of one of them.
    """

    def __init__(self, parts: Mapping[str, Any], twins: Twins) -> None:
        self._parts = parts
        self._twins = twins
        self._names: dict[str, str] = {}

    def put_on(self, file: str, placed: Sequence[Placed]) -> None:
        """Add an adapter, once.

        Raises
        ------
        AdapterError
            If PEFT cannot put it there.
        """
        if file in self._names:
            return
        require("peft", "adapters")
        name = self._names[file] = f"adapter_{len(self._names)}"
        by_part = defaultdict(list)
        for one in placed:
            by_part[one.weights.part].append(one)
        try:
            with safe_open(file, framework="pt") as content, torch.random.fork_rng(devices=[]):
                for part, changes in by_part.items():
                    _inject(self._parts[part], name, changes)
                    _fill(self._parts[part], name, changes, content)
        except Exception as error:  # whatever PEFT stumbles over, it is this adapter
            wrong = AdapterError(f"{file}: this adapter cannot be put on its base: {error}")
            wrong.adapter = file
            raise wrong from error

    def use(self, adapters: Sequence[PutOn]) -> None:
        """Make adapters that were put on active together, each by its weight; none is the bare
        base."""
        if not self._names:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        names = [self._names[one.file] for one in adapters]
        for part in (*self._parts.values(), *self._twins.made):
            for layer in part.modules():
                if isinstance(layer, BaseTunerLayer):
                    for one, name in zip(adapters, names, strict=True):
                        layer.set_scale(name, one.weight)
                    layer.set_adapter(names, inference_mode=True)


def _inject(model: Any, name: str, changes: Sequence[Placed]) -> None:
    """Have PEFT put empty layers where an adapter changes the model."""
    with silenced("bitsandbytes"):  # which PEFT imports
        from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(**peft_settings(changes), inference_mode=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of another adapter
        inject_adapter_in_model(config, model, name)


def peft_settings(changes: Sequence[Placed]) -> dict[str, Any]:
    """Keys of PEFT's config under which it puts layers where an adapter has some, and of their
    shapes; JSON-serializable."""
    rank, scale = (
        Counter(values).most_common(1)[0][0]
        for values in zip(*((c.weights.rank, c.weights.scale) for c in changes), strict=True)
    )
    ranks = {_exactly(c): c.weights.rank for c in changes if c.weights.rank != rank}
    alphas = {
        _exactly(c): c.weights.scale * c.weights.rank
        for c in changes
        if (c.weights.rank, c.weights.scale) != (rank, scale)
    }
    return {
        "r": rank,
        "lora_alpha": scale * rank,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": "|".join(re.escape(c.path) for c in changes),
        "use_dora": "magnitude" in changes[0].weights.tensors,
        "lora_bias": any("bias" in c.weights.tensors for c in changes),
    }


def _exactly(change: Placed) -> str:
    """A pattern of PEFT's that one module alone has."""
    return f"^{re.escape(change.path)}"


@torch.no_grad()
def _fill(model: Any, name: str, changes: Sequence[Placed], content: Any) -> None:
    """Give PEFT's layers an adapter's numbers."""
    for change in changes:
        layer, tensors = model.get_submodule(change.path), change.weights.tensors
        places = {
            "down": layer.lora_A[name].weight,
            "up": layer.lora_B[name].weight,
            "bias": getattr(layer.lora_B[name], "bias", None),
        }
        if "magnitude" in tensors:
            places["magnitude"] = layer.lora_magnitude_vector[name].weight
        for role, place in places.items():
            if role in tensors:
                rows = () if role == "down" else change.rows
                values = _rows_of(content.get_tensor(tensors[role]), rows)
                place.copy_(values.reshape(place.shape))
            elif place is not None:
                place.zero_()
    model.eval()


def _rows_of(values: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    return torch.cat([values[first:last] for first, last in rows]) if rows else values
