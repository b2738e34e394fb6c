"""Training autoencoders: targets, checkpoints along training, and references."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from raymia.draws import generator, normals, stream_key
from raymia.errors import InputError
from raymia.files import Folder
from raymia.hashing import digest, digest_bytes
from raymia.models.autoencoder import Autoencoder
from raymia.models.image_source import OWN_AUTOENCODER, read_json
from raymia.models.kl_autoencoder import build_kl_autoencoder
from raymia.models.vae import (
    AutoencoderConfig,
    AutoencoderNetwork,
    build_autoencoder,
    read_config,
)
from raymia.spec.images import AutoencoderTrainingSpec

Images = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with (done, total), in steps."""

FACTS_FILE = "facts.json"
STATE_FILE = "training.safetensors"
MAX_MEASURED = 256
MEASURING_DRAWS = 4


class AutoencoderTraining:
    """A training that goes on epoch by epoch.

    The order of an epoch and its noise are a function of (seed, epoch), so a training that is
    stopped after an epoch and goes on from its saved state makes the same weights; on a CPU, to the
    bit.

    Parameters
    ----------
    network : with fresh weights; it is trained in float32, on the GPU where there is one.
    images : uint8 [count, channels, height, width].
    """

    def __init__(
        self,
        network: AutoencoderNetwork,
        images: Images,
        settings: AutoencoderTrainingSpec,
        seed: int,
    ) -> None:
        _check(images, network.image_shape, "images to train on")
        if len(images) < 2:
            raise InputError("an autoencoder is trained on two images or more")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).train()
        self.images = images
        self.settings = settings
        self.seed = seed
        self.epoch = 0
        self.optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        self.steps_per_epoch = -(-len(images) // settings.batch_size)
        self._initial = {name: t.detach().cpu() for name, t in network.state_dict().items()}

    def run_epoch(self, after_step: Callable[[int], None]) -> None:
        """Train on every image once; ``after_step`` is told the steps done since the start.

        Batches are of equal size, give or take one: a batch of one image has no statistics.
        """
        self.network.train()
        order = generator(self.seed, "order", self.epoch).permutation(len(self.images))
        random = torch.Generator().manual_seed(stream_key(self.seed, "noise", self.epoch))
        done = self.epoch * self.steps_per_epoch
        for step, rows in enumerate(np.array_split(order, self.steps_per_epoch), start=1):
            loss = self.network.training_loss(self._tensor(self.images[rows]), random)
            if not torch.isfinite(loss):
                raise InputError(
                    f"the loss is not finite in epoch {self.epoch + 1}; lower learning_rate"
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            after_step(done + step)
        self.epoch += 1

    def save_model(self, folder: Path, measure_on: Images | None) -> dict[str, Any]:
        """Save the model as it is now, with ``facts.json``, and return the facts.

        The losses are means over at most 256 images, of the loss that an audit will ask for.
        """
        self.network.eval()
        chosen = generator(self.seed, "centroids").permutation(len(self.images))
        self.network.finish(self._tensor(self.images[chosen]))
        facts = {
            "images": len(self.images),
            "epochs": self.epoch,
            "steps": self.epoch * self.steps_per_epoch,
            "train_loss": self._mean_loss(self.images),
            "held_out_loss": None if measure_on is None else self._mean_loss(measure_on),
        }
        self.network.save(folder)
        Folder(str(folder)).write(FACTS_FILE, (json.dumps(facts, indent=2) + "\n").encode())
        return facts

    def save_state(self, folder: Path) -> None:
        """Write what :meth:`load_state` goes on from."""
        tensors = {f"model.{n}": t for n, t in self.network.state_dict().items() if self._kept(n)}
        for place, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": t for name, t in state.items()}
        metadata = {"training": self._digest(), "epoch": str(self.epoch)}
        held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        Folder(str(folder)).write(STATE_FILE, safetensors.torch.save(held, metadata))

    def load_state(self, folder: Path) -> bool:
        """Go on from a state that was saved to this folder; False where there is none.

        Raises
        ------
        InputError
            If it is of another training: other images, model, settings or seed.
        """
        file = folder / STATE_FILE
        if not file.is_file():
            return False
        with safetensors.safe_open(file, framework="pt") as content:
            metadata = content.metadata()
            if metadata["training"] != self._digest():
                raise InputError(
                    f"{file} is of a training on other images or with other settings; remove the "
                    "folder, or name another"
                )
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        model = {n[len("model.") :]: t for n, t in tensors.items() if n.startswith("model.")}
        self.network.load_state_dict(model, strict=False)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, place, key = name.split(".")
                state.setdefault(int(place), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.epoch = int(metadata["epoch"])
        return True

    def _kept(self, name: str) -> bool:
        """Whether a tensor is there from the start, and not made by ``finish``."""
        return bool(self.network.state_dict()[name].shape == self._initial[name].shape)

    def _digest(self) -> str:
        """Hash of everything that decides what is learned, the number of epochs apart."""
        settings = self.settings.model_dump(exclude={"epochs"})
        initial = {n: digest_bytes(t.numpy().tobytes()) for n, t in self._initial.items()}
        images = digest_bytes(np.ascontiguousarray(self.images).tobytes())
        return digest([settings, self.seed, initial, images])

    def _tensor(self, images: Images) -> torch.Tensor:
        return torch.from_numpy(images).to(self.device, torch.float32) / 255

    def _mean_loss(self, images: Images) -> float:
        some = self._tensor(images[:MAX_MEASURED])
        size = self.network.noise_size
        keys = torch.tensor([stream_key("measuring", i) for i in range(len(some))])
        noise = normals(keys, MEASURING_DRAWS * size).reshape(len(some), MEASURING_DRAWS, size)
        asked = Autoencoder(self.network, batch_images=64).terms(some, noise)
        return round(float(asked["loss"].double().mean()), 4)


def train_autoencoder(
    images: Images,
    config: AutoencoderConfig,
    settings: AutoencoderTrainingSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Images | None = None,
) -> dict[str, Any]:
    """Train an autoencoder on images and save it to ``out``.

    Deterministic given the seed on a CPU. Adam with a constant learning rate, in float32.

    Parameters
    ----------
    images : uint8 [count, channels, height, width], of the config's shape.
    measure_on : held-out images for the held-out loss.

    Returns
    -------
    The facts of the training, also in ``out/facts.json``: images, epochs, steps, seconds, and the
    losses in nats per image, on at most 256 images each; held_out_loss is None without
    ``measure_on``.

    Raises
    ------
    InputError
        If the images are of another shape than the config's, fewer than two, or the loss diverges.
    """
    return _train(_fresh(config, seed), images, settings, out, seed, progress, measure_on)


def train_like(
    folder: Path,
    images: Images,
    settings: AutoencoderTrainingSpec,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    measure_on: Images | None = None,
) -> dict[str, Any]:
    """Train a fresh autoencoder of the same config as a checkpoint's, on other images.

    Parameters
    ----------
    folder : a checkpoint of raymia's own autoencoders, or of AutoencoderKL; its weights are not
        read.
    images, settings, out, seed, progress, measure_on : as for :func:`train_autoencoder`.
    """
    if read_json(folder / "config.json", "autoencoder").get("_class_name") == OWN_AUTOENCODER:
        network: AutoencoderNetwork = _fresh(read_config(folder), seed)
    else:
        torch.manual_seed(seed)
        network = build_kl_autoencoder(folder)
    return _train(network, images, settings, out, seed, progress, measure_on)


def train_checkpoints(
    images: Images,
    config: AutoencoderConfig,
    settings: AutoencoderTrainingSpec,
    out: Path,
    *,
    every: int,
    seed: int,
    progress: Progress,
    measure_on: Images | None = None,
) -> list[dict[str, Any]]:
    """Train an autoencoder and save it every few epochs, and at the end, to
    ``out/checkpoint-EPOCH``.

    A call that was interrupted goes on from the last checkpoint when it is made again, and so does
    one with more epochs.

    Returns
    -------
    The facts of each checkpoint, as :func:`train_autoencoder` gives them, with its ``folder``.

    Raises
    ------
    InputError
        As for :func:`train_autoencoder`, and if ``out`` holds a training on other images or with
        other settings.
    """
    if every < 1:
        raise InputError(f"checkpoints should be one epoch or more apart, but got {every}")
    training = AutoencoderTraining(_fresh(config, seed), images, settings, seed)
    training.load_state(out)
    if training.epoch > settings.epochs:
        raise InputError(
            f"{out} holds a training of {training.epoch} epochs, and {settings.epochs} are wanted; "
            "remove the folder, or name another"
        )
    total = settings.epochs * training.steps_per_epoch
    progress(training.epoch * training.steps_per_epoch, total)
    while training.epoch < settings.epochs:
        training.run_epoch(lambda done: progress(done, total))
        if training.epoch % every == 0 or training.epoch == settings.epochs:
            training.save_model(_checkpoint(out, training.epoch), measure_on)
            training.save_state(out)
    saved = [epoch for epoch in range(1, settings.epochs + 1) if _facts(out, epoch).is_file()]
    return [
        {"folder": _checkpoint(out, epoch).name, **json.loads(_facts(out, epoch).read_text())}
        for epoch in saved
    ]


def _checkpoint(out: Path, epoch: int) -> Path:
    return out / f"checkpoint-{epoch}"


def _facts(out: Path, epoch: int) -> Path:
    return _checkpoint(out, epoch) / FACTS_FILE


def _fresh(config: AutoencoderConfig, seed: int) -> AutoencoderNetwork:
    torch.manual_seed(seed)
    return build_autoencoder(config)


def _train(
    network: AutoencoderNetwork,
    images: Images,
    settings: AutoencoderTrainingSpec,
    out: Path,
    seed: int,
    progress: Progress,
    measure_on: Images | None,
) -> dict[str, Any]:
    started = time.monotonic()
    if measure_on is not None:
        _check(measure_on, network.image_shape, "held-out images")
    training = AutoencoderTraining(network, images, settings, seed)
    total = settings.epochs * training.steps_per_epoch
    for _ in range(settings.epochs):
        training.run_epoch(lambda done: progress(done, total))
    facts = training.save_model(out, measure_on)
    return facts | {"seconds": round(time.monotonic() - started, 1)}


def _check(images: Images, shape: Sequence[int], what: str) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != tuple(shape):
        raise InputError(
            f"{what} should be uint8 [count, {', '.join(map(str, shape))}], but got "
            f"{images.dtype} {list(images.shape)}"
        )
