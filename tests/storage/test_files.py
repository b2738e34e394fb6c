"""Files on any filesystem: whole or not at all."""

from __future__ import annotations

import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from raymia.storage.downloads import download_folder
from raymia.storage.files import Folder
from raymia.storage.moves import TEMPORARY_PREFIX
from raymia.storage.remote import StorageError, filesystem
from raymia.util.errors import InputError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return Folder(str(tmp_path / "x") if request.param == "local" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read(folder):
    folder.write("a/b/c.bin", b"\x00content")
    assert folder.exists("a/b/c.bin")
    assert folder.read("a/b/c.bin") == b"\x00content"
    folder.write("a/b/c.bin", b"other")
    assert folder.read("a/b/c.bin") == b"other"


def test_what_was_not_written_is_not_there(folder):
    assert not folder.exists("a")
    assert folder.names("a", ".parquet") == []
    folder.write("file", b"x")
    assert folder.names("file/a", ".parquet") == []
    with pytest.raises(FileNotFoundError):
        folder.read("a")


def test_names_are_sorted_and_of_the_suffix_and_none_is_temporary(folder):
    for name in ("b.parquet", "a.parquet", "key.json", f"{TEMPORARY_PREFIX}1.parquet"):
        folder.write(f"sub/{name}", b"x")
    assert folder.names("sub", ".parquet") == ["a.parquet", "b.parquet"]


def test_names_see_what_another_writer_added(folder):
    folder.write("sub/a.parquet", b"x")
    folder.names("sub", ".parquet")
    Folder(folder.url).write("sub/b.parquet", b"x")
    assert folder.names("sub", ".parquet") == ["a.parquet", "b.parquet"]


def test_no_reader_sees_a_file_before_it_is_whole(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    folder.write("sub/a.parquet", b"old")
    seen = []

    def fsync(descriptor):
        seen.append((folder.read("sub/a.parquet"), folder.names("sub", "")))
        return real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    folder.write("sub/a.parquet", b"new content")
    assert seen == [(b"old", ["a.parquet"])]
    assert folder.read("sub/a.parquet") == b"new content"


def test_of_those_who_create_a_file_at_one_moment_one_does(tmp_path):
    folder = Folder(str(tmp_path / "new"))
    with ThreadPoolExecutor(8) as pool:
        did = list(pool.map(lambda n: folder.create("a", str(n).encode()), range(8)))
    assert did.count(True) == 1
    assert folder.read("a") == str(did.index(True)).encode()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a"]


def test_writer_killed_before_its_rename_leaves_nothing_to_read(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.write("sub/a.parquet", b"content")
    assert not folder.exists("sub/a.parquet")
    assert folder.names("sub", "") == []


def test_a_full_disk_is_said_with_the_file_and_leaves_nothing_behind(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write("sub/a.parquet", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(
            StorageError, match=r"sub/a\.parquet: cannot be written: File too large"
        ):
            folder.write("sub/a.parquet", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folder.read("sub/a.parquet") == b"old"
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.parquet"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "sub").write_text("a file")
    with pytest.raises(StorageError, match=r"sub/a: cannot be written"):
        Folder(str(tmp_path)).write("sub/a", b"x")


def test_what_a_writer_cannot_read_meanwhile_is_not_said_of_the_file_it_writes(tmp_path):
    with pytest.raises(FileNotFoundError), Folder(str(tmp_path)).writing("a") as file:
        file.write((tmp_path / "gone").read_bytes())
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------- folders


def finished(path, **files):
    path.mkdir()
    for name, content in {"facts.json": "{}", **files}.items():
        (path / name).write_text(content)
    (path / "sub").mkdir()
    (path / "sub" / "deep.txt").write_text("deep")
    return path


def test_committed_folder_is_found_whole(folder, tmp_path):
    folder.commit_folder(finished(tmp_path / "made", weights="w"), "prepared/k", "facts.json")
    local = folder.local_copy("prepared/k")
    found = {str(p.relative_to(local)): p.read_text() for p in local.rglob("*") if p.is_file()}
    assert found == {"facts.json": "{}", "weights": "w", "sub/deep.txt": "deep"}


def test_unfinished_folder_is_not_committed(folder, tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(ValueError, match=r"no facts\.json"):
        folder.commit_folder(tmp_path / "made", "prepared/k", "facts.json")
    assert not folder.exists("prepared/k/facts.json")


def test_second_to_finish_the_same_folder_leaves_the_first(folder, tmp_path):
    folder.commit_folder(finished(tmp_path / "one", by="1"), "prepared/k", "facts.json")
    folder.commit_folder(finished(tmp_path / "two", by="2", more="2"), "prepared/k", "facts.json")
    assert folder.read("prepared/k/by") == b"1"
    assert not folder.exists("prepared/k/more")
    if folder.is_local:
        assert [p.name for p in Path(folder.path("prepared")).iterdir()] == ["k"]


def test_what_is_left_of_a_removed_folder_makes_way_for_a_finished_one(tmp_path):
    """Its marker is removed first, and who removed it may have been killed then."""
    folder = Folder(str(tmp_path / "x"))
    folder.commit_folder(finished(tmp_path / "one", by="1"), "prepared/k", "facts.json")
    folder.remove("prepared/k/facts.json")
    folder.commit_folder(finished(tmp_path / "two", by="2"), "prepared/k", "facts.json")
    assert folder.read("prepared/k/by") == b"2"
    assert folder.exists("prepared/k/facts.json")
    assert [p.name for p in (tmp_path / "x" / "prepared").iterdir()] == ["k"]


def test_one_that_is_overtaken_on_a_server_stops(tmp_path, monkeypatch):
    folder = Folder(f"memory://{tmp_path.name}")
    one, two = finished(tmp_path / "one", by="1", z="1"), finished(tmp_path / "two", by="2", z="2")
    put, sent = folder.fs.put_file, []

    def overtaken(file, place):
        if not sent:
            sent.append(place)
            put(file, place)
            folder.commit_folder(two, "prepared/k", "facts.json")
        else:
            put(file, place)

    monkeypatch.setattr(folder.fs, "put_file", overtaken)
    folder.commit_folder(one, "prepared/k", "facts.json")
    assert (folder.read("prepared/k/by"), folder.read("prepared/k/z")) == (b"2", b"2")


def test_two_that_finish_the_same_folder_at_the_same_time_both_go_on(tmp_path, monkeypatch):
    """The other's folder appears between the look and the rename."""
    folder = Folder(str(tmp_path / "x"))
    one, two = finished(tmp_path / "one", by="1"), finished(tmp_path / "two", by="2")
    rename, first = Path.rename, []

    def overtaken(self, target):
        if not first:
            first.append(self)
            folder.commit_folder(two, "prepared/k", "facts.json")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    folder.commit_folder(one, "prepared/k", "facts.json")
    assert folder.read("prepared/k/by") == b"2"
    assert [p.name for p in (tmp_path / "x" / "prepared").iterdir()] == ["k"]


def test_marker_of_a_remote_folder_comes_last(tmp_path, monkeypatch):
    folder = Folder(f"memory://{tmp_path.name}")
    put, order = folder.fs.put_file, []
    monkeypatch.setattr(
        folder.fs, "put_file", lambda a, b: order.append(b.rsplit("/", 1)[-1]) or put(a, b)
    )
    folder.commit_folder(finished(tmp_path / "made", zzz="z"), "prepared/k", "facts.json")
    assert order[-1] == "facts.json"
    assert sorted(order) == ["deep.txt", "facts.json", "zzz"]


def test_remote_folder_is_downloaded_once(tmp_path, monkeypatch):
    folder = Folder(f"memory://{tmp_path.name}")
    folder.write("m/a.txt", b"1")
    first = folder.local_copy("m")
    monkeypatch.setattr(folder.fs, "get_file", None)
    assert folder.local_copy("m") == first
    assert (first / "a.txt").read_bytes() == b"1"


def test_remote_folder_that_changed_is_downloaded_again(tmp_path):
    fs, path = fsspec.core.url_to_fs(f"memory://{tmp_path.name}/m")
    fs.pipe_file(f"{path}/a.txt", b"1")
    first = download_folder(fs, path)
    fs.pipe_file(f"{path}/a.txt", b"2")  # the same size, as retrained weights have
    second = download_folder(fs, path)
    assert (second / "a.txt").read_bytes() == b"2"
    assert first != second


@contextmanager
def served_pages(pages):
    """A web server of these pages by their paths; a path that ends with / is a listing."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, *, with_body):
            content = pages.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if with_body:
                self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "link", ["../../../../out.txt", "sub/../../../out.txt", "sub/..", "sub//../x", ".", "a\0b"]
)
def test_a_server_that_lists_what_is_not_in_the_folder_is_refused(tmp_path, monkeypatch, link):
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path / "one" / "two" / "cache"))
    listing = f'<a href="config.json">c</a> <a href="{link}">x</a>'.encode()
    pages = {"/m": listing, "/m/": listing, "/m/config.json": b"{}", "/out.txt": b"bad"}
    with served_pages(pages) as url:
        fs, path = filesystem(f"{url}/m/")
        with pytest.raises(InputError, match=r"which is no name of a file in this folder; nothing"):
            download_folder(fs, path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


class Bucket:
    """Object storage, where every text is a key and folders are only spoken of."""

    def __init__(self, **contents):
        self.contents = contents

    def find(self, path):
        return [key for key in self.contents if key.startswith(path)]

    def info(self, key):
        return {"size": len(self.contents[key])}

    def ukey(self, key):
        return self.contents[key]

    def get_file(self, key, file):
        Path(file).write_text(self.contents[key])

    def unstrip_protocol(self, path):
        return f"bucket://{path}"


@pytest.mark.parametrize("start", ["b/model//", "b/model///"])
def test_keys_with_empty_parts_are_downloaded_without_them(tmp_path, monkeypatch, start):
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path / "cache"))
    contents = {f"{start}config.json": "{}", f"{start}sub//a.txt": "1", "b/model/b.txt": "2"}
    there = download_folder(Bucket(**contents), "b/model")
    files = {p.relative_to(there).as_posix(): p.read_text() for p in there.rglob("*.*")}
    assert files == {"config.json": "{}", "sub/a.txt": "1", "b.txt": "2"}


def test_two_keys_that_would_be_one_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path / "cache"))
    bucket = Bucket(**{"b/model/config.json": "{}", "b/model//config.json": "[]"})
    said = "^b/model: lists 'b/model/config.json' and 'b/model//config.json', which would be one"
    with pytest.raises(InputError, match=said):
        download_folder(bucket, "b/model")
    assert list(tmp_path.iterdir()) == []


def test_a_listing_whose_links_begin_with_a_dot_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYMIA_CACHE", str(tmp_path / "cache"))
    listing = b'<a href="../">up</a> <a href="./a.txt">a</a> <a href="./sub/">sub</a>'
    below = b'<a href="./b.txt">b</a>'
    pages = {"/m/": listing, "/m/./sub": below, "/m/sub": below, "/m/a.txt": b"1"}
    pages |= {"/m/sub/b.txt": b"2", "/m/./sub/./b.txt": b"2", "/m/./a.txt": b"1"}
    with served_pages(pages) as url:
        there = download_folder(*filesystem(f"{url}/m/"))
    files = {p.relative_to(there).as_posix(): p.read_text() for p in there.rglob("*.txt")}
    assert files == {"a.txt": "1", "sub/b.txt": "2"}


def test_a_folder_on_a_web_server_that_changed_is_downloaded_again(tmp_path):
    """To fsspec such a file is what its name says, for good."""
    served = tmp_path / "served" / "m"
    served.mkdir(parents=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(served.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            for number, content in enumerate(("1", "2")):
                (served / "a.txt").write_text(content)
                os.utime(served / "a.txt", (number * 10, number * 10))
                fs, path = fsspec.core.url_to_fs(f"http://127.0.0.1:{server.server_port}/m/")
                fs.invalidate_cache()
                assert (download_folder(fs, path) / "a.txt").read_text() == content
        finally:
            server.shutdown()
