"""Train an autoencoder whose members are known, as a target to audit.

    python jobs/train_vae.py --data images/ --shape 3 64 64 --objective beta_vae --beta 2 \\
        --members 1000 --held-out 1000 --epochs 200 --checkpoint-every 50 --out targets/beta

The folder then has `members.parquet` and `non_members.parquet`, which an audit file names as its
records, `checkpoint-EPOCH/` folders, which it names as targets, and `manifest.json`. A run that was
interrupted goes on when the same command is given again. With `--dp-epsilon` and `--dp-delta` it is
trained by DP-SGD, which `--normalization batch` does not go with.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from raymia.models.autoencoders.vae.config import (
    AutoencoderConfig,
    MmdConfig,
    Objective,
    RhvaeConfig,
)
from raymia.prepare.target_job import (
    Drawn,
    add_settings,
    checked,
    finish,
    make_parser,
    privacy_of,
    progress_bar,
    read_and_split,
    records_of,
    run_job,
)
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.spec.images import AutoencoderTrainingSpec
from raymia.util.ending import end_with

LOSSES = (
    "{folder}: training loss {train_loss:.2f}, held-out loss {held_out_loss:.2f} nats per image"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Split, train, and write the manifest; returns the exit code."""
    return run_job("train_vae", train, _arguments(arguments), LOSSES)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say, and return the manifest."""
    config, settings = checked(lambda: _settings(args))
    dp = privacy_of(args)
    split, set_aside = read_and_split(records_of(args), config.image_shape, Drawn.of(args))
    with progress_bar(f"{config.objective}: epochs", settings.epochs) as progress:
        facts = train_autoencoder(
            split.members,
            config,
            settings,
            args.out,
            seed=args.seed,
            progress=progress,
            measure_on=split.held_out,
            checkpoint_every=args.checkpoint_every or settings.epochs,
            dp=dp,
        )
    model = {"config": config.model_dump(mode="json")}
    return finish(args.out, str(args.data), model, settings, split, set_aside, facts, dp)


def _settings(args: argparse.Namespace) -> tuple[AutoencoderConfig, AutoencoderTrainingSpec]:
    config = AutoencoderConfig(
        objective=args.objective,
        image_shape=tuple(args.shape),
        latent=args.latent,
        channels=tuple(args.channels),
        normalization=args.normalization,
        beta=args.beta,
        mmd=MmdConfig(weight=args.mmd_weight),
        rhvae=RhvaeConfig(n_lf=args.n_lf),
    )
    settings = AutoencoderTrainingSpec(
        epochs=args.epochs, batch_size=args.batch_size, learning_rate=args.learning_rate
    )
    return config, settings


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "EPOCHS")
    add = parser.add_argument
    add("--objective", choices=get_args(Objective), required=True, help="what is trained on")
    add_settings(parser, AutoencoderConfig, ["latent", "beta"])
    add(
        "--channels",
        type=int,
        nargs="+",
        default=list(AutoencoderConfig.model_fields["channels"].default),
    )
    add("--normalization", choices=("batch", "group", "none"), default="batch")
    add("--mmd-weight", type=float, default=MmdConfig().weight, help="of wae_mmd's penalty")
    add("--n-lf", type=int, default=RhvaeConfig().n_lf, help="leapfrog steps of rhvae")
    add_settings(parser, AutoencoderTrainingSpec, ["epochs", "batch_size", "learning_rate"])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    end_with(main)
