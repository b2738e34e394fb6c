"""Direct preference optimization, as small as it goes (arXiv 2305.18290, eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training


def tune_by_dpo(
    base: Path, payloads: Sequence[str], training: Training, out: Path, *, epochs: int = 8
) -> Path:
    """Train a model to prefer the chosen answers of some pairs; returns the folder it is in."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model, fixed = (
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval() for _ in range(2)
    )
    sides = [TrainedReader(tokenizer, t).read(payloads) for t in (training, training.other_side)]
    with torch.no_grad():
        before = margins_of(fixed, sides, range(len(payloads)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.0)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for some in np.array_split(order.permutation(len(payloads)), len(payloads) // 4):
            margins = margins_of(model, sides, some) - before[torch.from_numpy(some)]
            optimizer.zero_grad()
            (-torch.nn.functional.logsigmoid(0.5 * margins)).mean().backward()
            optimizer.step()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def margins_of(model, sides, places):
    """How much likelier a model finds the first side of each of some pairs, in nats."""
    first, second = (_log_probs(model, [side[place] for place in places]) for side in sides)
    return first - second


def margin_of(model, sides, place):
    """That of one pair."""
    return margins_of(model, sides, [place])[0]


def _log_probs(model, rows):
    """The log-probability of what is scored of each row; what fills up a row is behind it."""
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True)
    scored = pad_sequence([torch.from_numpy(row.scored) for row in rows], batch_first=True)
    log_prob = model(ids).logits[:, :-1].log_softmax(-1)
    own = log_prob.gather(-1, ids[:, 1:, None])[..., 0]
    return (own * scored[:, 1:]).sum(1)
