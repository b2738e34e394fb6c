"""Where a training stands, in one safetensors file: killed at any moment, it goes on from there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from raymia.storage.files import Folder
from raymia.util.errors import InputError

STATE_FILE = "training.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Progressed:
    """What a training has been through.

    Attributes
    ----------
    step : optimizer steps taken.
    seconds : spent on them.
    """

    step: int
    seconds: float


def save_state(
    out: Path,
    run: str,
    progressed: Progressed,
    network: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    mean: Weights | None,
) -> None:
    """Write the network's weights, the optimizer's moments and the running mean, all or nothing.

    Parameters
    ----------
    run : hash of all that the training is a function of.
    mean : of the weights, where one is kept.
    """
    tensors = {f"network/{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for moment in _MOMENTS:
            if parameter in optimizer.state:
                tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    tensors |= {f"mean/{name}": value for name, value in (mean or {}).items()}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    facts = {"run": run, "step": progressed.step, "seconds": progressed.seconds}
    content = safetensors.torch.save(whole, metadata={"training": json.dumps(facts)})
    Folder(str(out)).write(STATE_FILE, content)


def load_state(
    out: Path,
    run: str,
    network: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    mean: Weights | None,
) -> Progressed:
    """Put everything back where :func:`save_state` left it; where it left nothing, change nothing.

    Raises
    ------
    InputError
        If the file is damaged, or of another training.
    """
    file = out / STATE_FILE
    if not file.is_file():
        return Progressed(0, 0.0)
    try:
        with safe_open(file, framework="pt") as opened:
            facts = json.loads(opened.metadata()["training"])
        stored = safetensors.torch.load_file(file)
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); remove it to start anew") from None
    if facts["run"] != run:
        raise InputError(
            f"{file} is of a training with other images, settings, seed or network; remove it to "
            "start anew, or train in another folder"
        )
    network.load_state_dict(
        {name: stored[f"network/{name}"] for name in network.state_dict()}, strict=True
    )
    for name, parameter in network.named_parameters():
        if f"exp_avg/{name}" in stored:
            moments = {m: stored[f"{m}/{name}"].to(parameter.device) for m in _MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(facts["step"])), **moments}
    for name, value in (mean or {}).items():
        value.copy_(stored[f"mean/{name}"])
    return Progressed(int(facts["step"]), float(facts["seconds"]))
