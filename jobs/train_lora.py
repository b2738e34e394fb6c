"""Train a LoRA of a diffusion model, whose members are known, as a target to audit.

    python jobs/train_lora.py --base base/ --data images.parquet --caption-column text \\
        --members 500 --held-out 500 --rank 16 --alpha 16 --epochs 100 --checkpoint-every 500 \\
        --out targets/lora

`--base` is the folder of a diffusers pipeline: its scheduler says what is learned (noise, velocity,
or that of flow matching), and its size that of the images. Instead of `--caption-column`,
`--instance-prompt "a photo of sks dog"` is the caption of all images, as in DreamBooth.

The folder then has `members.parquet` and `non_members.parquet`, which an audit file names as its
records, and in `checkpoint-STEP/` the LoRA as diffusers saves it, beside `manifest.json`, which it
names as targets: `{manifest: targets/lora/manifest.json, model: base}`. `raymia audit` takes the
manifest by itself, too. A run that was interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.prepare.captioned import Captioned
from raymia.prepare.denoiser_files import resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings
from raymia.prepare.target_job import (
    add_settings,
    checked,
    finish,
    make_parser,
    progress_bar,
    read_and_split,
    run_job,
)
from raymia.prepare.train_denoiser import train_denoiser
from raymia.spec.images import DiffusionTrainingSpec
from raymia.spec.methods import DoraMethod, LoraMethod, LowRank
from raymia.util.errors import InputError

NUMBERS = ("steps", "batch_size", "learning_rate", "warmup")
FLAGS = ("flip", "crop")
OF_METHOD = {
    "rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout",
    "target_modules": "target_modules", "rslora": "use_rslora",
}  # fmt: skip
"""Keys of the LoRA by its options."""
LOSSES = "{folder}: training loss {train_loss:.4f}, held-out loss {held_out_loss:.4f} per element"


def main(arguments: Sequence[str] | None = None) -> int:
    """Split, train, and write the manifest; returns the exit code."""
    return run_job("train_lora", train, _arguments(arguments), LOSSES)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say, and return the manifest."""
    method = _method(args)
    base = resolve_trainable(args.base, is_frozen=True)
    _check_captions(args, base)
    lora = lora_settings(method, base)
    settings = _settings(args)
    split, set_aside = read_and_split(
        args,
        base.shape,
        args.caption_column,
        group_column=args.group_column,
        one_caption=args.instance_prompt,
        enlarges=args.upscale,
    )
    members = Captioned(split.members, split.member_captions)
    if len(members) < settings.batch_size:
        raise InputError(
            f"batch_size: a step takes {settings.batch_size} images, and {len(members)} are "
            "trained on; give more members, or a smaller --batch-size"
        )
    if args.epochs is not None:
        steps = math.ceil(args.epochs * len(members) / settings.batch_size)
        settings = checked(
            lambda: DiffusionTrainingSpec(**{**settings.model_dump(), "steps": steps})
        )
    with progress_bar("steps", settings.steps) as progress:
        facts = train_denoiser(
            members,
            args.base,
            settings,
            args.out,
            seed=args.seed,
            progress=progress,
            measure_on=Captioned(split.held_out, split.held_out_captions),
            checkpoint_every=args.checkpoint_every or settings.steps,
            lora=lora,
        )
    model = {
        "base": {
            "model": str(args.base.resolve()),
            "fingerprint": base.fingerprint,
            "parameters": base.parameters,
        },
        "method": {"kind": method.kind, **lora},
        "instance_prompt": args.instance_prompt,
        "captions": {
            "column": args.caption_column,
            "without": sum(not caption for caption in split.member_captions or ()),
        },
        "prediction_type": facts["prediction_type"],
    }
    return finish(args, model, settings, split, set_aside, facts)


def _method(args: argparse.Namespace) -> LowRank:
    kind: type[LowRank] = DoraMethod if args.dora else LoraMethod
    given = {key: getattr(args, option) for option, key in OF_METHOD.items()}
    return checked(lambda: kind(kind="dora" if args.dora else "lora", **given))


def _settings(args: argparse.Namespace) -> DiffusionTrainingSpec:
    given = {name: getattr(args, name) for name in (*NUMBERS, "ema", *FLAGS)}
    return checked(lambda: DiffusionTrainingSpec(**given))


def _check_captions(args: argparse.Namespace, base: DenoiserCheckpoint) -> None:
    """Refuse captions where the base is told none, and none where it is told some."""
    given = [
        option
        for option, value in (
            ("--caption-column", args.caption_column),
            ("--instance-prompt", args.instance_prompt),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise InputError(
            f"{' and '.join(given)} are given, and an image is trained on with one caption; leave "
            "one of them out"
        )
    if given and not base.is_captioned:
        raise InputError(
            f"{given[0]}: {base.path} has no text encoder, so that it cannot be told a caption; "
            "leave it out, or give a base that has one"
        )
    if not given and base.is_captioned:
        raise InputError(
            f"{base.path} is conditioned on captions; name their column as --caption-column, or "
            "give one --instance-prompt for all images, which may be empty"
        )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "STEPS", of_a_base=True)
    add = parser.add_argument
    add("--base", type=Path, required=True, help="folder of the pipeline that is adapted")
    add("--caption-column", help="of a table, or suffix of the files beside images, such as txt")
    add("--instance-prompt", help="one caption for all images")
    add("--group-column", help="of a table; images of one group are all members or all held out")
    add("--upscale", action="store_true", help="scale images up that are smaller than the base's")
    fields = LowRank.model_fields
    for option in ("rank", "alpha", "dropout"):
        field = fields[OF_METHOD[option]]
        add(f"--{option}", type=type(field.default), default=field.default, help=field.description)
    add("--target-modules", nargs="+", help="names of layers, or ends of them; default: attention")
    add("--rslora", action="store_true", help=fields["use_rslora"].description)
    add("--dora", action="store_true", help=DoraMethod.__doc__)
    add_settings(parser, DiffusionTrainingSpec, [*NUMBERS, *FLAGS])
    add("--epochs", type=float, help="passes over the members, in place of --steps")
    add("--ema", type=float, help=DiffusionTrainingSpec.model_fields["ema"].description)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
