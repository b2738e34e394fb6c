"""What is changed in a process is undone."""

from __future__ import annotations

import _thread
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import diffusers.utils.logging
import numpy as np
import pytest
import torch
import transformers.utils.logging
from caller_seen import Seen, seen

from raymia.util.caller import caller_state, silenced


@pytest.fixture
def quirks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """A caller whose process is not as it was started."""
    monkeypatch.setenv("RAYMIA_TEST_KEPT", "here")
    monkeypatch.setenv("RAYMIA_TEST_REMOVED", "here")
    with caller_state():
        transformers.utils.logging.set_verbosity_info()
        transformers.utils.logging.enable_progress_bar()
        diffusers.utils.logging.disable_progress_bar()
        warnings.filterwarnings("ignore", "of the caller")
        signal.signal(signal.SIGTERM, lambda *_: None)
        logging.getLogger("ray.data").setLevel(logging.INFO)
        torch.set_grad_enabled(False)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        yield seen()


def change_all() -> None:
    os.environ["RAYMIA_TEST_KEPT"] = "there"
    os.environ["RAYMIA_TEST_NEW"] = "there"
    del os.environ["RAYMIA_TEST_REMOVED"]
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.enable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    warnings.simplefilter("error")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for name in ("ray.data", None):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL)
        logger.addHandler(logging.NullHandler())
    torch.set_grad_enabled(True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)
    random.seed(2)
    np.random.seed(2)
    torch.manual_seed(2)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_everything_is_as_it_was_however_a_block_ends(
    quirks: Seen, error: type[BaseException] | None
) -> None:
    def block() -> None:
        with caller_state():
            change_all()
            changed = seen()
            assert [key for key in quirks if changed[key] == quirks[key]] == []
            if error is KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                _thread.interrupt_main()
                threading.Event().wait(10)
            elif error is not None:
                raise error

    if error is None:
        block()
    else:
        with pytest.raises(error):
            block()
    assert seen() == quirks


def test_a_thread_of_the_caller_keeps_its_state_too(quirks: Seen) -> None:
    """All but the handlers of signals, which belong to the main thread."""
    handlers = "SIGINT", "SIGTERM"
    before = {key: value for key, value in quirks.items() if key not in handlers}

    def run() -> None:
        with caller_state():
            os.environ["RAYMIA_TEST_NEW"] = "there"
            torch.manual_seed(2)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert {key: value for key, value in seen().items() if key not in handlers} == before


IMPORTED_MEANWHILE = """
import sys
from raymia.util.caller import caller_state
with caller_state():
    assert "transformers" not in sys.modules and "torch" not in sys.modules
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
print(transformers.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled())
"""


@pytest.mark.long
@pytest.mark.parametrize(("given", "level"), [("", "30"), ("info", "20"), ("loud", "30")])
def test_a_library_that_comes_in_meanwhile_is_left_as_it_is_by_default(
    given: str, level: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_MEANWHILE], capture_output=True, text=True, check=True,
        env={**os.environ, "TRANSFORMERS_VERBOSITY": given}, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == [level, "True"]


def test_silenced_loggers_speak_again() -> None:
    logger = logging.getLogger("ray.data.of_a_test")
    logger.setLevel(logging.DEBUG)

    def block() -> None:
        with silenced("ray.data.of_a_test"):
            assert logger.level == logging.CRITICAL
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        block()
    assert logger.level == logging.DEBUG
