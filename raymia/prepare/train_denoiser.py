"""Training a diffusion model on images: targets of demos and studies, references, shadows."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.image_source import resolve_image_model
from raymia.prepare.denoiser_files import INDEX, load_trainable, save_trained
from raymia.prepare.denoiser_training import Training
from raymia.prepare.fine_tune import MAX_MEASURED, Progress
from raymia.prepare.training_files import (
    CHECKPOINT,
    finished,
    gather_checkpoints,
    problems_of,
    read_facts,
    set_apart,
)
from raymia.prepare.training_state import STATE_FILE, Progressed, load_state, save_state
from raymia.spec import ModelSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.util.errors import InputError
from raymia.util.hashing import digest, digest_bytes

VERSION = 1

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
    problems = problems_of(images, measure_on, checkpoint.shape, 1, checkpoint_every)
    if problems := problems + _warm_up(settings):
        raise InputError(problems)
    train, held_out = set_apart(images, measure_on, seed)
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
    done = finished(out, run, last=INDEX)
    if done is not None:
        progress(settings.steps, settings.steps)
        return done
    with torch.random.fork_rng():
        model = load_trainable(pipeline, from_weights=from_weights, seed=seed)
        training = Training(train, model, settings, seed)
        saved = load_state(out, run, model.network, training.optimizer, training.mean)
        training.step = saved.step
        started = time.monotonic()

        def seconds() -> float:
            return round(saved.seconds + time.monotonic() - started, 3)

        def save(folder: Path) -> None:
            trained_for = seconds()
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
                    "seconds": trained_for,
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
        else:
            gather_checkpoints(out, "step")
    (out / STATE_FILE).unlink(missing_ok=True)
    return read_facts(out)


def _warm_up(settings: DiffusionTrainingSpec) -> list[str]:
    if settings.warmup < settings.steps:
        return []
    return [
        f"the warm-up of {settings.warmup} steps should be shorter than the training of "
        f"{settings.steps}; make warmup smaller"
    ]
