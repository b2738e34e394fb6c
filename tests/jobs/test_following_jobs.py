"""Which cluster a job is sent to, and how it is followed: with a dashboard that is made up."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from aiohttp import web
from ray_fixtures import free_port

import raymia.modalities  # noqa: F401 (registers the kinds of records)
from raymia.engine.on_ray import submission
from raymia.engine.on_ray.package import pack
from raymia.engine.on_ray.submission import ADDRESS_VARIABLES, RECONNECTS, Jobs
from raymia.util.errors import RaymiaError

NAME = "raymia-0123-1"
LOG = "one\ntwo\nthree\n"


@dataclass
class Dashboard:
    """Answers as Ray's does, and cuts connections where a test wants it to.

    Attributes
    ----------
    tails : what each connection to the log is sent before it is cut; after the last of them, all.
    statuses : that the job has each time it is asked for; then it has ended. An empty one is no
        answer.
    """

    address: str
    tails: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    asked: int = 0
    packages: dict[str, bytes] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)

    async def version(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"version": "4", "ray_version": ray.__version__})

    async def jobs(self, _request: web.Request) -> web.Response:
        return web.json_response([])

    async def has_package(self, request: web.Request) -> web.Response:
        raise web.HTTPOk if request.match_info["name"] in self.packages else web.HTTPNotFound

    async def package(self, request: web.Request) -> web.Response:
        self.packages[request.match_info["name"]] = await request.read()
        return web.Response()

    async def submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        return web.json_response({"job_id": NAME, "submission_id": NAME})

    async def job(self, request: web.Request) -> web.Response:
        status = self.statuses.pop(0) if self.statuses else "SUCCEEDED"
        if not status:
            assert request.transport is not None
            request.transport.abort()
        content = {"type": "SUBMISSION", "submission_id": NAME, "entrypoint": "", "status": status}
        return web.json_response(content)

    async def log(self, request: web.Request) -> web.StreamResponse:
        if self.tails and not self.tails[0]:  # before it is a log
            self.tails.pop(0)
            raise web.HTTPBadGateway
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if not self.tails:
            await socket.send_str(LOG)
            await socket.close()
            return socket
        await socket.send_str(self.tails.pop(0))
        assert request.transport is not None
        request.transport.abort()
        return socket


def serve(dashboard: Dashboard, port: int, up: threading.Event, over: threading.Event) -> None:
    async def main() -> None:
        app = web.Application()
        app.router.add_get("/api/version", dashboard.version)
        app.router.add_get("/api/jobs/", dashboard.jobs)
        app.router.add_post("/api/jobs/", dashboard.submit)
        app.router.add_get("/api/packages/gcs/{name}", dashboard.has_package)
        app.router.add_put("/api/packages/gcs/{name}", dashboard.package)
        app.router.add_get("/api/jobs/{name}", dashboard.job)
        app.router.add_get("/api/jobs/{name}/logs/tail", dashboard.log)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        up.set()
        await asyncio.to_thread(over.wait)
        await runner.cleanup()

    asyncio.run(main())


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setattr(submission, "RECONNECT_SECONDS", 0.01)
    for name in ADDRESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    port, up, over = free_port(), threading.Event(), threading.Event()
    made = Dashboard(f"http://127.0.0.1:{port}")
    thread = threading.Thread(target=serve, args=(made, port, up, over))
    thread.start()
    assert up.wait(30)
    yield made
    over.set()
    thread.join(30)


@pytest.mark.parametrize("name", ADDRESS_VARIABLES)
def test_the_address_that_is_given_wins_over_the_one_in_the_environment(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    elsewhere = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv(name, elsewhere)
    jobs = Jobs(f"{dashboard.address}/")
    assert dashboard.asked
    assert [job.submission_id for job in jobs._client.list_jobs()] == []
    assert submission.os.environ[name] == elsewhere
    assert jobs.stopping(NAME) == (
        f"env -u {name} ray job stop {NAME} --address {dashboard.address}/"
    )


def test_a_client_that_went_elsewhere_is_not_used(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dashboard.address.replace("127.0.0.1", "localhost")
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient.get_address", lambda _: other)
    with pytest.raises(RaymiaError, match=f"Ray went to {other} in place of {dashboard.address}"):
        Jobs(dashboard.address)


def test_all_that_is_packed_arrives_whatever_the_folder_has_ray_ignore(
    dashboard: Dashboard, tmp_path: Path
) -> None:
    for name in ("data/a.jsonl", "data/venv/b.jsonl", "data/__pycache__/c.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "x"}')
    for name in (".gitignore", "data/.gitignore", "data/.rayignore"):
        (tmp_path / name).write_text("*.jsonl")
    file = tmp_path / "file.yaml"
    file.write_text(
        "records: {members: data}\ntargets: [{name: t, model: org/model}]\n"
        "store: s3://b/store\noutput: s3://b/run\n"
    )
    Jobs(dashboard.address).submit(pack(file))
    ((name, content),) = dashboard.packages.items()
    (job,) = dashboard.submitted
    assert job["runtime_env"]["working_dir"] == f"gcs://{name}"
    with zipfile.ZipFile(io.BytesIO(content)) as sent:
        assert set(sent.namelist()) == {
            "audit.yaml", "data/a.jsonl", "data/venv/b.jsonl", "data/__pycache__/c.jsonl"
        }  # fmt: skip
        assert sent.read("audit.yaml") == file.read_bytes()


def followed(dashboard: Dashboard) -> int:
    """In a thread of its own: in this one a browser's loop may run, that another test started."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(Jobs(dashboard.address).follow, NAME).result()


def test_a_log_is_printed_whole_and_once_over_lost_connections(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    # Refused before the log begins, cut after one line and after two; then what the job has come
    # to is not heard, and then it goes on for a while.
    dashboard.tails = ["", "one\n", "one\ntwo\n"]
    dashboard.statuses = ["", "RUNNING", ""]
    assert followed(dashboard) == 0
    assert capsys.readouterr().out == LOG
    assert not dashboard.tails
    assert not dashboard.statuses


def test_losses_are_counted_from_the_last_new_line_on(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [""] * (RECONNECTS - 2)
    dashboard.tails = [*few, "one\n", *few, "one\ntwo\n", *few]
    assert followed(dashboard) == 0
    assert capsys.readouterr().out == LOG
    dashboard.tails = [""] * RECONNECTS
    with pytest.raises(RaymiaError, match=rf"^lost the connection to .*the job {NAME} may go on"):
        followed(dashboard)
