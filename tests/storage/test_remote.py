"""Files of other machines: calls made again, downloads whole and once, credentials hidden."""

from __future__ import annotations

import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import fsspec
import pytest
from object_store import BUCKET, credentials, object_store

import raymia.storage.remote
from raymia.evidence.secret import SECRET_FILE, secret_of
from raymia.models.source import bring, origins_of
from raymia.models.source import locate as locate_model
from raymia.prepare.target_job import finish
from raymia.results.events import read_events
from raymia.run.status import EventLog
from raymia.spec import ImageRecordsSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.storage.downloads import ORIGINS, cache_folder
from raymia.storage.files import Folder, opened
from raymia.storage.manifest import MANIFEST_FILE, read_sealed
from raymia.storage.moves import TEMPORARY_PREFIX
from raymia.storage.remote import TRIES, StorageError, filesystem
from raymia.util.credentials import hidden
from raymia.util.errors import InputError, RaymiaError


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(raymia.storage.remote, "FIRST_PAUSE_SECONDS", 0.001)
    folder = Folder(f"memory://{tmp_path.name}/store")
    folder.write("m/weights", b"w" * 1000)
    folder.write("m/sub/config", b"{}")
    return folder


def failing(monkeypatch, fs, name, times, error):
    """Let a call of the real filesystem fail so many times; returns the calls that were made."""
    call, made = getattr(fs, name), []

    def flaky(*arguments, **options):
        made.append(arguments)
        if len(made) <= times:
            raise error
        return call(*arguments, **options)

    monkeypatch.setattr(fs, name, flaky)
    return made


def test_a_call_that_fails_is_made_again(store, monkeypatch):
    made = failing(monkeypatch, store.fs.fs, "cat_file", TRIES - 1, ConnectionResetError("gone"))
    assert store.read("m/sub/config") == b"{}"
    assert len(made) == TRIES


def test_a_call_that_goes_on_failing_ends_with_the_url(store, monkeypatch):
    made = failing(monkeypatch, store.fs.fs, "cat_file", 99, TimeoutError("too slow"))
    with pytest.raises(StorageError, match=r"memory:/.*/store/m/sub/config: failed 5 times") as e:
        store.read("m/sub/config")
    assert "TimeoutError: too slow" in str(e.value)
    assert len(made) == TRIES


@pytest.mark.parametrize(
    ("error", "said"),
    [(PermissionError("no"), "access is denied"), (FileNotFoundError("x"), "no such bucket")],
)
def test_what_no_repetition_mends_is_not_repeated(store, monkeypatch, error, said):
    made = failing(monkeypatch, store.fs.fs, "pipe_file", 99, error)
    with pytest.raises(StorageError, match=said):
        store.write("a", b"b")
    assert len(made) == 1


def test_an_answer_is_no_failure(store, monkeypatch):
    made = failing(monkeypatch, store.fs.fs, "cat_file", 99, FileNotFoundError())
    with pytest.raises(FileNotFoundError):
        store.read("m/none")
    assert len(made) == 1


def test_a_mistake_of_ours_is_not_repeated(store, monkeypatch):
    made = failing(monkeypatch, store.fs.fs, "cat_file", 99, TypeError("wrong"))
    with pytest.raises(TypeError):
        store.read("m/weights")
    assert len(made) == 1


def test_a_file_is_read_from_any_place(store):
    content = bytes(range(256)) * 20_000  # more than is asked for at a time
    store.write("big", content)
    with store.open("big") as file:
        assert file.read(10) == content[:10]
        file.seek(-7, 2)
        assert file.read() == content[-7:]
        file.seek(3_000_000)
        assert file.read(1_000_000) == content[3_000_000:4_000_000]
        assert file.read(99_999_999) == content[4_000_000:]
        assert file.read(1) == b""


# -------------------------------------------------------------------------- downloads


def part_of(monkeypatch, fs, times):
    """Let downloads end early, as where a connection is closed and nobody notices."""
    get, made = fs.get_file, []

    def cut(name, place):
        get(name, place)
        made.append(name)
        if len(made) <= times:
            with open(place, "rb+") as file:  # noqa: PTH123
                file.truncate(1)

    monkeypatch.setattr(fs, "get_file", cut)
    return made


def test_a_download_that_came_in_part_is_made_again(store, monkeypatch):
    part_of(monkeypatch, store.fs.fs, 2)
    assert (store.local_copy("m") / "weights").read_bytes() == b"w" * 1000


def test_a_part_is_never_taken_for_the_folder(store, monkeypatch):
    part_of(monkeypatch, store.fs.fs, 99)
    with pytest.raises(RaymiaError, match=r"1 bytes came of .*, 3 times"):
        store.local_copy("m")
    left = [p for p in cache_folder().iterdir() if p.suffix != ".lock"]
    assert left == []


def test_what_a_killed_download_leaves_is_not_used(store):
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / f"{TEMPORARY_PREFIX}dead").mkdir()
    copy = store.local_copy("m")
    assert {p.name for p in copy.rglob("*") if p.is_file()} == {"weights", "config"}


def test_workers_of_a_machine_download_once(store, monkeypatch):
    get, made, together = store.fs.fs.get_file, [], threading.Barrier(4)

    def slow(name, place):
        made.append(name)
        time.sleep(0.2)
        get(name, place)

    monkeypatch.setattr(store.fs.fs, "get_file", slow)

    def copy(_):
        together.wait()
        return store.local_copy("m")

    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(copy, range(4)))
    assert len(places) == 1
    assert len(made) == 2


def test_a_worker_downloads_what_only_its_driver_has(store):
    class Checkpoint:
        path = str(locate_model(f"{store.url}/m", None, where="model"))
        adapter = None

    origins = origins_of([Checkpoint, None])
    assert list(origins) == [Checkpoint.path]
    shutil.rmtree(Checkpoint.path)  # the worker's machine has its own disk
    ORIGINS.clear()
    bring(pickle.loads(pickle.dumps(origins)))
    assert {p.name for p in cache_folder().rglob("*") if p.is_file()} >= {"weights", "config"}
    assert locate_model(Checkpoint.path, None, where="model").is_dir()


def test_a_file_is_opened_whole_or_not_at_all(store, monkeypatch):
    part_of(monkeypatch, store.fs.fs, 1)
    with opened(f"memory://{store.root}/m/weights") as file:
        assert file.read() == b"w" * 1000


def test_listings_of_object_stores_are_not_kept():
    fs, _ = filesystem("s3://bucket/folder")
    assert fs.fs.dircache.use_listings_cache is False


# ------------------------------------------------------------------------ credentials

SECRETS = [
    ("https://me:s3cret@host/x.jsonl", "https://***@host/x.jsonl"),
    ("sftp://me:s3cret@host:22/x", "sftp://***@host:22/x"),
    (
        "https://b.s3.amazonaws.com/x?X-Amz-Credential=s3cret%2Fus&X-Amz-Date=1&X-Amz-Signature=s3cret",
        "https://b.s3.amazonaws.com/x?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***",
    ),
    ("https://h/x?AWSAccessKeyId=s3cret&Expires=1", "https://h/x?AWSAccessKeyId=***&Expires=1"),
    ("https://a.net/c?sv=1&amp;sig=s3cret&amp;se=2", "https://a.net/c?sv=1&amp;sig=***&amp;se=2"),
    ("https://h/x?access_token=s3cret", "https://h/x?access_token=***"),
]


@pytest.mark.parametrize(("url", "said"), SECRETS)
def test_credentials_in_urls_are_hidden(url, said):
    assert hidden(f"store: {url} is 'here'") == f"store: {said} is 'here'"
    for error in (RaymiaError(f"{url}: gone"), InputError([f"{url}: gone", "other"])):
        assert "s3cret" not in f"{error} {error!r} {error.args} {getattr(error, 'problems', '')}"


def test_other_texts_are_left_as_they_are():
    for text in ("me@host: a b", "https://host/a@b?q=1&page=2", "s3://bucket/key", "a://b c@d"):
        assert hidden(text) == text


def test_events_hide_credentials(tmp_path):
    log = EventLog(str(tmp_path), "run")
    log.write({"event": "x", "why": "https://me:s3cret@host/x: gone"})
    log.close()
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert "https://***@host/x: gone" in written
    assert "s3cret" not in written


def test_events_can_be_read_whatever_they_hide(tmp_path):
    why = 'open("https://host/données.jsonl?token=s3cret"): C:\\gone\n?key='
    log = EventLog(str(tmp_path), "run")
    log.write({"event": "x", "why": why})
    log.close()
    ((event,),) = read_events(Folder(str(tmp_path))).values()
    assert event["why"] == why.replace("s3cret", "***")


def test_the_manifest_of_a_training_on_images_hides_where_they_are_from(tmp_path):
    split = SimpleNamespace(records={}, facts={})
    facts = {"parameters": 1, "seconds": 1.0, "checkpoints": []}
    data = "https://host/images.tar?sig=s3cret"
    finish(tmp_path, data, {}, DiffusionTrainingSpec(), split, 0, facts)
    written = read_sealed(tmp_path / MANIFEST_FILE, "here", ImageRecordsSpec.manifest)
    assert written["data"] == "https://host/images.tar?sig=***"


@pytest.fixture
def bucket(monkeypatch):
    """A folder in an object store on loopback, as another process would open it each time."""
    with object_store() as endpoint:
        for name, value in credentials(endpoint).items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield lambda: Folder(f"s3://{BUCKET}/store")
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_of_those_who_write_where_there_is_nothing_one_does(bucket):
    start = threading.Barrier(8)

    def create(number):
        folder = bucket()
        start.wait()
        return folder.create("file", b"%d" % number)

    with ThreadPoolExecutor(8) as threads:
        made = [*threads.map(create, range(8))]
    assert made.count(True) == 1
    assert bucket().read("file") == b"%d" % made.index(True)


def test_two_who_ask_a_store_of_objects_first_have_one_secret(bucket, monkeypatch):
    """Both look before either writes."""
    start, exists, overwritten = threading.Barrier(2), Folder.exists, []

    def looked(folder, name):
        found = exists(folder, name)
        if name == SECRET_FILE and not found:
            start.wait(10)
        return found

    bucket().write("evidence/part", b"x")
    monkeypatch.setattr(Folder, "exists", looked)
    monkeypatch.setattr(Folder, "write", lambda *given: overwritten.append(given))
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: secret_of(bucket()), range(2))
    assert one == other == bucket().read(SECRET_FILE)
    assert not overwritten


def test_a_file_whose_writing_was_not_answered_was_written_by_this_one(store, monkeypatch):
    pipe, made = store.fs.fs.pipe_file, []

    def unanswered(*arguments, **options):
        made.append(pipe(*arguments, **options))
        raise ConnectionResetError("gone")

    monkeypatch.setattr(store.fs.fs, "pipe_file", unanswered)
    assert store.create("file", b"mine")
    assert len(made) == 1
    assert not store.create("file", b"another's")


@pytest.mark.parametrize("error", [NotImplementedError(), TypeError("mode"), OSError("no headers")])
def test_a_filesystem_that_cannot_write_on_condition_says_that_it_did_not(
    store, monkeypatch, error
):
    failing(monkeypatch, store.fs.fs, "pipe_file", 99, error)
    assert not store.create("file", b"mine")


def test_a_filesystem_that_passes_the_condition_over_replaces_nothing(store, monkeypatch):
    pipe = store.fs.fs.pipe_file
    monkeypatch.setattr(store.fs.fs, "pipe_file", lambda path, value, **_: pipe(path, value))
    assert not store.create("m/weights", b"another's")
    assert store.read("m/weights") == b"w" * 1000
    assert store.create("file", b"mine")
