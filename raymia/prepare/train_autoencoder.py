"""Training an autoencoder on images: targets of demos and studies, references, shadows."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.draws import generator
from raymia.errors import InputError
from raymia.files import Folder
from raymia.hashing import digest, digest_bytes
from raymia.models.image_source import OWN_AUTOENCODER, read_json
from raymia.models.kl_autoencoder import build_kl_autoencoder
from raymia.models.vae import (
    AutoencoderConfig,
    AutoencoderNetwork,
    build_autoencoder,
    read_config,
)
from raymia.prepare.autoencoder_training import Training
from raymia.prepare.fine_tune import HELD_OUT_SHARE, MAX_MEASURED, Progress
from raymia.prepare.training_state import STATE_FILE, Progressed, load_state, save_state
from raymia.spec.images import AutoencoderTrainingSpec

VERSION = 1
CHECKPOINT = "checkpoint-"
FACTS_FILE = "facts.json"

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
        images, network, what, settings, out, seed, progress, measure_on, checkpoint_every
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
) -> dict[str, Any]:
    _check(images, measure_on, network.image_shape, checkpoint_every)
    train, held_out = _split(images, measure_on, seed)
    run = digest(
        {
            "version": VERSION,
            "train": digest_bytes(np.ascontiguousarray(train).tobytes()),
            "held_out": digest_bytes(np.ascontiguousarray(held_out).tobytes()),
            "config": config,
            "settings": settings.model_dump(),
            "seed": seed,
            "checkpoint_every": checkpoint_every,
        }
    )
    epochs = settings.epochs
    finished = _finished(out, run)
    if finished is not None:
        progress(epochs, epochs)
        return finished
    training = Training(train, network, settings, seed)
    saved = load_state(out, run, network, training.optimizer, None)
    training.epoch = saved.step // training.steps_per_epoch
    started = time.monotonic()
    checkpoints: list[dict[str, Any]] = []

    def seconds() -> float:
        return round(saved.seconds + time.monotonic() - started, 1)

    def save(folder: Path) -> None:
        training.finish()
        facts = {
            "images": len(train),
            "held_out_images": len(held_out),
            "epoch": training.epoch,
            "steps": training.epoch * training.steps_per_epoch,
            "parameters": sum(p.numel() for p in network.parameters()),
            "train_loss": training.loss_on(train[:MAX_MEASURED]),
            "held_out_loss": training.loss_on(held_out[:MAX_MEASURED]),
            "seconds": seconds(),
            "run": run,
        }
        network.save(folder)
        _write_facts(folder, facts)
        network.train()

    progress(training.epoch, epochs)
    while training.epoch < epochs:
        training.run_epoch()
        epoch = training.epoch
        is_checkpoint = checkpoint_every is not None and epoch % checkpoint_every == 0
        if checkpoint_every is not None and (is_checkpoint or epoch == epochs):
            save(out / f"{CHECKPOINT}{epoch}")
        if epoch < epochs and (is_checkpoint or epoch % STATE_EVERY == 0):
            now = Progressed(epoch * training.steps_per_epoch, seconds())
            save_state(out, run, now, network, training.optimizer, None)
        progress(epoch, epochs)
    if checkpoint_every is None:
        save(out)
    else:
        checkpoints = _facts_of_checkpoints(out)
        kept = {**checkpoints[-1], "checkpoints": checkpoints}
        kept.pop("folder")
        _write_facts(out, kept)
    (out / STATE_FILE).unlink(missing_ok=True)
    return _read_facts(out)


def _write_facts(folder: Path, facts: dict[str, Any]) -> None:
    Folder(str(folder)).write(FACTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())


def _read_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    return facts


def _facts_of_checkpoints(out: Path) -> list[dict[str, Any]]:
    """In order of their epochs."""
    folders = sorted(out.glob(f"{CHECKPOINT}*"), key=lambda p: int(p.name.removeprefix(CHECKPOINT)))
    return [{"folder": folder.name, **_read_facts(folder)} for folder in folders]


def _finished(out: Path, run: str) -> dict[str, Any] | None:
    """The facts of this training where it is done; None where it is not.

    Raises
    ------
    InputError
        If the folder, or a checkpoint in it, is of another training.
    """
    for folder in (out, *out.glob(f"{CHECKPOINT}*")):
        if (folder / FACTS_FILE).is_file() and _read_facts(folder).get("run") != run:
            raise InputError(
                f"{folder} is of a training with other images, settings, seed or config; remove "
                "it, or train in another folder"
            )
    return _read_facts(out) if (out / FACTS_FILE).is_file() else None


def _check(
    images: Images,
    measure_on: Images | None,
    shape: Sequence[int],
    checkpoint_every: int | None,
) -> None:
    problems = []
    for what, given, least in (
        ("images", images, 2 if measure_on is not None else 3),
        ("held-out images", measure_on, 1),
    ):
        if given is None:
            continue
        if given.dtype != np.uint8 or given.shape[1:] != tuple(shape):
            problems.append(
                f"{what}: expected uint8 [count, {', '.join(map(str, shape))}], which the config "
                f"says, but got {given.dtype} {list(given.shape)}"
            )
        elif len(given) < least:
            problems.append(f"{what}: expected at least {least}, but got {len(given)}")
    if checkpoint_every is not None and checkpoint_every < 1:
        problems.append(f"checkpoints should be an epoch or more apart, but got {checkpoint_every}")
    if problems:
        raise InputError(problems)


def _split(images: Images, measure_on: Images | None, seed: int) -> tuple[Images, Images]:
    if measure_on is not None:
        return images, measure_on
    order = generator(seed, "held out").permutation(len(images))
    count = max(1, int(HELD_OUT_SHARE * len(images)))
    return images[np.sort(order[count:])], images[np.sort(order[:count])]
