"""What a caller sees of its own process."""

from __future__ import annotations

import logging
import os
import random
import signal
import warnings
from typing import Any

import diffusers.utils.logging
import numpy as np
import torch
import transformers.utils.logging

Seen = dict[str, Any]


def seen() -> Seen:
    """All that an audit must leave as it is, by name."""
    libraries = {"transformers": transformers.utils.logging, "diffusers": diffusers.utils.logging}
    return {
        # pytest has the name of the test and its phase there
        "environment": {n: v for n, v in os.environ.items() if not n.startswith("PYTEST_")},
        **{number.name: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        **{f"logger {name}": _logger(name) for name in ("", "ray.data")},
        **{f"verbosity {n}": module.get_verbosity() for n, module in libraries.items()},
        **{f"bars {n}": module.is_progress_bar_enabled() for n, module in libraries.items()},
        "warnings": list(warnings.filters),
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
    }


def _logger(name: str) -> tuple[Any, ...]:
    logger = logging.getLogger(name or None)
    return logger.level, logger.propagate, logger.disabled, list(logger.handlers)
