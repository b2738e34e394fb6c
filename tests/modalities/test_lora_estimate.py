"""What a training of a LoRA is reckoned to take, against what its network does."""

from __future__ import annotations

import math

import pytest
import torch
from small_image_models import save_model
from torch.utils.flop_counter import FlopCounterMode

from raymia.modalities.images.training_estimate import positions_of
from raymia.prepare.denoiser_files import load_trainable, resolve_trainable
from raymia.prepare.denoiser_lora import modules_of


@pytest.mark.parametrize(("kind", "close"), [("ddpm", 0.02), ("dit", 0.1), ("stable", 0.3)])
def test_operations_of_the_layers_are_those_that_torch_counts(tmp_path, kind, close):
    folder = tmp_path / kind
    save_model(kind, folder)
    base = resolve_trainable(folder, is_frozen=True)
    model = load_trainable(folder, from_weights=True, seed=0)
    counter = FlopCounterMode(display=False)
    noisy = torch.zeros((2, *base.latent_shape))
    with torch.no_grad(), counter:
        model(noisy, torch.zeros(2, dtype=torch.long), None)
    counted = sum(
        flops
        for operation, flops in counter.get_flop_counts()["Global"].items()
        if any(one in str(operation) for one in ("conv", "mm")) and "bmm" not in str(operation)
    )
    found = (
        2
        * 2
        * sum(
            math.prod(shape) * positions_of(name, base) for name, shape in modules_of(base).items()
        )
    )
    assert found == pytest.approx(counted, rel=close)
