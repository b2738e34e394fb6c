"""A whole audit whose records, weights, store and output are in object storage."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Done, raymia
from forks import programs
from object_store import (
    BUCKET,
    SECRET,
    bad_weather,
    client,
    credentials,
    object_store,
    put_folder,
)
from small_audit import BASE, Models, passages, write_small_audit, write_texts

pytestmark = pytest.mark.usefixtures("own_ray")

EACH = 6
Scores = dict[tuple[str, str, str], float | None]


logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def stored(endpoint: str, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records and weights are in the bucket; returns a folder for audit files."""
    folder = tmp_path_factory.mktemp("object-storage")
    texts = passages()
    for name, some in (("members", texts[:EACH]), ("non_members", texts[24 : 24 + EACH])):
        write_texts(folder / f"{name}.jsonl", some)
        client(endpoint).upload_file(str(folder / f"{name}.jsonl"), BUCKET, f"records/{name}.jsonl")
        (folder / f"{name}.jsonl").unlink()
    put_folder(endpoint, models.target, "models/target")
    put_folder(endpoint, BASE, "models/base")
    return folder


def audit_file(
    folder: Path, models: Models, name: str, members: str | None = None, engine: str = "ray"
) -> Path:
    root = f"s3://{BUCKET}"
    return write_small_audit(
        folder / name, models, members=[], non_members=[], neighbors=None, engine=engine,
        records={"members": members or f"{root}/records/members.jsonl",
                 "non_members": f"{root}/records/non_members.jsonl"},
        targets=[{"name": "tuned", "model": f"{root}/models/target"}],
        references={"base": {"model": f"{root}/models/base"}},
        store=f"{root}/{name}/store", output=f"{root}/{name}/run",
        resources={"block_records": EACH, "target": {"actors": 2}},
    )  # fmt: skip


def here(file: Path, endpoint: str) -> Done:
    """The audit in this process, with connections and downloads of its own."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    cache = str(file.parent / "cache")
    try:
        return raymia("audit", file, **credentials(endpoint), RAYMIA_CACHE=cache)
    finally:
        S3FileSystem.clear_instance_cache()


def process(file: Path, endpoint: str) -> Done:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    cache = {"RAYMIA_CACHE": str(file.parent / "cache")}
    return programs.raymia("audit", file, environment={**kept, **credentials(endpoint), **cache})


def content(endpoint: str, name: str) -> bytes:
    body: bytes = client(endpoint).get_object(Bucket=BUCKET, Key=name)["Body"].read()
    return body


def objects(endpoint: str, prefix: str) -> list[str]:
    pages = client(endpoint).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def scores(endpoint: str, name: str) -> Scores:
    rows = pq.read_table(io.BytesIO(content(endpoint, f"{name}/run/scores.parquet"))).to_pylist()
    found = {(row["target"], row["attack"], row["record_id"]): row["score"] for row in rows}
    assert len(found) == len(rows) > 0
    return found


@pytest.fixture(scope="module")
def calm(endpoint: str, stored: Path, models: Models) -> Scores:
    """The audit on a network that never fails, and members given by a presigned URL."""
    members = client(endpoint).generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": "records/members.jsonl"}
    )
    file = audit_file(stored, models, "calm", members)
    with bad_weather(endpoint, share=0) as (proxy, weather):
        first = process(file, proxy)
    assert first.returncode == 0, first.stdout + first.stderr
    weights = f"/{BUCKET}/models/target/model.safetensors"
    assert weather.asked[weights] == 1  # by a driver and two actors of one machine
    second = here(file, endpoint)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "asked the models 0 questions" in second.stdout
    assert "starting Ray" not in second.stdout
    signature = members.rpartition("Signature=")[2].partition("&")[0]
    assert len(signature) > 20
    said = first.stdout + first.stderr + second.stdout + second.stderr
    for name in objects(endpoint, "calm/"):
        said += content(endpoint, name).decode(errors="replace")
    assert signature not in said
    assert SECRET not in said
    return scores(endpoint, "calm")


def test_the_second_run_asks_nothing_and_says_no_credential(endpoint: str, calm: Scores) -> None:
    assert {attack for _, attack, _ in calm} >= {"loss", "zlib", "ratio@base"}
    names = {name.rpartition("/")[2] for name in objects(endpoint, "calm/run/")}
    assert names >= {"report.html", "metrics.json", "scores.parquet"}


def test_scores_are_the_same_bit_for_bit_when_requests_fail(
    endpoint: str, stored: Path, models: Models, calm: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymia.storage.remote.FIRST_PAUSE_SECONDS", 0.01)
    file = audit_file(stored, models, "storm", engine="local")
    with bad_weather(endpoint, share=0.1, seed=3) as (proxy, weather):
        done = here(file, proxy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert min(weather.failed[fault] for fault in ("500", "503", "dropped", "truncated")) >= 1
    assert scores(endpoint, "storm") == calm


def test_a_store_that_is_down_ends_the_run_with_its_url(
    endpoint: str, stored: Path, models: Models
) -> None:
    file = audit_file(stored, models, "down", engine="local")
    started = time.monotonic()
    with bad_weather(endpoint, share=1) as (proxy, weather):
        done = here(file, proxy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"s3://{BUCKET}/" in done.stderr.replace(f"{BUCKET}:", f"{BUCKET}/:")
    assert "failed 5 times" in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert sum(weather.seen.values()) < 200
    assert time.monotonic() - started < 120


def test_a_bucket_that_is_not_there_is_refused(endpoint: str, stored: Path, models: Models) -> None:
    file = audit_file(stored, models, "lost", engine="local")
    file.write_text(file.read_text().replace(f"s3://{BUCKET}/records", "s3://nobody-s/records"))
    done = here(file, endpoint)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "s3://nobody-s/records/members.jsonl: no such file" in done.stderr
