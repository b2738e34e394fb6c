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
With `--dp-epsilon` and `--dp-delta` it is trained by DP-SGD, which `--dora` does not go with.
`raymia train` does the same by a file of records of `kind: image`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from raymia.prepare.target_job import add_settings, checked, make_parser, privacy_of, run_job
from raymia.prepare.train_lora import run_lora_training
from raymia.spec.image_training import LoraTrainingSpec, TrainedImagesSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.spec.methods import DoraMethod, LowRank
from raymia.util.ending import end_with

TRAINING = ("steps", "batch_size", "learning_rate", "warmup", "ema", "flip", "crop", "timesteps")
IMAGES = ("image_column", "caption_column", "instance_prompt", "group_column", "fit", "upscale")
OF_METHOD = {
    "rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora",
    "target_modules": "target_modules",
}  # fmt: skip
"""Keys of the method by its options."""
LOSSES = "{folder}: training loss {train_loss:.4f}, held-out loss {held_out_loss:.4f} per element"


def main(arguments: Sequence[str] | None = None) -> int:
    """Split, train, and write the manifest; returns the exit code."""
    return run_job("train_lora", train, _arguments(arguments), LOSSES)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say, and return the manifest."""
    skipped = () if args.epochs is None else ("steps",)
    content = {
        "output": str(args.out),
        "seed": args.seed,
        "base": str(args.base),
        "records": {"kind": "image", "files": args.data, **{n: getattr(args, n) for n in IMAGES}},
        "split": {"members": args.members, "held_out": args.held_out},
        "method": {
            "kind": "dora" if args.dora else "lora",
            **{key: getattr(args, option) for option, key in OF_METHOD.items()},
        },
        "training": {name: getattr(args, name) for name in TRAINING if name not in skipped},
        "epochs": args.epochs,
        "checkpoint_every": args.checkpoint_every,
        "dp": privacy_of(args),
    }
    return run_lora_training(checked(lambda: LoraTrainingSpec.model_validate(content)))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "STEPS", of_a_base=True)
    add = parser.add_argument
    add("--base", required=True, help=LoraTrainingSpec.model_fields["base"].description)
    for name in ("caption_column", "instance_prompt", "group_column"):
        field = TrainedImagesSpec.model_fields[name]
        add(f"--{name.replace('_', '-')}", help=field.description)
    add_settings(parser, TrainedImagesSpec, ["upscale"])
    for option in ("rank", "alpha", "dropout"):
        field = LowRank.model_fields[OF_METHOD[option]]
        add(f"--{option}", type=type(field.default), default=field.default, help=field.description)
    add("--target-modules", nargs="+", help="names of layers, or ends of them; default: attention")
    add("--rslora", action="store_true", help=LowRank.model_fields["use_rslora"].description)
    add("--dora", action="store_true", help=DoraMethod.__doc__)
    add_settings(parser, DiffusionTrainingSpec, [name for name in TRAINING if name != "ema"])
    add("--epochs", type=float, help=LoraTrainingSpec.model_fields["epochs"].description)
    add("--ema", type=float, help=DiffusionTrainingSpec.model_fields["ema"].description)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    end_with(main)
