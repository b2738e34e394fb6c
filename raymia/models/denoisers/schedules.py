"""The noise schedules of pipelines, and what networks predict by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymia.models.image_source import SCHEDULER
from raymia.models.source import read_json
from raymia.util.errors import InputError, first_line
from raymia.util.stated import shown

if TYPE_CHECKING:
    from torch import Tensor

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What the networks of DDPM's family can be trained to predict."""
MOST_TIMESTEPS = 1_000_000
"""A thousand times as many as models are trained with; more would only fill the memory."""
CONSISTENCY, EDM, VE = "a consistency model", "an EDM", "a VE diffusion"
OTHERS = {
    **dict.fromkeys(
        (
            "CMStochasticIterativeScheduler",
            "FlowMatchLCMScheduler",
            "LCMScheduler",
            "SCMScheduler",
            "TCDScheduler",
        ),
        CONSISTENCY,
    ),
    **dict.fromkeys(("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"), EDM),
    **dict.fromkeys(("KarrasVeScheduler", "ScoreSdeVeScheduler"), VE),
}
"""Of which kind a model is whose network predicts neither noise on a DDPM's path nor a velocity, by
its scheduler."""
FLOW = "flow"
"""What those of flow matching predict: the velocity from an image to noise."""


def read_scheduler(folder: Path, where: str) -> Any:
    """The noise schedule that a folder describes, with its ``alphas_cumprod``.

    Raises
    ------
    InputError
        For a class that diffusers does not have, or a schedule of another family than DDPM's.
    """
    import diffusers

    config = read_json(folder / SCHEDULER, where)
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None)
    # Where it is continuous, the network is told a quarter of the logarithm of an EDM's sigma.
    other = OTHERS.get(name) or (EDM if config.get("timestep_type") == "continuous" else None)
    if other is not None:
        raise InputError(
            f"{where}: {folder} has the scheduler of {other}, {name}, and raymia scores models of "
            "the DDPM family and of flow matching. If the network is one of those, and the "
            "scheduler came with an adapter for fewer steps, copy the base's own"
        )
    if kind is None:
        raise InputError(f"{where}: {folder / SCHEDULER}: no class {name!r} in diffusers")
    count = config.get("num_train_timesteps", 1)  # or its class's own number
    if not isinstance(count, int) or not 1 <= count <= MOST_TIMESTEPS:
        raise InputError(
            f"{where}: {folder / SCHEDULER}: num_train_timesteps should be a whole number of at "
            f"least 1 and at most {MOST_TIMESTEPS:,}, but got {shown(count)}"
        )
    try:
        scheduler = kind.from_config(config)
    except Exception as error:  # of any kind, by what the config says
        raise InputError(
            f"{where}: {folder / SCHEDULER}: diffusers cannot make a {name} of it "
            f"({type(error).__name__}: {first_line(error)}); copy the pipeline's own"
        ) from error
    if is_flow(scheduler):
        return scheduler
    if not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(
            f"{where}: {folder} has a {name}, whose schedule has no alphas_cumprod; raymia scores "
            "models of the DDPM family and of flow matching"
        )
    count = int(scheduler.config.num_train_timesteps)
    if not _is_a_schedule(scheduler.alphas_cumprod, count):
        raise InputError(
            f"{where}: {folder / SCHEDULER}: its betas make no schedule of {count:,} timesteps, in "
            "which alphas_cumprod falls from at most 1 to at least 0; copy the pipeline's own"
        )
    prediction = prediction_of(scheduler)
    if prediction not in PREDICTIONS:
        raise InputError(
            f"{where}: {folder / SCHEDULER}: prediction_type should be one of "
            f"{', '.join(PREDICTIONS)}, but got {prediction!r}"
        )
    return scheduler


def _is_a_schedule(kept: Any, count: int) -> bool:
    """Whether alphas_cumprod is a share of the image that is left at each timestep."""
    if tuple(kept.shape) != (count,):
        return False
    within = bool(((kept >= 0) & (kept <= 1)).all())  # no number is neither
    return within and bool((kept[1:] <= kept[:-1]).all())


def ends_in_noise(scheduler: Any) -> bool:
    """Whether a file says that its schedule is rescaled to end in noise alone."""
    return bool(getattr(scheduler.config, "rescale_betas_zero_snr", False))


def kept_by(scheduler: Any, zero_terminal_snr: bool | None) -> Tensor:
    """abar, float64 [timesteps], of a schedule of DDPM's family.

    Parameters
    ----------
    zero_terminal_snr : whether it is rescaled to end in noise alone (Lin et al., 2024, algorithm
        1); None is as its file says.
    """
    import torch

    is_rescaled = ends_in_noise(scheduler)
    if zero_terminal_snr is False and is_rescaled:
        plain = {**scheduler.config, "rescale_betas_zero_snr": False}
        scheduler = type(scheduler).from_config(plain)
    kept: Tensor = scheduler.alphas_cumprod.to(torch.float64)
    if zero_terminal_snr and not is_rescaled:
        signal = kept.sqrt()
        kept = ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])) ** 2
    return kept


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler goes the straight path of flow matching."""
    is_named = type(scheduler).__name__.startswith("FlowMatch")
    return is_named or getattr(scheduler.config, "prediction_type", None) == "flow_prediction"


def prediction_of(scheduler: Any) -> str:
    """What the network of a scheduler predicts."""
    return FLOW if is_flow(scheduler) else getattr(scheduler.config, "prediction_type", "epsilon")
