"""The output layer of many architectures: what it holds beside the model, and how exact it is.

    python tools/head_sweep.py                          # 12 architectures, 4 vocabularies: minutes
    python tools/head_sweep.py --vocabularies 2048

Each is made small, with random weights, by transformers, in float32 and in bfloat16. Its head is
asked for the log-probability and the moments of 1,024 tokens, by one thread and by
four lanes at once, and the process's memory is watched; the answers on some of them are held
against float64. It prints a table, and ends with 1 where more
than 300 MB are held, an answer in float32 is off by more than 1e-5, or those in bfloat16 are off by
more than 1e-3 on average.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from architecture_sweep import small_config

from raymia.models.causal.head import Head
from raymia.models.lanes import MAX_LANES, run_in_lanes

ARCHITECTURES = (
    "gpt2", "gptj", "llama", "qwen3", "mixtral", "gemma2", "cohere", "granite", "falcon", "bloom",
    "opt", "mamba",
)  # fmt: skip
VOCABULARIES = (32_000, 50_257, 151_936, 262_144)
DTYPES = (torch.float32, torch.bfloat16)
TOKENS, COMPARED = 1_024, 32
MAX_BYTES = 300_000_000
MAX_GAP, MAX_MEAN_GAP = 1e-5, 1e-3
"""In float32, of any answer; in bfloat16, on average."""
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Measured:
    """A head at one vocabulary, over both types of weights.

    Attributes
    ----------
    after : what follows the output layer.
    held : bytes beside the model, at most.
    gap : largest error in float32.
    mean_gap : mean error in bfloat16.
    """

    after: str
    held: int
    gap: float
    mean_gap: float

    @property
    def is_within(self) -> bool:
        return self.held <= MAX_BYTES and self.gap <= MAX_GAP and self.mean_gap <= MAX_MEAN_GAP


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES)
    given = parser.parse_args(arguments)
    is_within = True
    for line, fits in table(given.vocabularies):
        print(line, flush=True)
        is_within &= fits
    return 0 if is_within else 1


def table(vocabularies: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Lines of the table, and whether what they say is within the limits."""
    heads = " | ".join(f"{size:,}" for size in vocabularies)
    yield f"| architecture | after the layer | {heads} | float32, largest | bfloat16, mean |", True
    yield "|---" * (4 + len(vocabularies)) + "|", True
    for name in ARCHITECTURES:
        found = [measured(name, size) for size in vocabularies]
        held = " | ".join(f"{one.held / 1e6:.0f} MB" for one in found)
        gaps = max(one.gap for one in found), max(one.mean_gap for one in found)
        said = " | ".join(f"{gap:.0e}" for gap in gaps)
        fits = all(one.is_within for one in found)
        yield f"| {name} | {found[0].after} | {held} | {said} |", fits


def measured(name: str, vocabulary: int) -> Measured:
    """What one architecture's head holds and answers."""
    after, held, gaps = "logits", 0, {}
    for dtype in DTYPES:
        head = made(name, vocabulary, dtype)
        if head.after is not None:
            after = head.after.kind
        draws = torch.Generator().manual_seed(1)
        width = head.output.weight.shape[1]
        hidden = (3 * torch.randn((TOKENS, width), generator=draws)).to(dtype)
        labels = torch.randint(vocabulary, (TOKENS,), generator=draws)
        with torch.inference_mode():
            head.log_probs(hidden[:2], labels[:2], moments=True)  # libraries take theirs once
            before = watched()
            found = head.log_probs(hidden, labels, moments=True)
            held = max(held, peak() - before)
            before = watched()
            in_lanes(head, hidden, labels)
            held = max(held, peak() - before)
            expected = exact(head, hidden[:COMPARED], labels[:COMPARED])
        assert found.mean is not None
        assert found.std is not None
        answers = (found.log_prob, found.mean, found.std)
        gaps[dtype] = torch.stack(
            [(one[:COMPARED] - other).abs() for one, other in zip(answers, expected, strict=True)]
        )
    return Measured(
        after, held, float(gaps[torch.float32].max()), float(gaps[torch.bfloat16].mean())
    )


def in_lanes(head: Head, hidden: Any, labels: Any) -> None:
    """Ask as many heads at once as there may be, each about all tokens."""
    share = head.of_twin(head.model, MAX_LANES)

    def ask(_: list[int]) -> list[Any]:
        with torch.inference_mode():
            return [share.log_probs(hidden, labels, moments=True)]

    threads = torch.get_num_threads()
    torch.set_num_threads(MAX_LANES)
    _, failure = run_in_lanes([ask] * MAX_LANES, [[lane] for lane in range(MAX_LANES)])
    torch.set_num_threads(threads)
    assert failure is None


def made(name: str, vocabulary: int, dtype: torch.dtype) -> Head:
    config = small_config(name)
    config.vocab_size = vocabulary
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return Head(model.eval())


def exact(head: Head, hidden: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Log-probability, mean and standard deviation of log p, in float64."""
    logits = hidden.double() @ head.output.weight.double().T
    if getattr(head.output, "bias", None) is not None:
        logits = logits + head.output.bias.double()
    if head.after is not None:
        logits = head.after.of(logits)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    std = (p * (log_p - mean[:, None]) ** 2).sum(-1).sqrt()
    return log_p.gather(-1, labels[:, None])[:, 0], mean, std


def watched() -> int:
    """Forget the largest memory so far; bytes that are held now, freed ones given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    CLEAR.write_text("5", "utf-8")
    return _bytes("VmRSS")


def peak() -> int:
    return _bytes("VmHWM")


def _bytes(name: str) -> int:
    line = next(one for one in STATUS.read_text("utf-8").splitlines() if one.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
