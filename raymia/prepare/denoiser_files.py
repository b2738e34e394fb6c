"""Diffusers pipelines that are trained: made anew, loaded with their network open, saved whole."""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.captions import Condition
from raymia.models.denoisers.model import (
    DTYPES,
    Denoiser,
    ask_network,
    load_denoiser,
    load_part,
)
from raymia.models.denoisers.parts import network_folder
from raymia.models.denoisers.query import Told
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.denoisers.schedules import FLOW, PREDICTIONS
from raymia.models.image_source import HASHED, resolve_image_model
from raymia.models.source import read_json
from raymia.prepare.denoiser_lora import LoraSettings, put_lora_on
from raymia.prepare.training_files import write_facts
from raymia.spec import ModelSpec
from raymia.spec.images import Shape
from raymia.storage.moves import TEMPORARY_PREFIX
from raymia.util.draws import stream_key
from raymia.util.errors import InputError
from raymia.util.optional import require

SCHEDULERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "pndm": "PNDMScheduler"}
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
LARGEST_GROUPS = 32
HEAD_CHANNELS = 8
INDEX = "model_index.json"

Tensor = torch.Tensor


@dataclass(frozen=True)
class TrainableDenoiser:
    """A pipeline whose network can be trained.

    Attributes
    ----------
    network : diffusers' module, on the device of ``denoiser``.
    trained : the parameters of it that are trained, in float32.
    dtype : of the network's other weights.
    denoiser : the pipeline as it was found, for its path to noise, its autoencoder and its text
        encoder; its own network is not kept.
    checkpoint : the pipeline.
    """

    network: Any
    trained: torch.nn.Module
    dtype: torch.dtype
    denoiser: Denoiser
    checkpoint: DenoiserCheckpoint

    def __call__(
        self, noisy: Tensor, timesteps: Tensor, captions: Sequence[str] | None = None
    ) -> Tensor:
        """What the network predicts of x_t, in float32.

        Parameters
        ----------
        captions : of each image, for a network that takes them; None is the empty caption.
        """
        given: Condition = {}
        if self.denoiser.embed is not None:
            with torch.no_grad():
                given = self.denoiser.embed([""] * len(noisy) if captions is None else captions)
            given = {
                name: value.to(self.dtype) if value.is_floating_point() else value
                for name, value in given.items()
            }
        output = ask_network(
            self.network, self.checkpoint, noisy.to(self.dtype), timesteps, given
        ).float()
        return output[:, : noisy.shape[1]]


def fresh_pipeline(
    out: Path,
    image_shape: Shape,
    *,
    channels: Sequence[int] = (32, 64),
    layers: int = 1,
    scheduler: Literal["ddpm", "ddim", "pndm"] = "ddpm",
    prediction_type: Prediction = "epsilon",
    train_timesteps: int = 1_000,
    attention: bool = True,
    seed: int = 0,
) -> None:
    """Save an untrained pipeline: a UNet2DModel and a scheduler.

    DDPM, DDIM and PNDM have the same network and training; what differs is the sampler that the
    folder names. A flow has the same network and the scheduler of flow matching, which diffusers
    has no pipeline for in pixels.

    Parameters
    ----------
    image_shape : channels, height and width; the sides are divisible by two to the number of
        resolutions less one.
    channels : of each resolution, the highest first.
    layers : residual blocks per resolution.
    attention : whether the lowest resolution attends to itself.

    Raises
    ------
    InputError
        For a size the network cannot have, or a scheduler or prediction there is none of.
    """
    require("diffusers", "diffusion models")
    import diffusers

    _check_network(image_shape, channels, attention)
    for name, value, known in (
        ("scheduler", scheduler, tuple(SCHEDULERS)),
        ("prediction_type", prediction_type, (*PREDICTIONS, FLOW)),
    ):
        if value not in known:
            raise InputError(f"{name} should be one of {', '.join(known)}, but got {value!r}")
    if prediction_type == FLOW and scheduler != "ddpm":
        raise InputError(f"scheduler: {scheduler} goes the path of a DDPM, and not that of a flow")
    plain = len(channels) - 1
    down = ("DownBlock2D",) * plain + ("AttnDownBlock2D" if attention else "DownBlock2D",)
    up = ("AttnUpBlock2D" if attention else "UpBlock2D", *("UpBlock2D",) * plain)
    with torch.random.fork_rng():
        torch.manual_seed(stream_key(seed, "fresh network"))
        network = diffusers.UNet2DModel(
            sample_size=image_shape[1:],
            in_channels=image_shape[0],
            out_channels=image_shape[0],
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=down,
            up_block_types=up,
            norm_num_groups=math.gcd(LARGEST_GROUPS, *channels),
            attention_head_dim=HEAD_CHANNELS,
            add_attention=attention,
        )
    if prediction_type == FLOW:
        made = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=train_timesteps)
    else:
        kind = getattr(diffusers, SCHEDULERS[scheduler])
        made = kind(num_train_timesteps=train_timesteps, prediction_type=prediction_type)
    diffusers.DDPMPipeline(network, made).save_pretrained(out)
    if scheduler != "ddpm":  # the pipelines differ in name and sampler only
        index = json.loads((out / INDEX).read_text(encoding="utf-8"))
        index["_class_name"] = f"{scheduler.upper()}Pipeline"
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _check_network(shape: Shape, channels: Sequence[int], attention: bool) -> None:
    problems = []
    if not channels or any(c < 1 for c in channels):
        problems.append(f"channels should be one positive number or more, but got {channels}")
    elif attention and channels[-1] % HEAD_CHANNELS:
        problems.append(
            f"the last of channels should be a multiple of {HEAD_CHANNELS} for attention, but got "
            f"{channels[-1]}; change it or leave out attention"
        )
    halvings = 2 ** (len(channels) - 1)
    if shape[1] % halvings or shape[2] % halvings:
        problems.append(
            f"images of {shape[1]} x {shape[2]} pixels cannot be halved {len(channels) - 1} times; "
            "give fewer channels, or another size"
        )
    if problems:
        raise InputError(problems)


def resolve_trainable(
    pipeline: Path,
    *,
    is_frozen: bool = False,
    size: tuple[int, int] | None = None,
    told: Told | None = None,
) -> DenoiserCheckpoint:
    """The pipeline in a folder, if its network can be trained.

    Parameters
    ----------
    is_frozen : whether an adapter is trained on it; a GPU then holds it in bfloat16.
    size : height and width of the images that it is trained on; None is what it is made for.
    told : what else its network is told; None is what its pipeline tells it.

    Raises
    ------
    InputError
        If the folder is no diffusers pipeline that raymia reads.
    """
    require("diffusers", "diffusion models")
    where = str(pipeline)
    checkpoint = resolve_image_model(
        ModelSpec(model=where, dtype="auto" if is_frozen else "float32"),
        where,
        on_gpu=torch.cuda.is_available(),
    )
    if not isinstance(checkpoint, DenoiserCheckpoint):
        raise InputError(f"{where}: a diffusers pipeline is trained here, not an autoencoder")
    if problems := checkpoint.capabilities.why_not({"generation"}):
        raise InputError(f"{where}: {problem}" for problem in problems)
    return as_trained(checkpoint, None, size or checkpoint.query.size, told)


def load_trainable(
    pipeline: Path,
    *,
    from_weights: bool,
    seed: int,
    lora: LoraSettings | None = None,
    size: tuple[int, int] | None = None,
    told: Told | None = None,
) -> TrainableDenoiser:
    """Load a pipeline with its network ready to be trained.

    Parameters
    ----------
    from_weights : whether training goes on from the pipeline's weights; otherwise the network is
        made anew from its config, by the seed.
    lora : that is trained on the pipeline's weights, in place of the network.
    size, told : as for :func:`resolve_trainable`.

    Raises
    ------
    InputError
        As :func:`resolve_trainable`.
    """
    checkpoint = resolve_trainable(pipeline, is_frozen=lora is not None, size=size, told=told)
    import diffusers

    dtype = torch.float32
    denoiser = load_denoiser(checkpoint, batch_images=1)
    if lora is not None:
        dtype = DTYPES[checkpoint.dtype]
        network = load_part(pipeline, checkpoint.network, dtype)
        trained = put_lora_on(network, lora, stream_key(seed, "fresh adapter"))
    elif from_weights:
        trained = network = load_part(pipeline, checkpoint.network, dtype)
    else:
        kind = getattr(diffusers, checkpoint.network.kind)
        with torch.random.fork_rng():
            torch.manual_seed(stream_key(seed, "fresh network"))
            network = kind.from_config(kind.load_config(pipeline / checkpoint.network.folder))
        trained = network
    denoiser.network = _no_network  # its memory is the new network's
    network.to(denoiser.device)
    return TrainableDenoiser(network, trained, dtype, denoiser, checkpoint)


def _no_network(*_: Any) -> Tensor:
    raise RuntimeError("the pipeline's own network is not kept while another is trained")


def save_trained(pipeline: Path, network: Any, facts: dict[str, Any], out: Path) -> None:
    """Save a pipeline with another network; whole, or not to be taken for a pipeline.

    All else is copied unchanged. ``facts.json`` is written with it, and ``model_index.json`` last.
    """
    index = read_json(pipeline / INDEX, str(pipeline))
    name = network_folder(pipeline)
    out.mkdir(parents=True, exist_ok=True)
    staged = out / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    for part in sorted(key for key in index if (pipeline / key).is_dir() and key != name):
        shutil.copytree(pipeline / part, staged / part, ignore=_left_out)
    network.save_pretrained(staged / name)
    shutil.copy2(pipeline / INDEX, staged / INDEX)
    write_facts(staged, facts)
    names = [p.name for p in staged.iterdir() if p.name != INDEX]
    for part in (*sorted(names), INDEX):
        if (out / part).is_dir():
            shutil.rmtree(out / part)
        (staged / part).rename(out / part)
    staged.rmdir()


def _left_out(folder: str, names: list[str]) -> list[str]:
    """Files that no part of a pipeline is read from, such as pickles."""
    return [n for n in names if (Path(folder) / n).is_file() and Path(n).suffix not in HASHED]
