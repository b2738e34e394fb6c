"""A real audit of images that runs in seconds: digits of 8 x 8 pixels, a small denoiser, a VAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from raymia.demo import images as demo

SHAPE = (1, 8, 8)
MEMBERS, OTHERS = 24, 24
TIMESTEPS = [50, 150, 300]


@dataclass(frozen=True)
class ImageModels:
    """Checkpoints made for the tests.

    Attributes
    ----------
    denoiser : knows the first 24 digits by heart.
    untrained : the same network before it was trained.
    vae : an autoencoder that knows them too.
    """

    denoiser: Path
    untrained: Path
    vae: Path

    @classmethod
    def of(cls, folder: Path) -> ImageModels:
        """Those that are made in a folder."""
        return cls(folder / "denoiser", folder / "untrained", folder / "vae")


@cache
def digits() -> npt.NDArray[np.uint8]:
    """Distinct handwritten digits, uint8 [images, 1, 8, 8]."""
    images = np.unique(demo.digits(), axis=0)
    return images[np.random.default_rng(0).permutation(len(images))]


def make_image_models(folder: Path) -> None:
    """Over-fit a denoiser and a VAE on the first 24 digits."""
    from raymia.models.autoencoders.vae.config import AutoencoderConfig
    from raymia.prepare.denoiser_files import fresh_pipeline
    from raymia.prepare.train_autoencoder import train_autoencoder
    from raymia.prepare.train_denoiser import train_denoiser
    from raymia.spec import AutoencoderTrainingSpec, DiffusionTrainingSpec

    models = ImageModels.of(folder)
    fresh_pipeline(models.untrained, SHAPE, channels=(16, 32), attention=False)
    settings = DiffusionTrainingSpec(steps=600, batch_size=24, learning_rate=3e-3, warmup=20)
    train_denoiser(
        digits()[:MEMBERS], models.untrained, settings, models.denoiser, seed=0,
        progress=lambda *_: None,
    )  # fmt: skip
    config = AutoencoderConfig(
        image_shape=SHAPE, objective="beta_vae", beta=0.05, latent=16, channels=(32, 64)
    )
    train_autoencoder(
        digits()[:MEMBERS], config,
        AutoencoderTrainingSpec(epochs=100, batch_size=8, learning_rate=3e-3), models.vae,
        seed=0, progress=lambda *_: None,
    )  # fmt: skip


def write_images(folder: Path, images: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Write grey images as a folder of PNG files and return its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image[0]).save(folder / f"{number:04}.png")
    return folder.name


def write_image_audit(folder: Path, model: Path, engine: str = "local", **overrides: Any) -> Path:
    """Write images and an audit file; what is given replaces whole top-level keys, None drops one.

    By default: 24 members and 24 non-members, one target, three crops, no reference; all in this
    process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "name": "small-images",
        "output": "run",
        "store": "store",
        "records": {
            "kind": "image",
            "members": write_images(folder / "members", digits()[:MEMBERS]),
            "non_members": write_images(
                folder / "non_members", digits()[MEMBERS : MEMBERS + OTHERS]
            ),
        },
        "targets": [{"name": "target", "model": str(model)}],
        "neighbors": {"kind": "crop", "strengths": [0.95, 0.85, 0.75]},
        "probes": {
            "denoising": {"timesteps": TIMESTEPS, "draws": 2},
            "proximal": {"timesteps": TIMESTEPS},
            "clean": {"timesteps": TIMESTEPS},
        },
        "metrics": {"resamples": 100},
        "report": {"pictures": True},
        **overrides,
        "resources": {"engine": engine, **overrides.get("resources", {})},
    }
    path = folder / "audit.yaml"
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path
