"""Training a diffusion model on images: targets of demos and studies, references, shadows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.denoisers.lora_files import BY_DIFFUSERS
from raymia.models.denoisers.query import Told
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.prepare.captioned import Captioned
from raymia.prepare.denoiser_files import INDEX, load_trainable, resolve_trainable, save_trained
from raymia.prepare.denoiser_lora import LoraSettings, save_lora
from raymia.prepare.denoiser_training import Training, refuse_divergence
from raymia.prepare.private_images import plan_images
from raymia.prepare.trainer import Progress
from raymia.prepare.training_files import finished, problems_of, set_apart
from raymia.prepare.training_loop import run_of, run_training
from raymia.spec.images import DiffusionTrainingSpec
from raymia.spec.target_training import DpSpec
from raymia.util.errors import InputError

VERSION = 1

STATE_EVERY = 500
"""Steps after which a killed training need not be taken again."""

Images = npt.NDArray[np.uint8]


def train_denoiser(
    images: Images | Captioned,
    pipeline: Path,
    settings: DiffusionTrainingSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Images | Captioned | None = None,
    from_weights: bool = False,
    checkpoint_every: int | None = None,
    dp: DpSpec | None = None,
    lora: LoraSettings | None = None,
    size: tuple[int, int] | None = None,
    told: Told | None = None,
) -> dict[str, Any]:
    """Train the network of a diffusers pipeline on images and save the pipeline with it.

    The network learns what the scheduler says it predicts (Ho et al., 2020, eq. 14, for the
    noise), at timesteps drawn as the settings say. AdamW, gradients cut to a norm of 1, the
    learning rate rising linearly and falling to zero along a cosine. Images are gone through in a
    new order each epoch. Latent pipelines are trained on their autoencoder's latents; those with
    text on the captions of the images, or on the empty one. Weights that are trained are in
    float32.

    Order, noise and augmentation are functions of (seed, step), and where the training stands is
    kept in ``out/training.safetensors`` until it is finished: after a kill, the same call goes on,
    and ends with the weights that it would have ended with. A call that is repeated when all is
    done does nothing.

    Parameters
    ----------
    images : uint8 [N, C, H, W], or these with captions or classes.
    pipeline : folder of the pipeline, as :func:`fresh_pipeline` writes one.
    out : folder that the trained pipeline is saved in.
    measure_on : held-out images for the held-out loss; default: 5 % of the images, which are then
        not trained on.
    from_weights : train the pipeline's weights further, rather than a fresh network.
    checkpoint_every : steps; the pipeline is then saved every so many and after the last, in
        ``out/checkpoint-STEP`` each, and not in ``out`` itself.
    dp : of a private training, each step of which takes a Poisson sample of the images.
    lora : train a LoRA on the pipeline's weights, and save it alone; see
        :func:`raymia.prepare.denoiser_lora.lora_settings`.
    size : height and width of the images; default: what the pipeline is made for.
    told : what else the network is told; default: what its pipeline tells it.

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
    checkpoint = resolve_trainable(pipeline, is_frozen=lora is not None, size=size, told=told)
    given = Captioned.of(images)
    others = None if measure_on is None else Captioned.of(measure_on)
    problems = problems_of(
        given.pixels,
        None if others is None else others.pixels,
        checkpoint.shape,
        1,
        checkpoint_every,
    )
    problems += [*settings.warm_up_problems, *_caption_problems(checkpoint, given, others)]
    if problems:
        raise InputError(problems)
    train, held_out = set_apart(given, others, seed)
    parts = {
        "version": VERSION,
        "pipeline": checkpoint.fingerprint,
        "settings": settings.model_dump(),
        "seed": seed,
        "from_weights": from_weights,
        **({} if dp is None else {"dp": dp.model_dump()}),
        **({} if lora is None else {"lora": lora}),
    }
    if train.captions is not None:
        parts["captions"] = [train.captions_hash, held_out.captions_hash]
    run = run_of(train.pixels, held_out.pixels, parts)
    done = finished(out, run, last=INDEX if lora is None else BY_DIFFUSERS)
    if done is not None:
        progress(settings.steps, settings.steps)
        return done
    privacy = plan_images(dp, len(train), settings.batch_size, settings.steps)
    with torch.random.fork_rng():
        model = load_trainable(
            pipeline, from_weights=from_weights, seed=seed, lora=lora, size=size, told=told
        )

        def write(folder: Path, facts: dict[str, Any]) -> None:
            refuse_divergence(facts["train_loss"], facts["step"])
            if lora is None:
                save_trained(pipeline, model.network, facts, folder)
            else:
                save_lora(model.network, checkpoint.network.folder, facts, folder)

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


def _caption_problems(
    checkpoint: DenoiserCheckpoint, train: Captioned, held_out: Captioned | None
) -> list[str]:
    """What of the captions does not fit the pipeline."""
    problems = []
    given = [part.captions is not None for part in (train, held_out) if part is not None]
    if len({*given}) > 1:
        problems.append("captions: members and held-out images should both have some, or neither")
    if given[0] and not (checkpoint.is_captioned or checkpoint.classes):
        problems.append(
            f"captions: {checkpoint.path} has no text encoder, so that it cannot be told one; "
            "leave them out"
        )
    if checkpoint.classes and not given[0]:
        problems.append(
            f"classes: {checkpoint.path} is told one of {checkpoint.classes} with each image, and "
            "none is given"
        )
    return problems
