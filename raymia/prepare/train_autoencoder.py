"""Training an autoencoder on images: targets of demos and studies, references, shadows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.autoencoders.kl import build_kl_autoencoder
from raymia.models.autoencoders.resolver import OWN_AUTOENCODER
from raymia.models.autoencoders.vae import (
    AutoencoderConfig,
    AutoencoderNetwork,
    build_autoencoder,
    read_config,
)
from raymia.models.source import read_json
from raymia.prepare.autoencoder_training import Training, steps_per_epoch
from raymia.prepare.private_images import plan_images
from raymia.prepare.trainer import Progress
from raymia.prepare.training_files import (
    FACTS_FILE,
    finished,
    problems_of,
    set_apart,
    write_facts,
)
from raymia.prepare.training_loop import run_of, run_training
from raymia.spec.images import AutoencoderTrainingSpec
from raymia.spec.target_training import DpSpec
from raymia.util.errors import InputError

VERSION = 1
MIN_IMAGES = 2
"""A batch of a single image has no statistics."""

STATE_EVERY = 10
"""Epochs after which a killed training need not be taken again."""

Images = npt.NDArray[np.uint8]


def train_autoencoder(
    images: Images,
    config: AutoencoderConfig,
    settings: AutoencoderTrainingSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Images | None = None,
    checkpoint_every: int | None = None,
    dp: DpSpec | None = None,
) -> dict[str, Any]:
    """Train one of raymia's own autoencoders on images and save it.

    Order and noise are functions of (seed, epoch), and where the training stands is kept in
    ``out/training.safetensors`` until it is finished: after a kill, the same call goes on, and
    ends, on a CPU, with the weights that it would have ended with. A call that is repeated when all
    is done does nothing.

    Parameters
    ----------
    images : uint8 [count, channels, height, width], of the config's shape.
    out : folder that the autoencoder is saved in.
    progress : told the epochs that are done, and how many there are.
    measure_on : held-out images for the held-out loss; default: 5 % of the images, which are then
        not trained on.
    checkpoint_every : epochs; the autoencoder is then saved every so many and after the last, in
        ``out/checkpoint-EPOCH`` each, and not in ``out`` itself.
    dp : of a private training, each step of which takes a Poisson sample of the images.

    Returns
    -------
    The facts of the training, also in ``out/facts.json``: images, epoch, steps, seconds,
    parameters, the losses, and with ``checkpoint_every`` the checkpoints with theirs. Losses are
    means in nats per image, on at most 256 images each, with the same latent draws.

    Raises
    ------
    InputError
        If images and config do not fit, or ``out`` holds another training.
    RaymiaError
        If the loss is no longer finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_autoencoder(config)
    what = config.to_json()
    return _train(
        images, network, what, settings, out, seed, progress, measure_on, checkpoint_every, dp
    )


def train_like(
    folder: Path,
    images: Images,
    settings: AutoencoderTrainingSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Images | None = None,
) -> dict[str, Any]:
    """Train a fresh autoencoder with the config of another, on other images.

    Parameters
    ----------
    folder : the other: one of raymia's own, or an AutoencoderKL. Its weights are not read.
    images, settings, out, seed, progress, measure_on : as for :func:`train_autoencoder`, whose
        facts and errors this has.
    """
    content = read_json(folder / "config.json", str(folder))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: AutoencoderNetwork = (
            build_autoencoder(read_config(folder))
            if content.get("_class_name") == OWN_AUTOENCODER
            else build_kl_autoencoder(folder)
        )
    what = json.dumps(content, sort_keys=True)
    return _train(images, network, what, settings, out, seed, progress, measure_on, None)


def _train(
    images: Images,
    network: AutoencoderNetwork,
    config: str,
    settings: AutoencoderTrainingSpec,
    out: Path,
    seed: int,
    progress: Progress,
    measure_on: Images | None,
    checkpoint_every: int | None,
    dp: DpSpec | None = None,
) -> dict[str, Any]:
    problems = problems_of(images, measure_on, network.image_shape, MIN_IMAGES, checkpoint_every)
    if dp is not None and network.not_private is not None:
        problems.append(f"dp: {network.not_private}; take the objective vae or beta_vae")
    if problems:
        raise InputError(problems)
    train, held_out = set_apart(images, measure_on, seed)
    parts = {
        "version": VERSION,
        "config": config,
        "settings": settings.model_dump(),
        "seed": seed,
        "checkpoint_every": checkpoint_every,
        **({} if dp is None else {"dp": dp.model_dump()}),
    }
    run = run_of(train, held_out, parts)
    done = finished(out, run, last=FACTS_FILE)
    if done is not None:
        progress(settings.epochs, settings.epochs)
        return done

    steps = settings.epochs * steps_per_epoch(len(train), settings)
    privacy = plan_images(dp, len(train), settings.batch_size, steps)

    def write(folder: Path, facts: dict[str, Any]) -> None:
        network.save(folder)
        write_facts(folder, facts)

    return run_training(
        Training(train, network, settings, seed, privacy),
        train,
        held_out,
        out,
        run,
        write=write,
        state_every=STATE_EVERY,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
