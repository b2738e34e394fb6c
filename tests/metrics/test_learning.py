"""What learned attacks share."""

from __future__ import annotations

import torch

from raymia.metrics.learning import one_thread


def test_small_fits_take_one_thread_and_give_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
