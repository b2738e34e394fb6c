"""The image demo: a diffusion model, a VAE and a LoRA trained here on real images, and audited.

The images are the handwritten digits that scikit-learn ships (Alpaydin and Kaynak, 1998): 1,797
scans of 8 x 8 pixels. Members, non-members, a population and the images of the LoRA's base are
drawn from them at random; all models are trained here, live, on two CPU cores. No network, no GPU,
no account.
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
from raymia.prepare.denoiser_files import fresh_pipeline, resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings
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
from raymia.spec.methods import LoraMethod, LowRank
from raymia.storage.files import Folder

Images = npt.NDArray[np.uint8]

SHAPE = (1, 8, 8)
WHITE = 16
"""The digits' darkest ink; they are counts of set pixels in cells of 4 x 4."""

POPULATION = "population"
BASE = "base"

ONE_THREAD = PoolSpec(cpus=1)
"""Networks as small as these are slower on two threads than on one."""


@dataclass(frozen=True)
class ImageDemoSettings:
    """Sizes of the demo; the defaults take about three minutes on two cores.

    Attributes
    ----------
    members : images that all targets are trained on, and as many non-members.
    population : images that are neither, at most. The base of the LoRA is trained on those that
        are left.
    channels : of the stages of all targets.
    latent : numbers in a latent vector of the VAE.
    beta : weight of the VAE's divergence. With squared errors summed over pixels, that is a decoder
        whose noise has a standard deviation of sqrt(beta / 2), 0.16; with 1 the divergence of so
        few pixels weighs more than what they show, and the latents are not used.
    base : how the base of the LoRA is trained, on images of which none is asked about.
    lora : what of the base is changed.
    tuning : how the LoRA is trained, on the members.
    images : how many images each target generates for its reference.
    reference : how the references are trained on them.
    strengths : of the crops that PFAMI looks at.
    timesteps : at which diffusion models are asked, as shares of the path from image to noise.
    """

    members: int = 300
    population: int = 600
    channels: tuple[int, ...] = (16, 32)
    diffusion: DiffusionTrainingSpec = field(
        default_factory=lambda: DiffusionTrainingSpec(
            steps=1_700, batch_size=64, learning_rate=2e-3
        )
    )
    latent: int = 16
    beta: float = 0.05
    autoencoder: AutoencoderTrainingSpec = field(
        default_factory=lambda: AutoencoderTrainingSpec(epochs=200)
    )
    base: DiffusionTrainingSpec = field(
        default_factory=lambda: DiffusionTrainingSpec(steps=300, batch_size=64, learning_rate=2e-3)
    )
    lora: LowRank = field(
        default_factory=lambda: LoraMethod(r=32, lora_alpha=32, target_modules=["conv1", "conv2"])
    )
    tuning: DiffusionTrainingSpec = field(
        default_factory=lambda: DiffusionTrainingSpec(steps=700, batch_size=64, learning_rate=5e-3)
    )
    images: int = 400
    reference: DiffusionTrainingSpec = field(
        default_factory=lambda: DiffusionTrainingSpec(steps=400, batch_size=64, learning_rate=2e-3)
    )
    strengths: tuple[float, ...] = (0.95, 0.85, 0.75)
    timesteps: tuple[float, ...] = (0.05, 0.1, 0.2, 0.35, 0.6)
    seed: int = 0


def run_image_demo(
    folder: Path, console: Console, settings: ImageDemoSettings, kind: EngineKind | None = None
) -> tuple[RunResult, str]:
    """Train the targets, write the audit file, and run the audit; see :func:`run_in`."""
    return run_in(
        folder, console, lambda executor: make_image_demo(folder, settings, executor), kind
    )


def make_image_demo(folder: Path, settings: ImageDemoSettings, executor: Executor) -> None:
    """Write records into a folder, train the targets on the members, write the audit file.

    A training of a diffusion model that was killed goes on where it was.
    """

    images = digits()
    split = split_and_write(images, None, settings.members, settings.members, settings.seed, folder)
    others = unspent(images, split)
    write_folder(folder / POPULATION, others[: settings.population])
    members, held_out = split.members, split.held_out
    place, seed = folder.resolve(), settings.seed
    with executor.reporting() as board:
        report_ddpm, report_vae, report_base, report_lora = (
            reporter(board, f"train: {name}") for name in ("ddpm", "vae", "base", "lora")
        )

        def train_ddpm() -> None:
            fresh = place / "untrained-ddpm"
            fresh_pipeline(fresh, SHAPE, channels=settings.channels, attention=False, seed=seed)
            train_denoiser(members, fresh, settings.diffusion, place / "ddpm", seed=seed,
                           progress=report_ddpm, measure_on=held_out)  # fmt: skip

        def train_vae() -> None:
            config = AutoencoderConfig(
                objective="beta_vae", beta=settings.beta, image_shape=SHAPE,
                latent=settings.latent, channels=settings.channels,
            )  # fmt: skip
            train_autoencoder(members, config, settings.autoencoder, place / "vae", seed=seed,
                              progress=report_vae, measure_on=held_out)  # fmt: skip

        def train_lora() -> None:
            fresh, base = place / "untrained-base", place / BASE
            fresh_pipeline(fresh, SHAPE, channels=settings.channels, attention=False, seed=seed)
            train_denoiser(others[settings.population :], fresh, settings.base, base, seed=seed,
                           progress=report_base, measure_on=held_out)  # fmt: skip
            lora = lora_settings(settings.lora, resolve_trainable(base, is_frozen=True))
            train_denoiser(members, base, settings.tuning, place / "lora", seed=seed, lora=lora,
                           progress=report_lora, measure_on=held_out)  # fmt: skip

        executor.call([train_ddpm, train_vae, train_lora], ONE_THREAD)
    write_audit_file(folder, sections_of_audit(settings))


def digits() -> Images:
    """The digits that scikit-learn ships, white on black; uint8 [1797, 1, 8, 8]."""
    from sklearn.datasets import load_digits

    ink = load_digits().images
    images: Images = (ink * (255 / WHITE)).round().astype(np.uint8)[:, None]
    return images


def unspent(images: Images, split: ImageSplit) -> Images:
    """Images that are neither members nor held out, in their own order."""
    spent = {image.tobytes() for image in (*split.members, *split.held_out)}
    return images[[image.tobytes() not in spent for image in images]]


def write_folder(folder: Path, images: Images) -> None:
    """Write images as PNG files."""
    out = Folder(str(folder))
    for number, image in enumerate(images):
        out.write(f"{number:04}.png", png(image))


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
        ("The checkpoints under audit: diffusers pipelines, alone or with a LoRA, autoencoders,\n"
         "ImageGPT; safetensors.",
         {"targets": [*({"name": name, "model": name} for name in ("ddpm", "vae")),
                      {"name": "lora", "model": BASE, "adapter": "lora"}]}),
        ("The reference of each target: a fresh model of its kind, of a LoRA a fresh LoRA on its\n"
         "base, trained on images that the target itself generates.",
         {"references": {
             "self_generated": {
                 "kind": "self_generated", "images": settings.images, "sampling_steps": 25,
                 "generation_batch": 128, "training": training}}}),
        ("Neighbors of each image: center crops. There are ten if no strengths are named.",
         {"neighbors": {"kind": "crop", "strengths": [*settings.strengths]}}),
        ("Where on the path from image to noise diffusion models are asked; at ten places if\n"
         "nothing is said.",
         {"probes": {"denoising": {"timesteps": [*settings.timesteps]}}}),
        ("Actors, CPUs and GPUs of each pool. Half a CPU is one thread, on which networks this\n"
         "small are trained fastest; leave it out for yours.",
         {"resources": {"target": {"actors": 1}, "reference": {"max_actors": 2, "cpus": 0.5}}}),
    ]  # fmt: skip
