"""What the scripts that train targets share: reading images, progress, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from pydantic import BaseModel, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raymia.prepare.image_split import ImageSplit, split_and_write
from raymia.prepare.trainer import Progress as Report
from raymia.records.image_files import find_images
from raymia.records.images import pixels_array, read_image_records
from raymia.records.pixels import UnusableImageError, quiet, shape_of
from raymia.spec import ImageRecordsSpec
from raymia.spec.images import Fit, Shape
from raymia.spec.target_training import DpSpec
from raymia.storage.manifest import write_manifest
from raymia.util.credentials import hidden, say
from raymia.util.errors import InputError, RaymiaError
from raymia.util.listing import FEW, listed

Made = TypeVar("Made")


def make_parser(
    script: str | None, unit: str, *, of_a_base: bool = False
) -> argparse.ArgumentParser:
    """A parser of the arguments that every such script takes.

    Parameters
    ----------
    script : what the script says of itself, which begins with what it does.
    unit : what checkpoints are apart in, "STEPS" or "EPOCHS".
    of_a_base : whether a model that there is already says which images it takes.
    """
    parser = argparse.ArgumentParser(
        description=(script or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", required=True, help="folder, table or tar of images")
    add("--image-column", default="image", help="of a table")
    add("--fit", choices=get_args(Fit), default="exact", help="what is done to other sizes")
    add("--out", type=Path, required=True, help="folder for everything that is written")
    if not of_a_base:
        shape = ("CHANNELS", "HEIGHT", "WIDTH")
        add("--shape", type=int, nargs=3, required=True, metavar=shape)
    add("--members", type=int, required=True, help="images to train on")
    add("--held-out", type=int, required=True, help="images that are not trained on")
    add("--checkpoint-every", type=int, metavar=unit, help="the last is saved in any case")
    add("--seed", type=int, default=0, help="of the split, the weights and the training")
    add("--threads", type=int, help="of torch; all cores if not given")
    private = parser.add_argument_group("private training, by opacus of raymia[train]")
    for name, field in DpSpec.model_fields.items():
        kind = {"choices": get_args(field.annotation)} if name == "accountant" else {"type": float}
        private.add_argument(f"--dp-{name.replace('_', '-')}", help=field.description, **kind)
    return parser


def privacy_of(args: argparse.Namespace) -> DpSpec | None:
    """What a script is asked for of a private training; None where it is not asked for one.

    Raises
    ------
    InputError
        If a budget lacks its epsilon or delta, or is none.
    """
    given = {name: getattr(args, f"dp_{name}") for name in DpSpec.model_fields}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    lacking = [f"--dp-{name}" for name in ("epsilon", "delta") if name not in given]
    if lacking:
        raise InputError(f"a private training needs {' and '.join(lacking)}, too")
    return checked(lambda: DpSpec(**given))


def add_settings(
    parser: argparse.ArgumentParser, settings: type[BaseModel], names: Sequence[str]
) -> None:
    """Fields of a section of the audit file as options; a flag for what is false by default."""
    for name in names:
        field, option = settings.model_fields[name], f"--{name.replace('_', '-')}"
        default, text = field.default, field.description
        if default is False:
            parser.add_argument(option, action="store_true", help=text)
        else:
            parser.add_argument(option, type=type(default), default=default, help=text)


def finish(
    out: Path,
    data: str,
    model: Mapping[str, Any],
    settings: BaseModel,
    split: ImageSplit,
    set_aside: int,
    facts: Mapping[str, Any],
    dp: DpSpec | None = None,
) -> dict[str, Any]:
    """Write the manifest of a target that is trained, and return it.

    Parameters
    ----------
    data : where the images are from.
    model : what is said of the model before the rest.
    """
    manifest = {
        **model,
        "training": settings.model_dump(),
        **({} if dp is None else {"privacy": {**dp.model_dump(), "unit": "record"}}),
        "data": hidden(data),
        "images_set_aside": set_aside,
        "records": dict(split.records),
        **split.facts,
        **{key: facts[key] for key in ("parameters", "seconds", "checkpoints")},
    }
    return write_manifest(out, manifest, ImageRecordsSpec.manifest)


def run_job(
    name: str,
    train: Callable[[argparse.Namespace], dict[str, Any]],
    args: argparse.Namespace,
    losses: str,
) -> int:
    """Train, print the losses of each checkpoint, and return the exit code.

    Parameters
    ----------
    train : does what the arguments say, and returns the manifest.
    losses : of a checkpoint in words, as a format of its facts.
    """
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    try:
        manifest = train(args)
    except RaymiaError as error:
        say(f"{name}: {error}", sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    for checkpoint in manifest["checkpoints"]:
        say(losses.format(**checkpoint))
    return 0


def checked(make: Callable[[], Made]) -> Made:
    """What is made of the arguments; what pydantic refuses becomes an InputError."""
    try:
        return make()
    except ValidationError as error:
        raise InputError(
            f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}"
            for problem in error.errors()
        ) from None


@dataclass(frozen=True)
class Drawn:
    """What of the images is drawn.

    Attributes
    ----------
    members, held_out : images on each side.
    out : the folder that they are written in; None for nowhere.
    """

    members: int
    held_out: int
    seed: int
    out: Path | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Drawn:
        """What a script is asked for."""
        return cls(args.members, args.held_out, args.seed, args.out)


def records_of(args: argparse.Namespace, caption_column: str | None = None) -> ImageRecordsSpec:
    """The images that a script is given."""
    return ImageRecordsSpec(
        kind="image",
        candidates=[str(args.data)],
        image_column=args.image_column,
        caption_column=caption_column,
        fit=args.fit,
    )


def read_and_split(
    spec: ImageRecordsSpec,
    shape: Shape,
    drawn: Drawn,
    *,
    one_caption: str | None = None,
    enlarges: bool = True,
) -> tuple[ImageSplit, int]:
    """Members and held-out images, and how many could not be used.

    Parameters
    ----------
    one_caption : of all images, in place of a column.
    enlarges : whether images that are smaller than the shape may be scaled up.

    Raises
    ------
    InputError
        If images cannot be read or split, or would have to be scaled up.
    """
    if not enlarges and spec.fit != "exact":  # which sets other sizes aside
        _refuse_small(spec, shape)
    records = read_image_records(spec, shape)
    payloads = records.table["payload"].to_pylist()
    captions = None if one_caption is None else [one_caption] * len(payloads)
    if spec.caption_column is not None:
        captions = [payload["caption"] or "" for payload in payloads]
    images = pixels_array(payloads, shape)
    groups = None if spec.group_column is None else records.table["group"].to_pylist()
    split = split_and_write(
        images, captions, drawn.members, drawn.held_out, drawn.seed, drawn.out, groups
    )
    return split, len(records.set_aside)


def _refuse_small(spec: ImageRecordsSpec, shape: Shape) -> None:
    _, height, width = shape
    small, total = [], 0
    with quiet():
        for path in spec.candidates:
            for found in find_images(path, spec, with_groups=False):
                try:
                    _, own_height, own_width = shape_of(found.load().content)
                except UnusableImageError:
                    continue  # set aside when it is read
                total += 1
                if own_height < height or own_width < width:
                    small.append(f"{found.where} {own_height} x {own_width}")
    if small:
        raise InputError(
            f"{len(small):,} of {total:,} images are smaller than the {height} x {width} pixels "
            f"that the model is trained on ({listed(small, FEW)}), and would be scaled up; take "
            "them out, or say `upscale`"
        )


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Report]:
    """A bar on the terminal, and what it is told progress by."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
