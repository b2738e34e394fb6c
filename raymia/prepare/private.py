"""DP-SGD for language models, by opacus, inside the trainer that trains all others.

One step takes a Poisson sample of the members: each is in it by a draw of its own, as the
accountant reckons (Abadi et al., CCS 2016). Its gradients are computed a few records at a time, cut
record by record, summed, and given noise once. Batches and noise are functions of the seed and the
step, so that a training that was killed goes on as it would have gone on; who knows the seed can
take the noise off again.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raymia.prepare.trainer import check_finite, pad_batch, trained_parameters
from raymia.spec.methods import Method
from raymia.spec.target_training import DpSpec
from raymia.util.draws import generator, stream_key
from raymia.util.errors import InputError, first_line
from raymia.util.listing import listed
from raymia.util.optional import require

CLOSE = 1e-3
"""Of a parameter's gradient: what rounding may make of one record's beside others."""

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Privacy:
    """What a private training adds to its gradients, and what it spends.

    Attributes
    ----------
    noise_multiplier : standard deviation of the noise, in lengths that gradients are cut to.
    sample_rate : chance of each member to be in a step.
    expected_batch : members of a step, on average.
    """

    spec: DpSpec
    noise_multiplier: float
    sample_rate: float
    expected_batch: int
    steps: int

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


def check_private(model: Any, method: Method, rows: Sequence[Mapping[str, list[int]]]) -> None:
    """Refuse a model of which opacus does not find each record's own gradients.

    Two records are computed together and apart; what opacus says of each has to be what it has
    alone.

    Raises
    ------
    InputError
        Naming the layers.
    """
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

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
            "noise is added to; train without `dp`, or by a method that leaves them alone"
        )
    _prepare(model)
    alone = []
    for row in rows[:2]:
        model.zero_grad()
        torch.autograd.backward(_losses(model, _on(model, pad_batch([row]))).sum())
        alone.append({n: None if p.grad is None else p.grad.clone() for n, p in own.items()})
    model.zero_grad()
    hooks = GradSampleHooks(model, loss_reduction="sum", strict=False)
    try:
        torch.autograd.backward(_losses(model, _on(model, pad_batch(rows[:2]))).sum())
        wrong = [
            f"{name} ({kinds.get(name.rpartition('.')[0], '?')})"
            for name, one in own.items()
            if not _is_apart(getattr(one, "grad_sample", None), [each[name] for each in alone])
        ]
    except Exception as error:  # of any kind, by what a layer does
        raise InputError(
            f"dp: opacus cannot compute the gradients of each record of a "
            f"{model.config.model_type} that is trained by {method.kind}: {first_line(error)}; "
            f"{_instead(method)}"
        ) from error
    finally:
        hooks.cleanup()
        model.zero_grad()
    if wrong:
        raise InputError(
            f"dp: opacus does not tell the gradients of one record from those of others in "
            f"{_each(wrong)}; {_instead(method)}"
        )


def private_trainer(privacy: Privacy, seed: int) -> Callable[[type], type]:
    """What makes a trainer's class one of private trainings."""

    def private(kind: Any) -> type:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
        from opacus.optimizers import DPOptimizer
        from torch.utils.data import DataLoader

        class Private(kind):  # type: ignore[misc]
            def get_train_dataloader(self) -> Any:
                samples = PoissonSamples(
                    len(self.train_dataset), privacy.sample_rate, privacy.steps, seed
                )
                return DataLoader(
                    self.train_dataset, batch_sampler=samples, collate_fn=self.data_collator
                )

            private: Any
            optimizer: Any

            def create_optimizer(self, *given: Any, **options: Any) -> Any:
                self.hooks = GradSampleHooks(self.model, loss_reduction="sum", strict=False)
                plain = super().create_optimizer(*given, **options)
                self.optimizer = self.private = DPOptimizer(
                    plain,
                    noise_multiplier=privacy.noise_multiplier,
                    max_grad_norm=privacy.spec.max_grad_norm,
                    expected_batch_size=privacy.expected_batch,
                )
                return self.optimizer

            def training_step(self, model: Any, inputs: Batch, *_: Any) -> torch.Tensor:
                model.train()
                private, step = self.private, self.state.global_step
                private.zero_grad()
                count = len(inputs["input_ids"])
                total = torch.zeros((), device=self.args.device)
                size = self.args.per_device_train_batch_size
                starts = range(0, count, size)
                for start in starts:
                    part = {name: table[start : start + size] for name, table in inputs.items()}
                    with self.compute_loss_context_manager():
                        losses = _losses(model, _on(self.model, part))
                    torch.autograd.backward(losses.sum())
                    total += losses.detach().sum()
                    if start != starts[-1]:
                        private.signal_skip_step(True)
                        private.step()
                        private.zero_grad()
                if not count:
                    for one in private.params:
                        one.grad_sample = one.new_zeros((0, *one.shape))
                        one.grad = torch.zeros_like(one)
                key = stream_key(seed, "noise", step) % 2**63
                private.generator = torch.Generator(self.args.device).manual_seed(key)
                mean = total / max(1, count)
                check_finite(mean, step, self.args.learning_rate)
                return mean

            def train(self, *given: Any, **options: Any) -> Any:
                try:
                    return super().train(*given, **options)
                finally:
                    if hasattr(self, "hooks"):
                        self.hooks.cleanup()

        return Private

    return private


class PoissonSamples:
    """Rows of each step: every row is in it by a draw of its own; a step may have none."""

    def __init__(self, rows: int, rate: float, steps: int, seed: int) -> None:
        self.rows, self.rate, self.steps, self.seed = rows, rate, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            draws = generator(self.seed, "Poisson sample", step).random(self.rows)
            yield np.flatnonzero(draws < self.rate).tolist()


def _losses(model: Any, batch: Batch) -> torch.Tensor:
    """The loss of each record, in nats per token, [records]."""
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if "position_ids" in inspect.signature(_innermost(model).forward).parameters:
        # Made by the model they are one row for all records, whose gradients would be one.
        rows, width = batch["input_ids"].shape
        places = torch.arange(width, device=batch["input_ids"].device)
        given["position_ids"] = places.expand(rows, width)
    logits = model(**given, use_cache=False).logits[:, :-1].float()
    labels = batch["labels"][:, 1:]
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", ignore_index=-100
    )
    counts = (labels != -100).sum(1)
    total: torch.Tensor = losses.sum(1) / counts.clamp(min=1)
    return total


def _innermost(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _prepare(model: Any) -> None:
    """Training mode, which hooks ask for, without dropout."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()


def _is_apart(found: Any, alone: Sequence[torch.Tensor | None]) -> bool:
    if all(one is None for one in alone):
        return found is None or not bool(found.any())
    if not isinstance(found, torch.Tensor) or len(found) != len(alone):
        return False
    return all(
        one is not None
        and bool((got - one).norm() <= CLOSE * max(float(one.norm()), float(found.norm())))
        for got, one in zip(found, alone, strict=True)
    )


def _on(model: Any, batch: Batch) -> Batch:
    return {name: table.to(model.device) for name, table in batch.items()}


def _instead(method: Method) -> str:
    return f"take {'`lora`' if method.kind == 'full' else '`lora` or `full`'}, or leave out `dp`"


def _each(names: Sequence[str]) -> str:
    return listed(list(names), 4)


def _epsilon(spec: DpSpec, noise: float, rate: float, steps: int) -> float:
    from opacus.accountants import create_accountant

    accountant = create_accountant(mechanism=spec.accountant)
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another search would find a little less
        return float(accountant.get_epsilon(delta=spec.delta))
