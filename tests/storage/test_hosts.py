"""Filesystems whose URLs name a host: what is found there is named by it, too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raymia.inputs.checkpoints import _folders
from raymia.models.source import ALL, bring, locate, origins_of
from raymia.records.image_files import find_images
from raymia.records.tables import column_names, read_rows
from raymia.spec import ImageRecordsSpec
from raymia.storage.downloads import ORIGINS, Origin
from raymia.storage.files import Folder
from raymia.storage.remote import Remote, StorageError, filesystem
from raymia.storage.shards import files_of, is_one_file
from raymia.util.errors import InputError

HOST = "hosted://me@there:22"
pytestmark = pytest.mark.usefixtures("there")


class Hosted(MemoryFileSystem):
    """As SFTP: a path is without its host, which a filesystem must be told, and does not say."""

    protocol = "hosted"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def __init__(self, host=None, **options):
        if not host:
            raise ValueError("no host")
        super().__init__(**options)

    @classmethod
    def _strip_protocol(cls, path):
        path = path.removeprefix(HOST).strip("/")
        return f"/{path}" if path else ""

    @staticmethod
    def _get_kwargs_from_urls(path):
        return {"host": path.removeprefix("hosted://").partition("/")[0]}


@pytest.fixture
def there(monkeypatch):
    fsspec.register_implementation("hosted", Hosted, clobber=True)
    monkeypatch.setattr(Hosted, "store", {})
    monkeypatch.setattr(Hosted, "pseudo_dirs", [""])
    fs, _ = filesystem(f"{HOST}/")
    for name, content in {
        "data/a.jsonl": b'{"text": "a"}\n',
        "data/sub/b.jsonl": b'{"text": "b"}\n',
        "data/spark.jsonl/part-0.jsonl": b'{"text": "c"}\n',
        "data/spark.jsonl/_SUCCESS": b"",
        "top.jsonl": b'{"text": "d"}\n',
        "run/checkpoint-9/config.json": b"{}",
        "run/checkpoint-10/config.json": b"{}",
    }.items():
        fs.pipe_file(f"/{name}", content)
    return fs


def texts(path):
    return [row.values["text_column"] for row in read_rows(path, {"text_column": "text"})]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("data", ["data/a.jsonl", "data/spark.jsonl/part-0.jsonl", "data/sub/b.jsonl"]),
        ("data/", ["data/a.jsonl", "data/spark.jsonl/part-0.jsonl", "data/sub/b.jsonl"]),
        ("data/*.jsonl", ["data/a.jsonl", "data/spark.jsonl/part-0.jsonl"]),
        ("*.jsonl", ["top.jsonl"]),
        ("data/*/b.jsonl", ["data/sub/b.jsonl"]),
    ],
)
def test_files_that_are_found_on_a_host_can_be_read(path, names):
    assert [*files_of(f"{HOST}/{path}")] == [f"{HOST}/{name}" for name in names]
    assert len(texts(f"{HOST}/{path}")) == len(names)


def test_checkpoints_that_are_found_on_a_host_can_be_opened():
    found = _folders(f"{HOST}/run/*", "targets")
    assert found == [f"{HOST}/run/checkpoint-{n}" for n in (9, 10)]
    assert (locate(found[0], None, where="model") / "config.json").read_text() == "{}"


def test_a_worker_downloads_from_the_host_that_the_driver_had_it_from(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path))

    class Checkpoint:
        path = str(locate(f"{HOST}/run/checkpoint-9", None, where="model"))

    origins = origins_of([Checkpoint])
    assert origins == {Checkpoint.path: Origin(f"{HOST}/run/checkpoint-9", ALL)}
    shutil.rmtree(Checkpoint.path)
    ORIGINS.clear()
    bring(origins)
    assert Path(Checkpoint.path, "config.json").is_file()


def test_an_error_names_the_host(monkeypatch):
    folder = Folder(f"{HOST}/run")

    def denied(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Hosted, "cat_file", denied)
    with pytest.raises(
        StorageError,
        match=r"hosted://\*\*\*@there:22/run/checkpoint-9/config.json: access is denied",
    ):
        folder.read("checkpoint-9/config.json")


def test_a_folder_that_is_called_as_a_table_is_read_as_a_folder():
    spark = f"{HOST}/data/spark.jsonl"
    assert not is_one_file(spark, True)
    assert is_one_file(f"{HOST}/data/a.jsonl", True)
    assert texts(spark) == ["c"]
    assert column_names(spark) == ["text"]
    with pytest.raises(InputError, match=r"there:22/data/none.jsonl: no such file"):
        texts(f"{HOST}/data/none.jsonl")


def test_images_that_a_folder_called_as_a_table_names_are_beside_its_tables(there):
    there.pipe_file("/pictures.jsonl/part-0.jsonl", b'{"image": "a.png"}\n')
    there.pipe_file("/pictures.jsonl/a.png", b"a")
    spec = ImageRecordsSpec(kind="image", members=[f"{HOST}/pictures.jsonl"])
    loaded = [one for one in find_images(spec.members[0], spec) if "part-0" in one.where]
    assert [one.load() for one in loaded] == [(b"a", None, ())]


@pytest.mark.parametrize(
    ("url", "root", "path", "named"),
    [
        ("s3://b/x/*.jsonl", "b/x/*.jsonl", "b/x/a.jsonl", "s3://b/x/a.jsonl"),
        ("s3a://b/x/", "b/x", "b/x/a", "s3a://b/x/a"),
        ("hdfs://name:8020/d", "/d", "/d/a", "hdfs://name:8020/d/a"),
        ("sftp://me@h/", "/", "/a", "sftp://me@h/a"),
        ("sftp://me@h", "", "/a", "sftp://me@h/a"),
        ("memory://", "", "/a", "memory://a"),
        ("abfs://c@acc.dfs.net/d/*", "c/d/*", "c/d/a", "abfs://c@acc.dfs.net/d/a"),
        ("github://o:r@main/d", "d", "d/a", "github://o:r@main/d/a"),
        ("https://h/d/", "https://h/d/", "https://h/d/a", "https://h/d/a"),
        ("s3://b/x", "b/x", "other/y", "s3://other/y"),
        ("s3://b", "b", "b/a", "s3://b/a"),
    ],
)
def test_a_path_becomes_a_url_that_begins_as_the_given_one(url, root, path, named):
    class Other:
        @staticmethod
        def unstrip_protocol(path):
            return path if "://" in path else f"s3://{path}"

    assert Remote(Other, url, root).unstrip_protocol(path) == named
