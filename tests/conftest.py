"""Fixtures shared by all rooms: the shipped models, and tiny ones; nothing reaches the network."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported

import hypothesis
import pytest
import torch
from small_audit import Models, make_models
from tiny_models import BASE, PARAPHRASER, checkpoint, passages, save_tiny

from raymia.models.causal.model import load_causal_lm
from raymia.models.paraphrasers.mask_filler import load_mask_filler

if TYPE_CHECKING:
    from cluster_head import Head

# A shell's background job ignores Ctrl-C, and so would the runs that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine shared with others has slow moments: time limits are pytest's, not each example's.
hypothesis.settings.register_profile("raymia", deadline=None, max_examples=50)
hypothesis.settings.load_profile("raymia")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Downloads of one test are not another's."""
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much on a busy machine


@pytest.fixture(scope="session")
def base():
    """The trained causal model that ships with the demo."""
    return load_causal_lm(checkpoint(BASE), batch_tokens=4_096)


@pytest.fixture(scope="session")
def filler():
    """The trained T5 that ships with the demo."""
    return load_mask_filler(str(PARAPHRASER), batch_tokens=4_096)


@pytest.fixture(scope="session")
def texts():
    """64 passages of different lengths, some cut to a few words."""
    whole = passages(64)
    return [text if i % 3 else " ".join(text.split()[: 3 + i % 11]) for i, text in enumerate(whole)]


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """Folder of a tiny random GPT-2; read only."""
    return save_tiny(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """Folder of a tiny random Llama; read only."""
    return save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A target that was fine-tuned on 24 passages, and two that differ from it; read only."""
    return make_models(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def local_ray() -> None:
    """The one Ray of the test run."""
    from ray_fixtures import ensure_local_ray

    ensure_local_ray()


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster of one machine that takes jobs."""
    from cluster_head import running_head

    with running_head(tmp_path_factory.mktemp("head") / "output.txt") as head:
        yield head
