"""Several workers that train one model, each on its part of every batch.

A batch is that of one worker, cut into as many parts as there are workers, in the same order: each
worker's loss is the sum over the tokens of its part, divided by the tokens of the whole batch, and
the gradients of all are added up. What is trained is therefore what one worker would train, but for
rounding, and for dropout, of which each worker draws its own. The first worker alone measures,
writes and decides; the others are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from raymia.records.conversations import NOT_TRAINED
from raymia.util.draws import stream_key
from raymia.util.errors import InputError

Found = TypeVar("Found")


def first_says(find: Callable[[], Found]) -> Found:
    """What the first worker finds, told to all; where there is one alone, what it finds."""
    if workers() == 1:
        return find()
    shared: list[Any] = [find() if rank() == 0 else None]
    torch.distributed.broadcast_object_list(shared, src=0)
    found: Found = shared[0]
    return found


def workers() -> int:
    """How many processes train the model."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process among them."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def device_map(is_quantized: bool) -> str | dict[str, int] | None:
    """Where transformers puts the layers of a model that is trained.

    Over all GPUs that this process sees, one after the other: copies of the model, each on a part
    of more batches at once, would be another training. None where the trainer puts the whole model
    on its one device.
    """
    if not torch.cuda.is_available():
        return None
    if torch.cuda.device_count() > 1 and workers() == 1:
        return "auto"
    return {"": torch.cuda.current_device()} if is_quantized else None


def of_several(kind: Any) -> type:
    """A trainer's class as it is in each of several workers."""

    class OfSeveral(kind):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            if not self.model_accepts_loss_kwargs:
                raise InputError(
                    f"resources.num_workers: a {self.model.config.model_type} does not say its "
                    "loss as a sum over tokens, so that several workers would weigh records "
                    "otherwise than one; leave it out"
                )
            if rank():
                torch.manual_seed(stream_key(self.args.seed, "dropout of a worker", rank()))

        def get_train_dataloader(self) -> Any:
            rows = _WithNothing(self.train_dataset)
            size = self.args.per_device_train_batch_size * workers()
            parts = _Parts(len(self.train_dataset), size, self.args.data_seed)
            return _loader(rows, parts, self.data_collator)

        def _save_rng_state(self, output_dir: str) -> None:
            super()._save_rng_state(output_dir)
            torch.distributed.barrier()  # the state is whole when all have written theirs

    return OfSeveral


class _Parts:
    """Rows of this worker's part of each batch; see :func:`part_of`."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        from accelerate.data_loader import SeedableRandomSampler

        self._order = SeedableRandomSampler(range(rows), data_seed=seed)  # as with one worker
        self._rows, self._size = rows, size

    def __len__(self) -> int:
        return -(-self._rows // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self._order)
        for start in range(0, self._rows, self._size):
            batch = order[start : start + self._size]
            yield part_of(batch, rank(), workers()) or [self._rows]

    def set_epoch(self, epoch: int) -> None:
        """Go to the order of an epoch."""
        self._order.set_epoch(epoch)


def part_of(batch: list[int], worker: int, of: int) -> list[int]:
    """The part of a batch that one of several workers computes; parts differ by one row at most.

    >>> [part_of([4, 2, 0, 3, 1], worker, of=2) for worker in (0, 1)]
    [[4, 2, 0], [3, 1]]
    """
    least, rest = divmod(len(batch), of)
    start = worker * least + min(worker, rest)
    return batch[start : start + least + (worker < rest)]


class _WithNothing(torch.utils.data.Dataset[Any]):
    """Rows, and behind them one without a label, for a worker that a batch has no row for."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows) + 1

    def __getitem__(self, number: int) -> Any:
        if number < len(self._rows):
            return self._rows[number]
        row = self._rows[0]
        return {**row, "labels": [NOT_TRAINED] * len(row["input_ids"])}


def _loader(rows: _WithNothing, parts: _Parts, collate: Callable[[Any], Any]) -> Any:
    class Loader(torch.utils.data.DataLoader[Any]):
        def set_epoch(self, epoch: int) -> None:
            parts.set_epoch(epoch)

    return Loader(rows, batch_sampler=parts, collate_fn=collate)
