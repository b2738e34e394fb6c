"""Train a diffusion model whose members are known, as a target to audit.

    python jobs/train_diffusion.py --data images/ --shape 3 64 64 --members 1000 --held-out 1000 \\
        --channels 64 128 128 --steps 20000 --checkpoint-every 5000 --out targets/ddpm

The folder then has `members.parquet` and `non_members.parquet`, which an audit file names as its
records, `checkpoint-STEP/` folders, which it names as targets, and `manifest.json`. A run that was
interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raymia.errors import InputError, RaymiaError
from raymia.image_records import pixels_array, read_image_records
from raymia.models.denoiser import PREDICTIONS
from raymia.models.image_source import Shape
from raymia.prepare.denoiser_files import SCHEDULERS, fresh_pipeline
from raymia.prepare.image_split import ImageSplit, split_and_write, write_manifest
from raymia.prepare.train_denoiser import train_denoiser
from raymia.spec import ImageRecordsSpec
from raymia.spec.images import DiffusionTrainingSpec

NUMBERS = ("steps", "batch_size", "learning_rate", "warmup")


def main(arguments: Sequence[str] | None = None) -> int:
    """Split, train, and write the manifest; returns the exit code."""
    args = _arguments(arguments)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        manifest = train(args)
    except RaymiaError as error:
        print(f"train_diffusion: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    for checkpoint in manifest["checkpoints"]:
        print(
            f"{checkpoint['folder']}: training loss {checkpoint['train_loss']:.4f}, "
            f"held-out loss {checkpoint['held_out_loss']:.4f} per element"
        )
    return 0


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say, and return the manifest."""
    settings = _settings(args)
    split, set_aside = _split(args, tuple(args.shape))
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = args.pipeline
        if pipeline is None:
            pipeline = Path(scratch)
            fresh_pipeline(
                pipeline,
                tuple(args.shape),
                channels=args.channels,
                layers=args.layers,
                scheduler=args.scheduler,
                prediction_type=args.prediction_type,
                train_timesteps=args.train_timesteps,
                attention=args.attention,
            )
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn()) as bar:
            task = bar.add_task("steps", total=settings.steps)
            facts = train_denoiser(
                split.members,
                pipeline,
                settings,
                args.out,
                seed=args.seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                measure_on=split.held_out,
                from_weights=args.from_weights,
                checkpoint_every=args.checkpoint_every or settings.steps,
            )
    architecture = ("channels", "layers", "attention", "scheduler", "train_timesteps")
    manifest = {
        "pipeline": None if args.pipeline is None else str(args.pipeline),
        "from_weights": args.from_weights,
        "network": None if args.pipeline else {key: getattr(args, key) for key in architecture},
        "prediction_type": facts["prediction_type"],
        "training": settings.model_dump(),
        "data": str(args.data),
        "images_set_aside": set_aside,
        **split.facts,
        "parameters": facts["parameters"],
        "seconds": facts["seconds"],
        "checkpoints": facts["checkpoints"],
    }
    write_manifest(args.out, manifest)
    return manifest


def _split(args: argparse.Namespace, shape: Shape) -> tuple[ImageSplit, int]:
    """Members and held-out images, and how many could not be used."""
    spec = ImageRecordsSpec(
        kind="image",
        candidates=[str(args.data)],
        image_column=args.image_column,
        caption_column=args.caption_column,
        fit=args.fit,
    )
    records = read_image_records(spec, shape)
    payloads = records.table["payload"].to_pylist()
    captions = None
    if args.caption_column is not None:
        captions = [payload["caption"] or "" for payload in payloads]
    images = pixels_array(payloads, shape)
    split = split_and_write(images, captions, args.members, args.held_out, args.seed, args.out)
    return split, len(records.set_aside)


def _settings(args: argparse.Namespace) -> DiffusionTrainingSpec:
    given = {name: getattr(args, name) for name in (*NUMBERS, "ema", "flip", "crop")}
    try:
        return DiffusionTrainingSpec(**given)
    except ValidationError as error:
        raise InputError(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in error.errors()
        ) from None


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    training = DiffusionTrainingSpec.model_fields
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, flag = parser.add_argument, argparse.BooleanOptionalAction
    add("--data", type=Path, required=True, help="folder, table or tar of images")
    add("--image-column", default="image", help="of a table")
    add("--caption-column", help="of a table; captions are written beside the images")
    add("--fit", choices=("exact", "crop", "pad", "stretch"), default="exact", help="other sizes")
    add("--out", type=Path, required=True, help="folder for everything that is written")
    add("--shape", type=int, nargs=3, required=True, metavar=("CHANNELS", "HEIGHT", "WIDTH"))
    add("--members", type=int, required=True, help="images to train on")
    add("--held-out", type=int, required=True, help="images that are not trained on")
    add("--pipeline", type=Path, help="folder of a pipeline to train, in place of a fresh one")
    add("--from-weights", action="store_true", help="go on from the weights of --pipeline")
    add("--channels", type=int, nargs="+", default=[32, 64], help="of each resolution")
    add("--layers", type=int, default=1, help="residual blocks per resolution")
    add("--attention", action=flag, default=True, help="in the lowest resolution")
    add("--scheduler", choices=tuple(SCHEDULERS), default="ddpm", help="the sampler that is named")
    add("--prediction-type", choices=PREDICTIONS, default="epsilon", help="of the network")
    add("--train-timesteps", type=int, default=1_000, help="of the noise schedule")
    for name in NUMBERS:
        default, option = training[name].default, f"--{name.replace('_', '-')}"
        add(option, type=type(default), default=default, help=training[name].description)
    add("--ema", type=float, help=training["ema"].description)
    for name in ("flip", "crop"):
        add(f"--{name}", action="store_true", help=training[name].description)
    add("--checkpoint-every", type=int, metavar="STEPS", help="the last is saved in any case")
    add("--seed", type=int, default=0, help="of the split, the weights and the training")
    add("--threads", type=int, help="of torch; all cores if not given")
    given = parser.parse_args(arguments)
    if given.from_weights and given.pipeline is None:
        parser.error("--from-weights needs --pipeline")
    return given


if __name__ == "__main__":
    sys.exit(main())
