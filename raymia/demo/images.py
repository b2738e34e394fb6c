"""The image demo: a diffusion model and a VAE trained here on real images, and audited.

The images are the handwritten digits that scikit-learn ships (Alpaydin and Kaynak, 1998): 1,797
scans of 8 x 8 pixels. Members, non-members and a population are drawn from them at random; all
models are trained here, live, on two CPU cores. No network, no GPU, no account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from raymia.demo.folder import Section, run_in, write_audit_file
from raymia.engine.base import Executor
from raymia.engine.board import reporter
from raymia.models.autoencoders.vae.config import AutoencoderConfig
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.image_split import (
    MEMBERS_FILE,
    NON_MEMBERS_FILE,
    ImageSplit,
    png,
    split_and_write,
)
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.prepare.train_denoiser import train_denoiser
from raymia.results.result import RunResult
from raymia.spec import AutoencoderTrainingSpec, DiffusionTrainingSpec, EngineKind, PoolSpec
from raymia.storage.files import Folder

Images = npt.NDArray[np.uint8]

SHAPE = (1, 8, 8)
WHITE = 16
"""The digits' darkest ink; they are counts of set pixels in cells of 4 x 4."""

POPULATION = "population"

ONE_THREAD = PoolSpec(cpus=1)
"""Networks as small as these are slower on two threads than on one."""


@dataclass(frozen=True)
class ImageDemoSettings:
    """Sizes of the demo; the defaults take under four minutes on two cores.

    Attributes
    ----------
    members : images that both targets are trained on, and as many non-members.
    population : images that are neither, at most.
    channels : of the stages of both targets.
    latent : numbers in a latent vector of the VAE.
    beta : weight of the VAE's divergence. With squared errors summed over pixels, that is a decoder
        whose noise has a standard deviation of sqrt(beta / 2), 0.16; with 1 the divergence of so
        few pixels weighs more than what they show, and the latents are not used.
    images : how many images each target generates for its reference.
    reference : how the references are trained on them.
    """

    members: int = 300
    population: int = 600
    channels: tuple[int, ...] = (16, 32)
    diffusion: DiffusionTrainingSpec = field(
        default_factory=lambda: DiffusionTrainingSpec(
            steps=2_000, batch_size=64, learning_rate=2e-3
        )
    )
    latent: int = 16
    beta: float = 0.05
    autoencoder: AutoencoderTrainingSpec = field(
        default_factory=lambda: AutoencoderTrainingSpec(epochs=200)
    )
    images: int = 1_000
    reference: DiffusionTrainingSpec = field(
        default_factory=lambda: DiffusionTrainingSpec(
            steps=1_000, batch_size=64, learning_rate=2e-3
        )
    )
    seed: int = 0


def run_image_demo(
    folder: Path, console: Console, settings: ImageDemoSettings, kind: EngineKind | None = None
) -> tuple[RunResult, str]:
    """Train both targets, write the audit file, and run the audit; see :func:`run_in`."""
    return run_in(
        folder, console, lambda executor: make_image_demo(folder, settings, executor), kind
    )


def make_image_demo(folder: Path, settings: ImageDemoSettings, executor: Executor) -> None:
    """Write records into a folder, train both targets on the members, write the audit file.

    A training of the diffusion model that was killed goes on where it was.
    """

    images = digits()
    split = split_and_write(images, None, settings.members, settings.members, settings.seed, folder)
    write_population(folder / POPULATION, images, split, settings.population)
    members, held_out = split.members, split.held_out
    place, seed = folder.resolve(), settings.seed
    with executor.reporting() as board:
        report_steps, report_epochs = reporter(board, "train: ddpm"), reporter(board, "train: vae")

        def train_ddpm() -> None:
            fresh = place / "untrained-ddpm"
            fresh_pipeline(fresh, SHAPE, channels=settings.channels, attention=False, seed=seed)
            train_denoiser(members, fresh, settings.diffusion, place / "ddpm", seed=seed,
                           progress=report_steps, measure_on=held_out)  # fmt: skip

        def train_vae() -> None:
            config = AutoencoderConfig(
                objective="beta_vae", beta=settings.beta, image_shape=SHAPE,
                latent=settings.latent, channels=settings.channels,
            )  # fmt: skip
            train_autoencoder(members, config, settings.autoencoder, place / "vae", seed=seed,
                              progress=report_epochs, measure_on=held_out)  # fmt: skip

        executor.call([train_ddpm, train_vae], ONE_THREAD)
    write_audit_file(folder, sections_of_audit(settings))


def digits() -> Images:
    """The digits that scikit-learn ships, white on black; uint8 [1797, 1, 8, 8]."""
    from sklearn.datasets import load_digits

    ink = load_digits().images
    images: Images = (ink * (255 / WHITE)).round().astype(np.uint8)[:, None]
    return images


def write_population(folder: Path, images: Images, split: ImageSplit, max_images: int) -> None:
    """Write the first images that are neither members nor held out as a folder of PNG files."""
    spent = {image.tobytes() for image in (*split.members, *split.held_out)}
    others = [n for n, image in enumerate(images) if image.tobytes() not in spent]
    out = Folder(str(folder))
    for number in others[:max_images]:
        out.write(f"{number:04}.png", png(images[number]))


def sections_of_audit(settings: ImageDemoSettings) -> Sequence[Section]:
    """The audit that the demo runs."""
    training = settings.reference.model_dump(exclude_defaults=True)
    records: dict[str, Any] = {
        "kind": "image", "members": MEMBERS_FILE, "non_members": NON_MEMBERS_FILE,
        "population": POPULATION,
    }  # fmt: skip
    return [
        ("One audit. Relative paths are relative to this file's folder.",
         {"name": "demo-images", "output": "report", "store": "store", "seed": settings.seed}),
        ("Pictures of the most exposed records are shown: those of the demo are nobody's secret.",
         {"report": {"pictures": True}}),
        ("Known members, held-out non-members, and images that are neither and are not scored:\n"
         "folders, Parquet, CSV, JSONL or tars, local or any fsspec URL.",
         {"records": records}),
        ("The checkpoints under audit: diffusers pipelines, autoencoders, ImageGPT; safetensors.",
         {"targets": [{"name": name, "model": name} for name in ("ddpm", "vae")]}),
        ("The reference of each target: a fresh model of its kind, trained on images that the\n"
         "target itself generates.",
         {"references": {
             "self_generated": {
                 "kind": "self_generated", "images": settings.images, "sampling_steps": 25,
                 "generation_batch": 128, "training": training}}}),
        ("Neighbors of each image: center crops at ten strengths.",
         {"neighbors": {"kind": "crop"}}),
        ("Actors, CPUs and GPUs of each pool. Half a CPU is one thread, on which networks this\n"
         "small are trained fastest; leave it out for yours.",
         {"resources": {"target": {"actors": 1}, "reference": {"actors": 1, "cpus": 0.5}}}),
    ]  # fmt: skip
