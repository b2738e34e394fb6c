"""Train an autoencoder whose members are known, as a target to audit.

    python jobs/train_vae.py --data images/ --shape 3 64 64 --objective beta_vae --beta 2 \\
        --members 1000 --held-out 1000 --epochs 200 --checkpoint-every 50 --out targets/beta

The folder then has `members.parquet` and `non_members.parquet`, which an audit file names as its
records, `checkpoint-EPOCH/` folders, which it names as targets, and `manifest.json`. A run that was
interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raymia.errors import InputError, RaymiaError
from raymia.image_records import pixels_array, read_image_records
from raymia.models.vae.config import AutoencoderConfig, MmdConfig, Objective, RhvaeConfig
from raymia.prepare.image_split import split_and_write, write_manifest
from raymia.prepare.train_autoencoder import train_autoencoder
from raymia.spec import ImageRecordsSpec
from raymia.spec.images import AutoencoderTrainingSpec, Fit


def main(arguments: Sequence[str] | None = None) -> int:
    """Split, train, and write the manifest; returns the exit code."""
    args = _arguments(arguments)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        manifest = train(args)
    except RaymiaError as error:
        print(f"train_vae: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    for checkpoint in manifest["checkpoints"]:
        print(
            f"{checkpoint['folder']}: training loss {checkpoint['train_loss']:.2f}, "
            f"held-out loss {checkpoint['held_out_loss']:.2f} nats per image"
        )
    return 0


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say, and return the manifest."""
    config, settings = _settings(args)
    spec = ImageRecordsSpec(
        kind="image", candidates=[str(args.data)], image_column=args.image_column, fit=args.fit
    )
    records = read_image_records(spec, config.image_shape)
    images = pixels_array(records.table["payload"].to_pylist(), config.image_shape)
    split = split_and_write(images, None, args.members, args.held_out, args.seed, args.out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(f"{config.objective}: epochs", total=settings.epochs)
        facts = train_autoencoder(
            split.members,
            config,
            settings,
            args.out,
            seed=args.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            measure_on=split.held_out,
            checkpoint_every=args.checkpoint_every or settings.epochs,
        )
    kept = ("folder", "epoch", "train_loss", "held_out_loss")
    manifest = {
        "config": config.model_dump(mode="json"),
        "training": settings.model_dump(),
        "data": str(args.data),
        "images_set_aside": len(records.set_aside),
        **split.facts,
        "parameters": facts["parameters"],
        "seconds": facts["seconds"],
        "checkpoints": [{key: c[key] for key in kept} for c in facts["checkpoints"]],
    }
    write_manifest(args.out, manifest)
    return manifest


def _settings(args: argparse.Namespace) -> tuple[AutoencoderConfig, AutoencoderTrainingSpec]:
    try:
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
    except ValidationError as error:
        raise InputError(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in error.errors()
        ) from None
    return config, settings


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    fields, training = AutoencoderConfig.model_fields, AutoencoderTrainingSpec.model_fields
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder, table or tar of images")
    add("--image-column", default="image", help="of a table")
    add("--fit", choices=get_args(Fit), default="exact", help="what is done to other sizes")
    add("--out", type=Path, required=True, help="folder for everything that is written")
    add("--shape", type=int, nargs=3, required=True, metavar=("CHANNELS", "HEIGHT", "WIDTH"))
    add("--members", type=int, required=True, help="images to train on")
    add("--held-out", type=int, required=True, help="images that are not trained on")
    add("--objective", choices=get_args(Objective), required=True, help="what is trained on")
    for name in ("latent", "beta"):
        default = fields[name].default
        add(f"--{name}", type=type(default), default=default, help=fields[name].description)
    add("--channels", type=int, nargs="+", default=list(fields["channels"].default))
    add("--normalization", choices=("batch", "group", "none"), default="batch")
    add("--mmd-weight", type=float, default=MmdConfig().weight, help="of wae_mmd's penalty")
    add("--n-lf", type=int, default=RhvaeConfig().n_lf, help="leapfrog steps of rhvae")
    for name in ("epochs", "batch_size", "learning_rate"):
        default, flag = training[name].default, f"--{name.replace('_', '-')}"
        add(flag, type=type(default), default=default, help=training[name].description)
    add("--checkpoint-every", type=int, metavar="EPOCHS", help="the last is saved in any case")
    add("--seed", type=int, default=0, help="of the split, the weights and the training")
    add("--threads", type=int, help="of torch; all cores if not given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
