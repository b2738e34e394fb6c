"""DP-SGD for language models, inside the trainer that trains all others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from raymia.prepare.private import (
    PoissonSamples,
    Privacy,
    add_gradients,
    check_gradients,
    noise_of,
    private_optimizer,
)
from raymia.prepare.trainer import check_finite, pad_batch
from raymia.spec.methods import Method

Batch = Mapping[str, torch.Tensor]


def check_private(model: Any, method: Method, rows: Sequence[Mapping[str, list[int]]]) -> None:
    """Refuse a model of which opacus does not find each record's own gradients.

    Raises
    ------
    InputError
        Naming the layers.
    """
    instead = f"take {'`lora`' if method.kind == 'full' else '`lora` or `full`'}, or leave out `dp`"

    def losses(numbers: Sequence[int]) -> torch.Tensor:
        return _losses(model, _on(model, pad_batch([rows[number] for number in numbers])))

    what = f"a {model.config.model_type} that is trained by {method.kind}"
    check_gradients(model, losses, what, instead)


def private_trainer(privacy: Privacy, seed: int) -> Callable[[type], type]:
    """What makes a trainer's class one of private trainings."""

    def private(kind: Any) -> type:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
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
                self.optimizer = self.private = private_optimizer(plain, privacy)
                return self.optimizer

            def training_step(self, model: Any, inputs: Batch, *_: Any) -> torch.Tensor:
                model.train()
                step, size = self.state.global_step, self.args.per_device_train_batch_size
                count = len(inputs["input_ids"])
                starts = range(0, count, size)

                def losses(start: int) -> torch.Tensor:
                    part = {name: table[start : start + size] for name, table in inputs.items()}
                    with self.compute_loss_context_manager():
                        return _losses(model, _on(self.model, part))

                total = add_gradients(self.private, map(losses, starts), len(starts))
                self.private.generator = noise_of(seed, step, self.args.device)
                mean = total / max(1, count)
                check_finite(mean, step, self.args.learning_rate)
                return mean.to(self.args.device)

            def train(self, *given: Any, **options: Any) -> Any:
                try:
                    return super().train(*given, **options)
                finally:
                    if hasattr(self, "hooks"):
                        self.hooks.cleanup()

        return Private

    return private


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


def _on(model: Any, batch: Batch) -> Batch:
    return {name: table.to(model.device) for name, table in batch.items()}
