"""Training a diffusion model on images: targets of demos and studies, references, shadows."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.draws import generator
from raymia.errors import InputError
from raymia.files import Folder
from raymia.hashing import digest, digest_bytes
from raymia.models.image_source import Shape, resolve_image_model
from raymia.prepare.denoiser_files import FACTS_FILE, INDEX, load_trainable, save_trained
from raymia.prepare.denoiser_training import Training
from raymia.prepare.fine_tune import HELD_OUT_SHARE, MAX_MEASURED, Progress
from raymia.prepare.training_state import STATE_FILE, Progressed, load_state, save_state
from raymia.spec import ModelSpec
from raymia.spec.images import DiffusionTrainingSpec

VERSION = 1
CHECKPOINT = "checkpoint-"

STATE_EVERY = 500
"""Steps after which a killed training need not be taken again."""

Images = npt.NDArray[np.uint8]


def train_denoiser(
    images: Images,
    pipeline: Path,
    settings: DiffusionTrainingSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Images | None = None,
    from_weights: bool = False,
    checkpoint_every: int | None = None,
) -> dict[str, Any]:
    """Train the network of a diffusers pipeline on images and save the pipeline with it.

    The network learns what the scheduler says it predicts (Ho et al., 2020, eq. 14, for the
    noise), at timesteps drawn uniformly. AdamW, gradients cut to a norm of 1, the learning rate
    rising linearly and falling to zero along a cosine. Images are gone through in a new order
    each epoch. Latent pipelines are trained on their autoencoder's latents; those with text or
    classes without either. Weights are in float32.

    Order, noise and augmentation are functions of (seed, step), and where the training stands is
    kept in ``out/training.safetensors`` until it is finished: after a kill, the same call goes on,
    and ends with the weights that it would have ended with. A call that is repeated when all is
    done does nothing.

    Parameters
    ----------
    images : uint8 [N, C, H, W].
    pipeline : folder of the pipeline, as :func:`fresh_pipeline` writes one.
    out : folder that the trained pipeline is saved in.
    measure_on : held-out images for the held-out loss; default: 5 % of the images, which are then
        not trained on.
    from_weights : train the pipeline's weights further, rather than a fresh network.
    checkpoint_every : steps; the pipeline is then saved every so many and after the last, in
        ``out/checkpoint-STEP`` each, and not in ``out`` itself.

    Returns
    -------
    The facts of the training, also in ``out/facts.json``: images, steps, seconds, parameters, the
    losses, and with ``checkpoint_every`` the checkpoints with theirs. Losses are means of the
    squared error per element on at most 256 images each, at the same timesteps and noise.

    Raises
    ------
    InputError
        If images and pipeline do not fit, ``out`` holds another training, or the loss diverges.
    """
    where = str(pipeline)
    checkpoint = resolve_image_model(
        ModelSpec(model=where, dtype="float32"), where, on_gpu=torch.cuda.is_available()
    )
    _check(images, measure_on, checkpoint.shape, settings)
    train, held_out = _split(images, measure_on, seed)
    run = digest(
        {
            "version": VERSION,
            "train": digest_bytes(np.ascontiguousarray(train).tobytes()),
            "held_out": digest_bytes(np.ascontiguousarray(held_out).tobytes()),
            "pipeline": checkpoint.fingerprint,
            "settings": settings.model_dump(),
            "seed": seed,
            "from_weights": from_weights,
        }
    )
    finished = _finished(out, run)
    if finished is not None:
        progress(settings.steps, settings.steps)
        return finished
    with torch.random.fork_rng():
        model = load_trainable(pipeline, from_weights=from_weights, seed=seed)
        training = Training(train, model, settings, seed)
        saved = load_state(out, run, model.network, training.optimizer, training.mean)
        training.step = saved.step
        started = time.monotonic()

        def seconds() -> float:
            return round(saved.seconds + time.monotonic() - started, 1)

        def save(folder: Path) -> None:
            with training.averaged():
                loss = training.loss_on(train[:MAX_MEASURED])
                if not math.isfinite(loss):
                    raise InputError(
                        f"the training has diverged: its loss is {loss} after {training.step} "
                        "steps; give a smaller learning_rate or a longer warmup"
                    )
                facts = {
                    "images": len(train),
                    "held_out_images": len(held_out),
                    "step": training.step,
                    "prediction_type": model.denoiser.prediction,
                    "parameters": sum(p.numel() for p in model.network.parameters()),
                    "train_loss": loss,
                    "held_out_loss": training.loss_on(held_out[:MAX_MEASURED]),
                    "seconds": seconds(),
                    "run": run,
                }
                save_trained(pipeline, model.network, facts, folder)

        while training.step < settings.steps:
            training.take_step()
            step = training.step
            is_checkpoint = checkpoint_every is not None and step % checkpoint_every == 0
            if checkpoint_every is not None and (is_checkpoint or step == settings.steps):
                save(out / f"{CHECKPOINT}{step}")
            if step < settings.steps and (is_checkpoint or step % STATE_EVERY == 0):
                now = Progressed(step, seconds())
                save_state(out, run, now, model.network, training.optimizer, training.mean)
            progress(step, settings.steps)
        if checkpoint_every is None:
            save(out)
    facts = _write_facts_of_checkpoints(out) if checkpoint_every is not None else _read_facts(out)
    (out / STATE_FILE).unlink(missing_ok=True)
    return facts


def _read_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    return facts


def _write_facts_of_checkpoints(out: Path) -> dict[str, Any]:
    folders = sorted(out.glob(f"{CHECKPOINT}*"), key=lambda p: int(p.name.removeprefix(CHECKPOINT)))
    each = [_read_facts(folder) for folder in folders]
    kept = ("step", "train_loss", "held_out_loss")
    checkpoints = [
        {"folder": folder.name, **{key: facts[key] for key in kept}}
        for folder, facts in zip(folders, each, strict=True)
    ]
    facts = {**each[-1], "checkpoints": checkpoints}
    Folder(str(out)).write(FACTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())
    return facts


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
                f"{folder} is of a training with other images, settings, seed or network; remove "
                "it, or train in another folder"
            )
    if not (out / FACTS_FILE).is_file():
        return None
    facts = _read_facts(out)
    return facts if "checkpoints" in facts or (out / INDEX).is_file() else None


def _check(
    images: Images, measure_on: Images | None, shape: Shape, settings: DiffusionTrainingSpec
) -> None:
    problems = []
    for what, given, least in (
        ("images", images, 2 if measure_on is None else 1),
        ("held-out images", measure_on, 1),
    ):
        if given is None:
            continue
        if given.dtype != np.uint8 or given.shape[1:] != shape:
            problems.append(
                f"{what}: expected uint8 [count, {', '.join(map(str, shape))}], which the pipeline "
                f"takes, but got {given.dtype} {list(given.shape)}"
            )
        elif len(given) < least:
            problems.append(f"{what}: expected at least {least}, but got {len(given)}")
    if settings.warmup >= settings.steps:
        problems.append(
            f"the warm-up of {settings.warmup} steps should be shorter than the training of "
            f"{settings.steps}; make warmup smaller"
        )
    if problems:
        raise InputError(problems)


def _split(images: Images, measure_on: Images | None, seed: int) -> tuple[Images, Images]:
    if measure_on is not None:
        return images, measure_on
    order = generator(seed, "held out").permutation(len(images))
    count = max(1, int(HELD_OUT_SHARE * len(images)))
    return images[np.sort(order[count:])], images[np.sort(order[:count])]
