"""Noise on embeddings is as large beside what the first layer takes, whatever the architecture."""

from __future__ import annotations

import pytest
import torch
from tiny_models import checkpoint, passages, save_tiny

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.perturbed import NoiseRequest, answer_perturbed

SIZE = 0.1


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_noise_has_the_size_that_was_asked_for_in_embeddings_as_they_enter(tmp_path, kind):
    """Those of Gemma multiply the rows of their matrix by the root of its width."""
    model = load_causal_lm(checkpoint(save_tiny(tmp_path, kind)), batch_tokens=512)
    (text,) = passages(1)
    entered = []
    model.model.base_model.register_forward_pre_hook(
        lambda _, __, given: entered.append(given["inputs_embeds"].clone()), with_kwargs=True
    )
    answer_perturbed(model, [NoiseRequest(text, 1, size) for size in (0.0, SIZE)])
    both = [row for batch in entered for row in batch]
    clean, noisy = both
    table = model.model.get_input_embeddings()
    unit = table(torch.arange(len(table.weight))).std()
    assert float((noisy - clean).std() / unit) == pytest.approx(SIZE, rel=0.05)
