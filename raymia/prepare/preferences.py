"""Direct preference optimization inside the trainer that trains all others (Rafailov et al. 2023).

With m the log-probability of the chosen answer less that of the rejected one, the loss of a record
is -log sigmoid(beta (m - m_base)) (arXiv 2305.18290, eq. 7). The base is what is trained before it
is trained, or without its adapter, so m_base is asked for once, before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.prepare.text_split import Record
from raymia.prepare.trainer import pad_batch, training_row
from raymia.prepare.tuning import measured
from raymia.records.conversations import NOT_TRAINED
from raymia.util.errors import InputError

AT_A_TIME = 8
"""Records that the base is asked about side by side."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Preferences:
    """Which of two answers is to be preferred, as a training reads them.

    Attributes
    ----------
    beta : weighs preferences.
    training : of the chosen answers.
    """

    beta: float
    tokenizer: Any
    training: Training

    def rows(self, records: Sequence[Record], model: Any) -> list[Row]:
        """Tokens and labels of both answers, and what the base says of them.

        Parameters
        ----------
        model : what is to be trained, before its first step.

        Raises
        ------
        InputError
            For a record of which no token of some answer carries a loss.
        """
        sides = [self._read(records, side) for side in (self.training, self.training.other_side)]
        rows = [{**one, "other": other} for one, other in zip(*sides, strict=True)]
        found: list[Row] = []
        with torch.no_grad(), measured(model), without_adapter(model):
            for start in range(0, len(rows), AT_A_TIME):
                some = rows[start : start + AT_A_TIME]
                margins = margins_of(model, pad_pairs(some)).tolist()
                found += [{**row, "base": m} for row, m in zip(some, margins, strict=True)]
        return found

    def loss_on(self, rows: Sequence[Row], model: Any) -> float:
        """Mean loss of records."""
        losses: list[float] = []
        with torch.no_grad(), measured(model):
            for start in range(0, len(rows), AT_A_TIME):
                batch = pad_pairs(rows[start : start + AT_A_TIME])
                losses += preference_losses(model, batch, self.beta).tolist()
        return sum(losses) / max(1, len(losses))

    def trainer(self) -> Callable[[type], type]:
        """What makes a trainer's class one of preferences."""
        beta = self.beta

        def of_preferences(kind: Any) -> type:
            class OfPreferences(kind):  # type: ignore[misc]
                def __init__(self, **given: Any) -> None:
                    super().__init__(**{**given, "data_collator": pad_pairs})
                    self.model_accepts_loss_kwargs = False  # the loss here is a mean over records

                def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
                    return preference_losses(model, inputs, beta).mean()

            return OfPreferences

        return of_preferences

    def _read(self, records: Sequence[Record], training: Training) -> list[dict[str, list[int]]]:
        found = []
        read = TrainedReader(self.tokenizer, training).read([one.payload for one in records])
        for record, rendered in zip(records, read, strict=True):
            row = training_row(rendered)
            if row is None:
                why = rendered.error or "no token carries a loss"
                raise InputError(f"record {record.id}, {training.side}: {why}")
            found.append(row)
        return found


def pad_pairs(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The chosen answers of records, then the rejected ones, padded to one width; and the base's
    margins."""
    batch = pad_batch([*rows, *(row["other"] for row in rows)])
    if all("base" in row for row in rows):
        batch["base"] = torch.tensor([row["base"] for row in rows])
    return batch


def preference_losses(model: Any, batch: Mapping[str, torch.Tensor], beta: float) -> torch.Tensor:
    """Loss of each record, [records]."""
    margins = margins_of(model, batch)
    return -torch.nn.functional.logsigmoid(beta * (margins - batch["base"].to(margins.device)))


def margins_of(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """How much likelier the chosen answer is than the rejected one, in nats, [records]."""
    given = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
    logits = model(**given, use_cache=False).logits[:, :-1].float()
    labels = batch["labels"][:, 1:].to(model.device)
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", ignore_index=NOT_TRAINED
    )
    chosen, rejected = (-losses.sum(1)).chunk(2)
    margins: torch.Tensor = chosen - rejected
    return margins


@contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """The base of a model that has an adapter, and any other as it is."""
    if not hasattr(model, "disable_adapter"):
        yield
        return
    with model.disable_adapter():
        yield
