"""Direct preference optimization, as small as it goes (arXiv 2305.18290, eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
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
        before = torch.stack([margin_of(fixed, sides, i) for i in range(len(payloads))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.0)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for some in np.array_split(order.permutation(len(payloads)), len(payloads) // 4):
            margins = torch.stack([margin_of(model, sides, i) for i in some])
            margins = margins - before[torch.from_numpy(some)]
            optimizer.zero_grad()
            (-torch.nn.functional.logsigmoid(0.5 * margins)).mean().backward()
            optimizer.step()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def margin_of(model, sides, place):
    """How much likelier a model finds the first side of a pair, in nats."""
    return _log_prob(model, sides[0][place]) - _log_prob(model, sides[1][place])


def _log_prob(model, rendered):
    ids = torch.tensor([rendered.ids])
    log_prob = model(ids).logits[0, :-1].log_softmax(-1)
    own = log_prob.gather(-1, ids[0, 1:, None])[:, 0]
    return own[torch.from_numpy(rendered.scored[1:])].sum()
