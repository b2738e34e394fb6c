"""Micro-batches: sorted by length, bounded by padded tokens, halved when memory runs out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from heapq import heapreplace
from itertools import accumulate, takewhile
from typing import TypeVar

import torch

from raymia.models.lanes import run_in_lanes
from raymia.util.errors import RaymiaError

Answer = TypeVar("Answer")


TOO_LARGE = "out of memory on a single image; give the model a quantization, or a larger device"
MAX_PADDING = 1 / 8
"""Share of a forward pass that may be padding."""


def worthwhile_tokens(budget: int) -> int:
    """Tokens from which on a batch is no slower per token than a larger one: few on a CPU, where
    padding costs what tokens cost, and many on a GPU, which a small batch leaves idle."""
    return min(budget, budget // 2 if torch.cuda.is_available() else 256)


def length_sorted_batches(
    lengths: Sequence[int],
    budget: int,
    max_rows: int | None,
    min_tokens: int | None = None,
    apart: int | None = None,
    is_padded: bool = True,
) -> Iterator[list[int]]:
    """Yield lists of indices, the longest first, so that padding is small and a lack of memory
    shows at once.

    Parameters
    ----------
    lengths : tokens per sequence.
    budget : tokens per batch, with padding; a longer sequence is a batch of its own.
    max_rows : largest number of sequences per batch; None sets no limit.
    min_tokens : a batch of so many padded tokens is ended before more than an eighth of it is
        padding; None never ends one for that.
    apart : sequences of more tokens are in no batch with those of as many or fewer; None lets them.
    is_padded : whether all sequences of a batch take as much room as its longest; else a batch is
        ended by its budget alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        if is_padded:
            rows = max(1, budget // max(1, lengths[order[start]]))
        else:
            used = accumulate(lengths[i] for i in order[start:])
            rows = max(1, sum(1 for _ in takewhile(lambda tokens: tokens <= budget, used)))
        rows = min(rows, max_rows) if max_rows is not None else rows
        if apart is not None and lengths[order[start]] > apart:
            longer = sum(lengths[i] > apart for i in order[start : start + rows])
            rows = min(rows, longer)
        if is_padded and min_tokens is not None:
            rows = _without_much_padding(
                [lengths[i] for i in order[start : start + rows]], min_tokens
            )
        yield order[start : start + rows]
        start += rows


def _without_much_padding(lengths: list[int], min_tokens: int) -> int:
    """How many of these sequences, the longest first, make a batch."""
    used = 0
    for rows, length in enumerate(lengths, start=1):
        used += length
        padded = rows * lengths[0]
        if padded - used > MAX_PADDING * padded and (rows - 1) * lengths[0] >= min_tokens:
            return rows - 1
    return len(lengths)


def even_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield lists of indices of nearly as many tokens each, so that batches that are run side by
    side end at the same time; as few as fit, the longest sequences first in each.

    Parameters
    ----------
    budget : tokens per batch, at least twice those of the longest sequence.
    """
    parts = _up(sum(lengths), max(1, budget - max(lengths) + 1))
    used = [(0, part) for part in range(parts)]
    batches: list[list[int]] = [[] for _ in used]
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        tokens, part = used[0]
        batches[part].append(i)
        heapreplace(used, (tokens + lengths[i], part))
    yield from filter(None, batches)


def run_batched(
    lengths: Sequence[int],
    *runs: Callable[[list[int]], Sequence[Answer]],
    budget: int,
    max_rows: int | None = None,
    min_tokens: int | None = None,
    apart: int | None = None,
    is_padded: bool = True,
    alone: str = "out of memory on one sequence of {} tokens; give the model a smaller "
    "max_tokens, a quantization, or a larger device",
) -> list[Answer]:
    """Run a function over length-sorted micro-batches and return its answers in input order.

    A batch that runs out of memory is split in two, again and again, and the budget of the batches
    after it is halved; a single sequence that does not fit is an error.

    Parameters
    ----------
    runs : the function; several run batches side by side (:mod:`raymia.models.lanes`) and share the
        budget.
    alone : that error's text, with a place for the sequence's length.
    """
    answers: dict[int, Answer] = {}
    pending = list(range(len(lengths)))
    while pending:
        lanes, turn = _turn(lengths, pending, budget, len(runs))
        batch_lengths = [lengths[i] for i in turn]
        share = _share(batch_lengths, budget, lanes, min_tokens or 1)
        is_free = not is_padded and max_rows is None and apart is None
        if lanes > 1 and is_free and 2 * max(batch_lengths) <= share:
            parted = even_batches(batch_lengths, share)
        else:
            parted = length_sorted_batches(
                batch_lengths, share, max_rows, min_tokens, apart, is_padded
            )
        batches = [[turn[i] for i in batch] for batch in parted]
        found, failure = run_in_lanes(runs[:lanes], batches)
        for batch, results in found:
            answers.update(zip(batch, results, strict=True))
        if failure is not None:
            failed, error = failure
            del failure
            if not is_out_of_memory(error):
                raise error
            # What the frames of the batch hold would be missing to the next.
            traceback.clear_frames(error.__traceback__)
            if len(failed) == 1 and lanes == 1:
                raise RaymiaError(alone.format(lengths[failed[0]])) from error
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(failed) == 1:
                runs = runs[:1]
            else:
                budget = max(1, sum(lengths[i] for i in failed) * lanes // 2)
        pending = [i for i in pending if i not in answers]
    return [answers[i] for i in range(len(lengths))]


def _turn(
    lengths: Sequence[int], pending: list[int], budget: int, lanes: int
) -> tuple[int, list[int]]:
    """How many batches may be run at once, and of which sequences: first of those that are too
    long for more at once, since a sequence beyond the budget is run, too."""
    longest = max(lengths[i] for i in pending)
    fit = max(1, min(lanes, budget // max(1, longest)))
    if fit == lanes:
        return lanes, pending
    return fit, [i for i in pending if max(1, lengths[i]) > budget // (fit + 1)]


def _share(lengths: Sequence[int], budget: int, lanes: int, least: int) -> int:
    """Tokens of a batch, so that those run side by side fit, and all lanes have as many batches.

    Parameters
    ----------
    least : tokens below which a batch is not worth its while.
    """
    if lanes == 1:
        return budget
    most, over = max(1, budget // lanes), max(lengths) - 1
    turns = _up(sum(lengths), lanes * max(1, most - over))
    # A batch ends before the sequence that does not fit, and then has at least its part.
    return min(most, max(least, _up(sum(lengths), lanes * turns) + over))


def _up(tokens: int, parts: int) -> int:
    return max(1, -(-tokens // parts))


def run_on_images(
    count: int, *runs: Callable[[list[int]], Sequence[Answer]], budget: int
) -> list[Answer]:
    """Run a function over micro-batches of images of one size; see :func:`run_batched`.

    Parameters
    ----------
    budget : images per batch.
    """
    return run_batched([1] * count, *runs, budget=budget, alone=TOO_LARGE)


def is_lost_device(error: BaseException) -> bool:
    """Tell whether an exception says that a device answers no more, whatever it is asked."""
    return isinstance(error, torch.AcceleratorError) or "cuda error" in str(error).lower()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that a device, or the machine, has no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text
