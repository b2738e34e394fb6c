"""The training of an image model from where it stands to the models that it saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from raymia.prepare.fine_tune import MAX_MEASURED
from raymia.prepare.trainer import Progress
from raymia.prepare.training_files import CHECKPOINT, Pictures, gather_checkpoints, read_facts
from raymia.prepare.training_state import (
    STATE_FILE,
    Progressed,
    Weights,
    load_state,
    save_state,
)
from raymia.util.errors import RaymiaError
from raymia.util.hashing import digest, digest_bytes

Images = npt.NDArray[np.uint8]
Given = TypeVar("Given", contravariant=True)


class Training(Protocol[Given]):
    """A network that is being trained.

    Attributes
    ----------
    unit : what it is trained by at a time, "step" or "epoch"; checkpoints are numbered by it.
    network, optimizer : whose state is kept.
    mean : the running mean of the weights, by parameter; None where none is kept.
    done, total : of the unit, behind it and in all.
    steps : of the optimizer that are behind it.
    """

    unit: ClassVar[str]
    optimizer: torch.optim.AdamW
    mean: Weights | None

    @property
    def network(self) -> torch.nn.Module: ...

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def go_to(self, steps: int) -> None:
        """Go on after so many steps of the optimizer, whose state has been put back."""

    def advance(self) -> None:
        """Train for one of the unit."""

    def as_saved(self) -> AbstractContextManager[None]:
        """The network as it is saved and measured, for a while."""

    def facts(self) -> dict[str, Any]:
        """What is said of it beside losses and time."""

    def loss_on(self, images: Given) -> float:
        """Mean loss, of the network as it is saved."""


def run_of(train: Images, held_out: Images, parts: Mapping[str, Any]) -> str:
    """Hash all that a training is a function of.

    Parameters
    ----------
    parts : beside the images; JSON-serializable.
    """
    images = {"train": train, "held_out": held_out}
    hashes = {n: digest_bytes(np.ascontiguousarray(i).tobytes()) for n, i in images.items()}
    return digest({**hashes, **parts})


def refuse_no_number(loss: torch.Tensor, step: int) -> None:
    """Stop a training whose loss is no number.

    Parameters
    ----------
    step : counted from 1.

    Raises
    ------
    RaymiaError
        With the step, and what to try.
    """
    if not torch.isfinite(loss):
        raise RaymiaError(
            f"step {step}: the training has diverged: its loss is {loss.item():.4g}; give a "
            "smaller learning_rate, as a tenth, and train in another folder"
        )


def run_training(
    training: Training[Pictures],
    train: Pictures,
    held_out: Pictures,
    out: Path,
    run: str,
    *,
    write: Callable[[Path, dict[str, Any]], None],
    state_every: int,
    checkpoint_every: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Train to the end, from the state that a killed training left in ``out`` where there is one.

    Parameters
    ----------
    train, held_out : images of which losses are said, 256 each at most.
    run : hash of all that the training is a function of.
    write : saves the network with its facts in a folder.
    state_every, checkpoint_every : in the training's unit; see :func:`train_denoiser`.
    progress : told what is done and the total, first of where it goes on.

    Returns
    -------
    The facts in ``out``.
    """
    saved = load_state(out, run, training.network, training.optimizer, training.mean)
    training.go_to(saved.step)
    started = time.monotonic()

    def seconds() -> float:
        return round(saved.seconds + time.monotonic() - started, 3)

    def save(folder: Path) -> None:
        trained_for = seconds()
        with training.as_saved():
            facts = {
                "images": len(train),
                "held_out_images": len(held_out),
                **training.facts(),
                "parameters": sum(p.numel() for p in training.network.parameters()),
                "train_loss": training.loss_on(train[:MAX_MEASURED]),
                "held_out_loss": training.loss_on(held_out[:MAX_MEASURED]),
                "seconds": trained_for,
                "run": run,
            }
            write(folder, facts)

    progress(training.done, training.total)
    while training.done < training.total:
        training.advance()
        done, is_last = training.done, training.done == training.total
        is_checkpoint = checkpoint_every is not None and done % checkpoint_every == 0
        if checkpoint_every is not None and (is_checkpoint or is_last):
            save(out / f"{CHECKPOINT}{done}")
        if not is_last and (is_checkpoint or done % state_every == 0):
            now = Progressed(training.steps, seconds())
            save_state(out, run, now, training.network, training.optimizer, training.mean)
        progress(done, training.total)
    if checkpoint_every is None:
        save(out)
    else:
        gather_checkpoints(out, training.unit)
    (out / STATE_FILE).unlink(missing_ok=True)
    return read_facts(out)
