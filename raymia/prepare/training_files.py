"""What trainings of image models share: their facts, their checkpoints, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from raymia.prepare.captioned import Captioned
from raymia.prepare.fine_tune import HELD_OUT_SHARE
from raymia.storage.files import Folder
from raymia.util.draws import generator
from raymia.util.errors import InputError

FACTS_FILE = "facts.json"
CHECKPOINT = "checkpoint-"

Images = npt.NDArray[np.uint8]
Pictures = TypeVar("Pictures", Images, Captioned)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a training that is saved in a folder."""
    facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    return facts


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write the facts of a training; seen whole or not at all."""
    Folder(str(folder)).write(FACTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())


def gather_checkpoints(out: Path, unit: str) -> None:
    """Write the facts of the last checkpoint in ``out`` beside a list of all.

    Parameters
    ----------
    unit : what checkpoints are numbered by, "step" or "epoch".
    """
    folders = sorted(out.glob(f"{CHECKPOINT}*"), key=lambda p: int(p.name.removeprefix(CHECKPOINT)))
    each = [read_facts(folder) for folder in folders]
    kept = (unit, "train_loss", "held_out_loss", "privacy")
    checkpoints = [
        {"folder": folder.name, **{key: facts[key] for key in kept if key in facts}}
        for folder, facts in zip(folders, each, strict=True)
    ]
    write_facts(out, {**each[-1], "checkpoints": checkpoints})


def finished(out: Path, run: str, last: str) -> dict[str, Any] | None:
    """The facts of a training where it is done; None where it is not.

    Parameters
    ----------
    run : hash of all that the training is a function of.
    last : the file that makes a saved model whole.

    Raises
    ------
    InputError
        If the folder, or a checkpoint in it, is of another training.
    """
    for folder in (out, *out.glob(f"{CHECKPOINT}*")):
        if (folder / FACTS_FILE).is_file() and read_facts(folder).get("run") != run:
            raise InputError(
                f"{folder} is of a training with other images, settings, seed or network; remove "
                "it, or train in another folder"
            )
    if not (out / FACTS_FILE).is_file():
        return None
    facts = read_facts(out)
    return facts if "checkpoints" in facts or (out / last).is_file() else None


def problems_of(
    images: Images,
    measure_on: Images | None,
    shape: Sequence[int],
    min_images: int,
    checkpoint_every: int | None,
) -> list[str]:
    """What of a training's images and checkpoints does not fit.

    Parameters
    ----------
    shape : channels, height and width that the model takes.
    min_images : images to train on, after some were set apart where none are held out.
    """
    problems = []
    if checkpoint_every is not None and checkpoint_every < 1:
        problems.append(f"checkpoints should be one or more apart, but got {checkpoint_every}")
    for what, given, fewest in (
        ("images", images, min_images + (measure_on is None)),
        ("held-out images", measure_on, 1),
    ):
        if given is None:
            continue
        if given.dtype != np.uint8 or given.shape[1:] != tuple(shape):
            problems.append(
                f"{what}: expected uint8 [count, {', '.join(map(str, shape))}], which the model "
                f"takes, but got {given.dtype} {list(given.shape)}"
            )
        elif len(given) < fewest:
            problems.append(f"{what}: expected at least {fewest}, but got {len(given)}")
    return problems


def set_apart(
    images: Pictures, measure_on: Pictures | None, seed: int
) -> tuple[Pictures, Pictures]:
    """Images to train on and images to measure on; a share of the former where none are given."""
    if measure_on is not None:
        return images, measure_on
    order = generator(seed, "held out").permutation(len(images))
    count = max(1, int(HELD_OUT_SHARE * len(images)))
    return images[np.sort(order[count:])], images[np.sort(order[:count])]
