"""Fixtures shared by all rooms, and what follows from the fixtures that a test uses.

A test is marked by what it takes to run it: `ray`, `browser` or `training`. Of two workers, one has
all tests of the shared Ray, and the other those of the shared cluster; the tests of any other file
are run by one of them, so that what the file's fixtures make is made once. What takes longest comes
first, so that both end at the same time. Nothing reaches the network.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
# Ray gives way to whatever else runs, and beside a busy test its actors would hardly run at all.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault(
    "TRITON_INTERPRET", "1"
)  # read when triton is imported: kernels without a GPU
# Each of the many processes of tests would compile all of raymia again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Workers of Ray import what tests do, of tools/ and of tests/support/.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [
        *(str(Path(__file__).parents[1] / place) for place in ("tools", "tests/support")),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
)

import hypothesis
import pytest
from filelock import FileLock

if TYPE_CHECKING:  # the process that hands out the tests runs none: it needs no torch
    from cluster_head import Head
    from small_audit import Models
    from small_image_audit import ImageModels

# A shell's background job ignores Ctrl-C, and so would the runs that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine shared with others has slow moments: time limits are pytest's, not each example's.
hypothesis.settings.register_profile("raymia", deadline=None, max_examples=50)
hypothesis.settings.load_profile("raymia")


collect_ignore_glob = ["*conftest.py", "support/*"]  # no tests; the examples to run are raymia's

TESTS = Path(__file__).parent
BY_FIXTURE = {
    "ray": {"local_ray", "own_ray"},
    "browser": {"browser"},
    "training": {"models", "image_models"},
}
"""What a test that uses one of the fixtures is marked with."""
TRAINS = "trained"
"""What the name of any other fixture that trains a model begins with."""
BY_ROOM = {"training": {"demo", "prepare"}}
"""What all tests of a room are marked with."""
LONG = {"browser", "demo", "e2e", "prepare", "project"}
"""Rooms whose files take long, though they share no Ray."""


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # xdist's own order is by the number of tests


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Iterator[list[pytest.Collector]]:
    """Of a file of tests, its tests: no examples are looked for in it."""
    found = yield
    return [one for one in found if type(one) is pytest.Module]


@pytest.hookimpl(tryfirst=True)  # before the plugin that reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        used |= BY_FIXTURE["training"] if any(name.startswith(TRAINS) for name in used) else set()
        for mark in BY_FIXTURE:
            if used & BY_FIXTURE[mark] or _room(item.path) in BY_ROOM.get(mark, ()):
                item.add_marker(mark)
        item.add_marker(pytest.mark.xdist_group(_group(item, used)))
    items.sort(key=_turn)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    gc.disable()  # imports leave little of it
    try:
        return (yield)
    finally:
        gc.enable()
        _keep_what_is_imported()


def pytest_runtest_logfinish() -> None:
    if len(sys.modules) > _imported[-1] + MANY:
        _keep_what_is_imported()


MANY = 50
"""Modules that are looked through for garbage again and again, at most."""
_imported = [0]
atexit.register(gc.unfreeze)  # for libraries that look at the end whether all is given back


def _keep_what_is_imported() -> None:
    """Never again look for garbage in what there is now: an audit collects it when it ends, and a
    million objects of libraries take half a second."""
    gc.collect()
    gc.freeze()
    _imported.append(len(sys.modules))


@cache
def _room(path: Path) -> str | None:
    return path.relative_to(TESTS).parts[0] if TESTS in path.parents else None


def _group(item: pytest.Item, used: set[str]) -> str:
    """Tests that one worker runs, in turn."""
    for shared in ("head", "local_ray"):
        if shared in used:
            return shared
    return item.path.stem


def _turn(item: pytest.Item) -> int:
    """The shared Ray comes before those of single tests, for which it ends."""
    used = getattr(item, "fixturenames", ())
    for turn, fixture in enumerate(("local_ray", "head", "own_ray")):
        if fixture in used:
            return turn
    return 3 if _room(item.path) in LONG else 4


@pytest.fixture(scope="session")
def _caches(tmp_path_factory):
    """Folders that nobody has made yet."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_caches, monkeypatch):
    """Downloads of one test are not another's."""
    monkeypatch.setenv("RAYMIA_CACHE", str(next(_caches)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny models gain nothing from more threads, and lose much on a busy machine."""
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 1)  # from which raymia takes the number of threads
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_disks():
    """Nobody reads a test's files after a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def base():
    """The trained causal model that ships with the demo."""
    from tiny_models import BASE, checkpoint

    from raymia.models.causal.family import load_causal_lm

    return load_causal_lm(checkpoint(BASE), batch_tokens=4_096)


@pytest.fixture(scope="session")
def filler():
    """The trained T5 that ships with the demo."""
    from tiny_models import PARAPHRASER

    from raymia.models.paraphrasers.mask_filler import load_mask_filler

    return load_mask_filler(str(PARAPHRASER), batch_tokens=4_096)


@pytest.fixture(scope="session")
def texts():
    """64 passages of different lengths, some cut to a few words."""
    from tiny_models import passages

    whole = passages(64)
    return [text if i % 3 else " ".join(text.split()[: 3 + i % 11]) for i, text in enumerate(whole)]


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """Folder of a tiny random GPT-2; read only."""
    from tiny_models import save_tiny

    return save_tiny(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """Folder of a tiny random Llama; read only."""
    from tiny_models import save_tiny

    return save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama")


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the worker makes that needs it first, for all workers of the run."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder = place / name
    with FileLock(place / f"{name}.lock"):
        if not folder.exists():
            make(unfinished := place / f"{name}-unfinished")
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A target that was fine-tuned on 24 passages, and two that differ from it; read only."""
    from small_audit import Models, make_models

    return Models.of(_made_once(tmp_path_factory, "models-of-texts", make_models))


@pytest.fixture(scope="session")
def image_models(tmp_path_factory: pytest.TempPathFactory) -> ImageModels:
    """A denoiser and a VAE that know 24 digits by heart, and an untrained one; read only."""
    from small_image_audit import ImageModels, make_image_models

    return ImageModels.of(_made_once(tmp_path_factory, "models-of-images", make_image_models))


@pytest.fixture(autouse=True)
def _no_ray_unasked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts Ray says so, by the fixtures it uses; the others run without one.

    A worker may be given such tests when it has run those of the shared Ray, which then ends.
    """
    if request.node.get_closest_marker("ray") is not None:
        yield
        return
    if _ray_runs():
        sys.modules["ray"].shutdown()
    yield
    assert not _ray_runs(), "this test needs local_ray or own_ray"


def _ray_runs() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@pytest.fixture(scope="session")
def local_ray() -> None:
    """The one Ray of the test run."""
    from ray_fixtures import start_local_ray

    start_local_ray()


@pytest.fixture(scope="session")
def own_ray() -> None:
    """For tests that start Rays of their own, here or in other processes: the shared one has
    ended, and none is started again."""
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster of one machine that takes jobs."""
    from cluster_head import running_head

    with running_head(tmp_path_factory.mktemp("head") / "output.txt") as head:
        yield head
