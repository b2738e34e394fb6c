"""A small residual network that tells two classes of small pictures apart; for learned attacks.

The shape of PFAMI_NNs's network, a CIFAR ResNet18 cut after its second stage, with one block per
stage and fewer channels: it is fitted on hundreds of pictures, on a CPU, in seconds.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from raymia.metrics.learning import one_thread
from raymia.util.draws import generator

Floats = npt.NDArray[np.float64]
Pictures = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

WIDTH = 8
"""Channels of the first stage; the second has twice as many."""

POOLED = 2
"""Side of what the second stage is averaged to: where in the picture something stands counts."""

LARGEST_SIDE = 10
"""Pictures with longer sides are scaled down by the first layer's stride."""

MAX_DEVIATION = 5.0
"""Inputs are cut off at so many standard deviations: ratios have heavy tails."""

MAX_EPOCHS = 15
PATIENCE = 3
EPOCHS_WITHOUT_STOPPING = 10
BATCH = 64
EPOCH = 4_096
"""Pictures per epoch, at most: each epoch draws others."""


@dataclass(frozen=True)
class FittedResNet:
    """A fitted network and the statistics of what it was fitted on.

    Attributes
    ----------
    mean, deviation : [channels, height, width].
    """

    network: nn.Module
    mean: Pictures
    deviation: Pictures

    @torch.inference_mode()
    def log_odds(self, pictures: Pictures) -> Floats:
        """Log-odds of the class True, [pictures]; a picture's own, whatever is judged with it."""
        prepared = _standardized(pictures, self.mean, self.deviation)
        parts = [self.network(part) for part in torch.split(prepared, 256)]
        odds: Floats = torch.cat(parts).double().numpy()
        return odds


def fit_resnet(pictures: Pictures, labels: Flags, stops: Flags) -> FittedResNet:
    """Fit the network; the same pictures in the same order give the same network.

    Parameters
    ----------
    pictures : [pictures, channels, height, width], finite.
    labels : [pictures], of both classes.
    stops : [pictures], those that decide when to stop and teach nothing; where they are not of both
        classes, a fixed number of epochs is run.
    """
    teaches = ~stops
    mean = pictures[teaches].mean(axis=0)
    deviation = np.maximum(pictures[teaches].std(axis=0), 1e-6)
    inputs = _standardized(pictures, mean, deviation)
    targets = torch.from_numpy(labels.astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(pictures.shape[1], max(pictures.shape[2:]))
    held_out = torch.from_numpy(stops)
    can_stop = len(set(labels[stops].tolist())) == 2
    with one_thread():
        _train(
            network,
            (inputs[~held_out], targets[~held_out]),
            (inputs[held_out], targets[held_out]) if can_stop else None,
        )
    return FittedResNet(network.eval(), mean, deviation)


Examples = tuple[torch.Tensor, torch.Tensor]


def _train(network: nn.Module, taught: Examples, held_out: Examples | None) -> None:
    """Leave in the network the weights with the least held-out loss, or the last ones."""
    inputs, targets = taught
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    size = min(BATCH, len(inputs))
    weight = (1 - targets).sum() / targets.sum()
    least, best, waited = math.inf, None, 0
    for epoch in range(MAX_EPOCHS if held_out else EPOCHS_WITHOUT_STOPPING):
        network.train()
        drawn = generator("order of a fit", epoch).permutation(len(inputs))
        order = torch.from_numpy(drawn[:EPOCH])
        for batch in torch.split(order[: len(order) // size * size], size):
            loss = _loss(network(inputs[batch]), targets[batch], weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if held_out is None:
            continue
        network.eval()
        with torch.inference_mode():
            found = float(_loss(network(held_out[0]), held_out[1], weight))
        waited += 1
        if found < least:
            least, best, waited = found, copy.deepcopy(network.state_dict()), 0
        if waited == PATIENCE:
            break
    if best is not None:
        network.load_state_dict(best)


def _loss(odds: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with both classes of equal weight: were odds to follow the classes' shares in
    what was fitted on, they would lean against the shares in what was left out."""
    return functional.binary_cross_entropy_with_logits(odds, targets, pos_weight=weight)


def _standardized(pictures: Pictures, mean: Pictures, deviation: Pictures) -> torch.Tensor:
    scaled = np.clip((pictures - mean) / deviation, -MAX_DEVIATION, MAX_DEVIATION)
    return torch.from_numpy(scaled.astype(np.float32))


def _network(channels: int, side: int) -> nn.Module:
    stride = math.ceil(side / LARGEST_SIDE)
    kernel = 3 if stride == 1 else 2 * stride - 1
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        _Block(WIDTH, WIDTH, stride=1),
        _Block(WIDTH, 2 * WIDTH, stride=2),
        nn.AdaptiveAvgPool2d(POOLED),
        nn.Flatten(),
        nn.Linear(2 * WIDTH * POOLED**2, 1),
        nn.Flatten(0),
    )


class _Block(nn.Module):
    """Two convolutions beside the identity, or beside a projection where the shape changes (He et
    al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.residual(x) + self.shortcut(x))
