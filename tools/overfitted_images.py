"""Does every attack that reads an image model's errors find members that are known by heart?

    python tools/overfitted_images.py --out overfitted

A diffusion model and an autoencoder are over-fitted on 60 handwritten digits (scikit-learn's), and
60 others are held out. All attacks run that need no population, no captions and no shadows. The
exit code is 1 where the AUC of one that reads errors is not above 0.95. About four minutes on two
free cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console

from raymia.attacks import registry
from raymia.demo.images import SHAPE, digits
from raymia.metrics.summary import AttackMetrics
from raymia.models.autoencoders.vae.config import AutoencoderConfig
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.image_split import split_and_write
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.prepare.train_denoiser import train_denoiser
from raymia.run.audit import run_audit
from raymia.spec import AutoencoderTrainingSpec, DiffusionTrainingSpec
from raymia.spec.file import load_spec

EACH = 60
LEAST = 0.95
DIFFUSION = DiffusionTrainingSpec(steps=5_000, batch_size=30, learning_rate=1e-3)
AUTOENCODER = AutoencoderTrainingSpec(epochs=400, batch_size=20, learning_rate=2e-3)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    file = prepare(given.out, given.seed)
    result = run_audit(load_spec(file), Console(stderr=True))
    measured = [m for m in result.metrics if isinstance(m, AttackMetrics)]
    print("| target | attack | AUC |", "|---|---|---|", sep="\n")
    for m in sorted(measured, key=lambda m: (m.target, -m.auc.value)):
        print(f"| {m.target} | `{m.attack}` | {m.auc.value:.3f} |")
    low = [m for m in measured if reads_errors(m.attack) and m.auc.value <= LEAST]
    print(f"AUC at most {LEAST}: {', '.join(m.attack for m in low) or 'none that reads errors'}")
    return 1 if low else 0


def reads_errors(attack: str) -> bool:
    kind = registry("image")[attack.partition("@")[0]]
    return bool(kind.asks)


def prepare(out: Path, seed: int) -> Path:
    """Split, over-fit, and write the audit file; what is trained is not trained again."""
    images = np.unique(digits(), axis=0)
    split = split_and_write(images, None, EACH, EACH, seed, out)
    fresh_pipeline(out / "fresh", SHAPE, channels=(32, 64), attention=False, seed=seed)
    for name, facts in (
        ("ddpm", train_denoiser(
            split.members, out / "fresh", DIFFUSION, out / "ddpm", seed=seed,
            progress=lambda *_: None, measure_on=split.held_out)),
        ("vae", train_autoencoder(
            split.members,
            AutoencoderConfig(
                objective="beta_vae", beta=0.05, image_shape=SHAPE, latent=16, channels=(32, 64)
            ),
            AUTOENCODER, out / "vae", seed=seed, progress=lambda *_: None,
            measure_on=split.held_out)),
    ):  # fmt: skip
        print(f"{name}: {facts['seconds']:.0f} s", file=sys.stderr, flush=True)
    content = {
        "name": "overfitted", "output": "report", "store": "store", "seed": seed,
        "records": {
            "kind": "image", "members": "members.parquet", "non_members": "non_members.parquet"
        },
        "targets": [{"name": name, "model": name} for name in ("ddpm", "vae")],
        "neighbors": {"kind": "crop"},
        "probes": {"descent": {}},
    }  # fmt: skip
    file = out / "audit.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


if __name__ == "__main__":
    sys.exit(main())
