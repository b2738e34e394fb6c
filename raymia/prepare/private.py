"""DP-SGD by opacus, whatever is trained: budget, samples, gradients of single records.

One step takes a Poisson sample of the members: each is in it by a draw of its own, as the
accountant reckons (Abadi et al., CCS 2016). Its gradients are computed a few records at a time, cut
record by record, summed, and given noise once. Batches and noise are functions of the seed and the
step, so that a training that was killed goes on as it would have gone on; who knows the seed can
take the noise off again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from raymia.prepare.trainer import trained_parameters
from raymia.spec.target_training import DpSpec
from raymia.util.draws import generator, stream_key
from raymia.util.errors import InputError, first_line
from raymia.util.listing import listed
from raymia.util.optional import require

CLOSE = 1e-3
"""Of a parameter's gradient: what rounding may make of one record's beside others."""
NOTHING = 1e-5
"""Of a record's whole gradient: what rounding makes of a parameter that has none, as a bias before
a normalization."""

Losses = Callable[[Sequence[int]], torch.Tensor]
"""The losses of records with these numbers, [records]."""


@dataclass(frozen=True)
class Privacy:
    """What a private training adds to its gradients, and what it spends.

    Attributes
    ----------
    noise_multiplier : standard deviation of the noise, in lengths that gradients are cut to.
    sample_rate : chance of each member to be in a step.
    expected_batch : members of a step, on average.
    is_claimed : whether what is spent is said; what holds no records claims nothing.
    """

    spec: DpSpec
    noise_multiplier: float
    sample_rate: float
    expected_batch: int
    steps: int
    is_claimed: bool = True

    def spent(self, steps: int) -> float:
        """Epsilon after some steps, at the delta of the whole."""
        return _epsilon(self.spec, self.noise_multiplier, self.sample_rate, steps)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            **self.spec.model_dump(),
            "noise_multiplier": self.noise_multiplier,
            "sample_rate": self.sample_rate,
            "unit": "record",
        }


@cache
def plan_privacy(spec: DpSpec, members: int, batch: int, steps: int) -> Privacy:
    """Find the noise that keeps a training within its budget.

    Parameters
    ----------
    batch : members of a step, on average.

    Raises
    ------
    InputError
        If no noise does, or delta promises nothing.
    """
    require("opacus", "private trainings", "dp")
    from opacus.accountants.utils import get_noise_multiplier

    if spec.delta * members >= 1:
        raise InputError(
            f"dp.delta: {spec.delta:g} allows a record of {members:,} to be given away as a whole; "
            f"give less than {1 / members:.2g}, a tenth of it or so"
        )
    rate = batch / members
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that another search would need a little less noise
            noise = get_noise_multiplier(
                target_epsilon=spec.epsilon,
                target_delta=spec.delta,
                sample_rate=rate,
                steps=steps,
                accountant=spec.accountant,
                epsilon_tolerance=min(0.01, spec.epsilon / 100),
            )
    except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise InputError(
            f"dp.epsilon: no noise keeps {steps:,} steps, each of a share of {rate:.3g} of the "
            f"members, within {spec.epsilon:g} at a delta of {spec.delta:g} ({first_line(error)}); "
            "give a larger epsilon, fewer steps, or more members"
        ) from None
    return Privacy(spec, float(noise), rate, batch, steps)


def check_gradients(model: torch.nn.Module, losses: Losses, what: str, instead: str) -> None:
    """Refuse a model of which opacus does not find each record's own gradients.

    Two records are computed together and apart; what opacus says of each has to be what it has
    alone.

    Parameters
    ----------
    losses : of two records, by the numbers 0 and 1; the same whenever they are asked for.
    what : the model is, in words.
    instead : what to do.

    Raises
    ------
    InputError
        Naming the layers.
    """
    own = trained_parameters(model)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    buffered = [
        f"{name} ({kinds[name]})"
        for name, module in model.named_modules()
        if any(one.requires_grad for one in module.parameters(recurse=False))
        and any(True for _ in module.buffers(recurse=False))
    ]
    if buffered:
        raise InputError(
            f"dp: {_each(buffered)} keep numbers of the records beside their weights, which no "
            f"noise is added to; {instead}"
        )
    _prepare(model)
    alone = []
    for number in (0, 1):
        model.zero_grad()
        torch.autograd.backward(losses([number]).sum())
        alone.append({n: None if p.grad is None else p.grad.clone() for n, p in own.items()})
    model.zero_grad()
    least = [NOTHING * _length(each.values()) for each in alone]
    try:
        with each_apart(model):
            torch.autograd.backward(losses([0, 1]).sum())
            found = {name: getattr(one, "grad_sample", None) for name, one in own.items()}
        wrong = [
            f"{name} ({kinds.get(name.rpartition('.')[0], '?')})"
            for name in own
            if not _is_apart(found[name], [each[name] for each in alone], least)
        ]
    except Exception as error:  # of any kind, by what a layer does
        raise InputError(
            f"dp: opacus cannot compute the gradients of each record of {what}: "
            f"{first_line(error)}; {instead}"
        ) from error
    finally:
        model.zero_grad()
    if wrong:
        raise InputError(
            f"dp: opacus does not tell the gradients of one record from those of others in "
            f"{_each(wrong)}; {instead}"
        )


@contextmanager
def each_apart(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, opacus keeps the gradients of single records.

    It takes the inputs of convolutions to lie in memory row by row, which they do not after
    diffusers' attention, and would find wrong gradients.
    """
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

    def laid_out(_module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(one.contiguous() for one in inputs)

    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    convolutions = [module for module in model.modules() if isinstance(module, kinds)]
    with ExitStack() as stack:
        for module in convolutions:
            stack.callback(module.register_forward_pre_hook(laid_out).remove)
        hooks = GradSampleHooks(model, loss_reduction="sum", strict=False)
        stack.callback(hooks.cleanup)
        yield


def add_gradients(private: Any, losses: Iterable[torch.Tensor], pieces: int) -> torch.Tensor:
    """Sum the cut gradients of one step, piece by piece, for the optimizer to go by.

    Parameters
    ----------
    private : opacus' optimizer.
    losses : of the records of each piece, computed when it is asked for.
    pieces : how many there are; without any, the step is noise alone.

    Returns
    -------
    The sum of the losses.
    """
    total = torch.zeros(())
    private.zero_grad()
    for number, one in enumerate(losses, 1):
        torch.autograd.backward(one.sum())
        total += one.detach().sum().cpu()
        if number < pieces:
            private.signal_skip_step(True)
            private.step()
            private.zero_grad()
    if not pieces:
        for one in private.params:
            one.grad_sample = one.new_zeros((0, *one.shape))
            one.grad = torch.zeros_like(one)
    return total


def noise_of(seed: int, step: int, device: torch.device) -> torch.Generator:
    """What the noise of a step is drawn by."""
    return torch.Generator(device).manual_seed(stream_key(seed, "noise", step) % 2**63)


def private_optimizer(plain: torch.optim.Optimizer, privacy: Privacy) -> Any:
    """Opacus' optimizer around one that there is."""
    from opacus.optimizers import DPOptimizer

    return DPOptimizer(
        plain,
        noise_multiplier=privacy.noise_multiplier,
        max_grad_norm=privacy.spec.max_grad_norm,
        expected_batch_size=privacy.expected_batch,
    )


class PoissonSamples:
    """Rows of each step: every row is in it by a draw of its own; a step may have none."""

    def __init__(self, rows: int, rate: float, steps: int, seed: int) -> None:
        self.rows, self.rate, self.steps, self.seed = rows, rate, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.of, range(self.steps))

    def of(self, step: int) -> list[int]:
        """The rows of a step."""
        draws = generator(self.seed, "Poisson sample", step).random(self.rows)
        found: list[int] = np.flatnonzero(draws < self.rate).tolist()
        return found


def _prepare(model: Any) -> None:
    """Training mode, which hooks ask for, without dropout."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()


def _length(gradients: Iterable[torch.Tensor | None]) -> float:
    """Of a record's whole gradient."""
    return math.sqrt(sum(float(one.norm()) ** 2 for one in gradients if one is not None))


def _is_apart(found: Any, alone: Sequence[torch.Tensor | None], least: Sequence[float]) -> bool:
    if all(one is None for one in alone):
        return found is None or not bool(found.any())
    if not isinstance(found, torch.Tensor) or len(found) != len(alone):
        return False
    return all(
        one is not None
        and float((got - one).norm()) <= CLOSE * max(float(one.norm()), float(found.norm())) + rest
        for got, one, rest in zip(found, alone, least, strict=True)
    )


def _each(names: Sequence[str]) -> str:
    return listed(list(names), 4)


def _epsilon(spec: DpSpec, noise: float, rate: float, steps: int) -> float:
    from opacus.accountants import create_accountant

    accountant = create_accountant(mechanism=spec.accountant)
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another search would find a little less
        return float(accountant.get_epsilon(delta=spec.delta))
