"""A process is left as it was found: what an audit changes in it is the caller's."""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Restore = Callable[[], None]
LIBRARIES = ("accelerate", "diffusers", "huggingface_hub", "optuna", "peft", "ray", "transformers")
"""Packages whose loggers are kept as they were."""
VERBOSE = ("diffusers", "transformers")
"""Packages whose verbosity and progress bars can be turned off."""


@contextmanager
def caller_state() -> Iterator[None]:
    """Undo at the end, however it ends, what was changed meanwhile in this process: environment
    variables, the handlers of SIGINT and SIGTERM, libraries' log levels and handlers, verbosity and
    progress bars, filters of warnings, the states of Python's, NumPy's and torch's random
    generators, torch's threads, default dtype and whether it records gradients.

    Of a library that is imported meanwhile, verbosity and progress bars are left as that library
    has them by default. Handlers of signals are kept where this is the main thread.
    """
    with ExitStack() as at_the_end, warnings.catch_warnings():
        for keep in (_environment, _signals, _loggers, _verbosity, _generators, _torch):
            at_the_end.callback(keep())
        yield


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Let loggers say only what is critical."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _environment() -> Restore:
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({n: v for n, v in before.items() if os.environ.get(n) != v})

    return restore


def _signals() -> Restore:
    reports_crashes = faulthandler.is_enabled()
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        if not reports_crashes:
            faulthandler.disable()
        for number, handler in before.items():
            if handler is not None:  # one that Python did not set cannot be set by it
                signal.signal(number, handler)

    return restore


def _loggers() -> Restore:
    there = [logging.getLogger()]
    for name, logger in logging.root.manager.loggerDict.items():
        if name.split(".")[0] in LIBRARIES and isinstance(logger, logging.Logger):
            there.append(logger)
    before = [(one, one.level, one.propagate, one.disabled, [*one.handlers]) for one in there]

    def restore() -> None:
        for logger, level, propagate, disabled, handlers in before:
            if logger.level != level:  # setting it makes every logger there is forget what it knows
                logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
            logger.handlers[:] = handlers

    return restore


def _verbosity() -> Restore:
    def of_library(name: str) -> Restore:
        known = sys.modules.get(f"{name}.utils.logging")
        level = known.get_verbosity() if known else None
        has_bars = known.is_progress_bar_enabled() if known else True

        def restore() -> None:
            library = sys.modules.get(f"{name}.utils.logging")
            if library is None:
                return
            named = os.environ.get(f"{name.upper()}_VERBOSITY", "")
            by_default = library.log_levels.get(named, logging.WARNING)
            library.set_verbosity(by_default if level is None else level)
            (library.enable_progress_bar if has_bars else library.disable_progress_bar)()

        return restore

    restores = [of_library(name) for name in VERBOSE]

    def restore() -> None:
        for one in restores:
            one()

    return restore


def _generators() -> Restore:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    python = random.getstate()
    of_numpy = numpy.random.get_state() if numpy else None
    on_cpu = torch.get_rng_state() if torch else None
    on_gpus = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(of_numpy)
        if torch:
            torch.set_rng_state(on_cpu)
        if torch and on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)

    return restore


def _torch() -> Restore:
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    records_gradients = torch.is_grad_enabled()

    def restore() -> None:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(records_gradients)

    return restore
