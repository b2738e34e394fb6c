"""Training a diffusion model on images: targets of demos and studies, references, shadows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.image_source import resolve_image_model
from raymia.prepare.denoiser_files import INDEX, load_trainable, save_trained
from raymia.prepare.denoiser_training import Training
from raymia.prepare.private_images import plan_images
from raymia.prepare.trainer import Progress
from raymia.prepare.training_files import finished, problems_of, set_apart
from raymia.prepare.training_loop import run_of, run_training
from raymia.spec import ModelSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.spec.target_training import DpSpec
from raymia.util.errors import InputError

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
    dp: DpSpec | None = None,
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
    dp : of a private training, each step of which takes a Poisson sample of the images.

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
    parts = {
        "version": VERSION,
        "pipeline": checkpoint.fingerprint,
        "settings": settings.model_dump(),
        "seed": seed,
        "from_weights": from_weights,
        **({} if dp is None else {"dp": dp.model_dump()}),
    }
    run = run_of(train, held_out, parts)
    done = finished(out, run, last=INDEX)
    if done is not None:
        progress(settings.steps, settings.steps)
        return done
    privacy = plan_images(dp, len(train), settings.batch_size, settings.steps)
    with torch.random.fork_rng():
        model = load_trainable(pipeline, from_weights=from_weights, seed=seed)

        def write(folder: Path, facts: dict[str, Any]) -> None:
            if not math.isfinite(facts["train_loss"]):
                raise InputError(
                    f"the training has diverged: its loss is {facts['train_loss']} after "
                    f"{facts['step']} steps; give a smaller learning_rate or a longer warmup"
                )
            save_trained(pipeline, model.network, facts, folder)

        return run_training(
            Training(train, model, settings, seed, privacy),
            train,
            held_out,
            out,
            run,
            write=write,
            state_every=STATE_EVERY,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )


def _warm_up(settings: DiffusionTrainingSpec) -> list[str]:
    if settings.warmup < settings.steps:
        return []
    return [
        f"the warm-up of {settings.warmup} steps should be shorter than the training of "
        f"{settings.steps}; make warmup smaller"
    ]
