"""Train a diffusion model whose members are known, as a target to audit.

    python jobs/train_diffusion.py --data images/ --shape 3 64 64 --members 1000 --held-out 1000 \\
        --channels 64 128 128 --steps 20000 --checkpoint-every 5000 --out targets/ddpm

With `--objective flow` the same network is trained by flow matching, and with `--dp-epsilon` and
`--dp-delta` by DP-SGD.

The folder then has `members.parquet` and `non_members.parquet`, which an audit file names as its
records, `checkpoint-STEP/` folders, which it names as targets, and `manifest.json`. A run that was
interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymia.prepare.captioned import Captioned, Images
from raymia.prepare.denoiser_files import (
    SCHEDULERS,
    Prediction,
    fresh_pipeline,
    resolve_trainable,
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
from raymia.prepare.train_denoiser import train_denoiser
from raymia.spec.images import DiffusionTrainingSpec
from raymia.util.ending import end_with

NUMBERS = ("steps", "batch_size", "learning_rate", "warmup")
FLAGS = ("flip", "crop")
OBJECTIVES: dict[str, Prediction] = {
    "epsilon": "epsilon", "v": "v_prediction", "sample": "sample", "flow": "flow",
}  # fmt: skip
"""What networks are trained to predict, by what diffusers calls it."""
LOSSES = "{folder}: training loss {train_loss:.4f}, held-out loss {held_out_loss:.4f} per element"


def main(arguments: Sequence[str] | None = None) -> int:
    """Split, train, and write the manifest; returns the exit code."""
    return run_job("train_diffusion", train, _arguments(arguments), LOSSES)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say, and return the manifest."""
    given = {name: getattr(args, name) for name in (*NUMBERS, "ema", *FLAGS, "timesteps")}
    settings = checked(lambda: DiffusionTrainingSpec(**given))
    dp = privacy_of(args)
    records = records_of(args, args.caption_column)
    split, set_aside = read_and_split(records, tuple(args.shape), Drawn.of(args))
    base = _base(args.pipeline)  # as it is before the training
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
                prediction_type=OBJECTIVES[args.objective],
                train_timesteps=args.train_timesteps,
                attention=args.attention,
            )
        with progress_bar("steps", settings.steps) as progress:
            facts = train_denoiser(
                _with_captions(split.members, split.member_captions, args),
                pipeline,
                settings,
                args.out,
                seed=args.seed,
                progress=progress,
                measure_on=_with_captions(split.held_out, split.held_out_captions, args),
                from_weights=args.from_weights,
                checkpoint_every=args.checkpoint_every or settings.steps,
                dp=dp,
            )
    architecture = ("channels", "layers", "attention", "scheduler", "train_timesteps")
    model = {
        **base,
        "from_weights": args.from_weights,
        "network": None if args.pipeline else {key: getattr(args, key) for key in architecture},
        "prediction_type": facts["prediction_type"],
    }
    return finish(args.out, str(args.data), model, settings, split, set_aside, facts, dp)


def _base(pipeline: Path | None) -> dict[str, str | None]:
    """The pipeline that is trained, for the shadows, which may go on from its weights too."""
    if pipeline is None:
        return {"pipeline": None}
    fingerprint = resolve_trainable(pipeline).fingerprint
    return {"pipeline": str(pipeline.resolve()), "pipeline_fingerprint": fingerprint}


def _with_captions(
    images: Images, captions: Sequence[str] | None, args: argparse.Namespace
) -> Captioned:
    """Images as the network is trained on them: a fresh one is told no captions."""
    return Captioned(images, tuple(captions) if args.pipeline and captions else None)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "STEPS")
    add, flag = parser.add_argument, argparse.BooleanOptionalAction
    add(
        "--caption-column",
        help="of a table; captions are written beside the images, "
        "and a --pipeline that is told captions is trained on them",
    )
    add(
        "--pipeline",
        type=Path,
        help="folder of a pipeline to train, in place of a fresh one; one "
        "that is told captions has the empty one for all where no column is named",
    )
    add("--from-weights", action="store_true", help="go on from the weights of --pipeline")
    add("--channels", type=int, nargs="+", default=[32, 64], help="of each resolution")
    add("--layers", type=int, default=1, help="residual blocks per resolution")
    add("--attention", action=flag, default=True, help="in the lowest resolution")
    add("--scheduler", choices=tuple(SCHEDULERS), default="ddpm", help="the sampler that is named")
    add(
        "--objective",
        choices=tuple(OBJECTIVES),
        default="epsilon",
        help="what the network learns to predict; flow is the velocity of flow matching",
    )
    add("--train-timesteps", type=int, default=1_000, help="of the noise schedule")
    add_settings(parser, DiffusionTrainingSpec, [*NUMBERS, *FLAGS, "timesteps"])
    add("--ema", type=float, help=DiffusionTrainingSpec.model_fields["ema"].description)
    given = parser.parse_args(arguments)
    if given.from_weights and given.pipeline is None:
        parser.error("--from-weights needs --pipeline")
    return given


if __name__ == "__main__":
    end_with(main)
