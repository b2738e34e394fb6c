"""`raymia submit` against a real cluster with token authentication; and joining that cluster."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_line
import pytest
import yaml
from cluster_head import Head
from command_line import in_turn
from ray_fixtures import free_port, wait_until
from small_audit import Models, passages, write_small_audit

from raymia.engine.on_ray.package import AUDIT_FILE, pack
from raymia.util.errors import InputError

pytestmark = pytest.mark.usefixtures("own_ray")

EACH = 6


def raymia(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raymia", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """An audit whose records lie beside it, and whose store and output do not."""
    folder, kept = tmp_path_factory.mktemp("audit"), tmp_path_factory.mktemp("kept")
    texts = passages()
    return write_small_audit(
        folder, models, engine="ray", neighbors=None, references=None,
        members=texts[:EACH], non_members=texts[24 : 24 + EACH],
        store=str(kept / "store"), output=str(kept / "run"),
    )  # fmt: skip


def test_a_job_is_followed_to_its_end_and_submitted_again_goes_on_from_the_store(
    head: Head, file: Path
) -> None:
    first = raymia(head.environment, "submit", file, "--address", head.address)
    assert first.returncode == 0, first.stderr + first.stdout
    name = f"raymia-{pack(file).digest[:12]}"
    assert first.stdout.startswith(f"{name}-1: started; its log:\n")
    assert re.search(r"asked the models [1-9]\d* questions", first.stdout)
    again = raymia(head.environment, "submit", file, "--address", head.address)
    assert again.returncode == 0, again.stderr + again.stdout
    assert again.stdout.startswith(f"{name}-2: started; its log:\n")
    assert "asked the models 0 questions" in again.stdout
    assert head.token not in first.stdout + first.stderr + again.stdout + again.stderr


WAITS = """
import os, time
from pathlib import Path
if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
    while not Path("{file}").exists(): time.sleep(0.1)
    raise ValueError("it was let go")
"""


def test_a_job_that_runs_is_followed_and_ctrl_c_leaves_it_running_and_its_exit_code_is_passed_on(
    head: Head, file: Path, tmp_path: Path
) -> None:
    """Its plugin waits for a file, so it runs for as long as the test wants; then it fails."""
    content = yaml.safe_load(file.read_text())
    content |= {"store": str(tmp_path / "store"), "output": str(tmp_path / "run")}
    folder = tmp_path / "long"
    folder.mkdir()
    for name in ("members.jsonl", "non_members.jsonl"):
        (folder / name).write_bytes((file.parent / name).read_bytes())
    slow = folder / "audit.yaml"
    go_on = tmp_path / "go-on"
    (folder / "waits.py").write_text(WAITS.format(file=go_on))
    content["plugins"] = ["waits.py"]
    slow.write_text(yaml.safe_dump(content))
    submit = [sys.executable, "-m", "raymia", "submit", str(slow), "--address", head.address]
    output = (tmp_path / "output.txt").open("w+")
    watching = subprocess.Popen(submit, env=head.environment, stdout=output, stderr=output)

    def said() -> str:
        return (tmp_path / "output.txt").read_text()

    wait_until(lambda: "started; its log:" in said(), 60, "the job is submitted")
    assert said().endswith(": started; its log:\n"), said()
    name = said().splitlines()[-1].split(":", 1)[0]
    second = subprocess.Popen(
        submit, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert second.stdout is not None
    assert second.stdout.readline() == f"{name}: runs already; its log:\n"
    time.sleep(2)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 5
    assert f"{name} goes on. To follow it: raymia submit {slow}" in said()
    assert f"To stop it: ray job stop {name} --address {head.address}" in said()
    assert "Traceback" not in said()
    assert second.poll() is None
    go_on.touch()
    printed, _ = second.communicate(timeout=200)
    assert second.returncode == 2, printed  # as the job's own
    assert "raymia cannot go on:\n  plugin " in printed
    assert "waits.py: it was let go (line 6)" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_a_token_that_is_missing_or_wrong_is_said(head: Head, file: Path, token: str) -> None:
    shown = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    submitted, joined = in_turn(
        ["submit", file, "--address", head.address],
        ["audit", fresh(file, "wrong" if token else "missing")],
        folder=file.parent, environment=head.without_token(RAY_ADDRESS=head.joining, **shown),
    )  # fmt: skip
    for done, place in ((submitted, head.address), (joined, head.joining)):
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"the cluster at {place} asks for a token" in done.stderr
        assert "RAY_AUTH_MODE=token" in done.stderr
        for secret in (head.token, token or head.token):
            assert secret not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert joined.seconds < 40


def fresh(file: Path, name: str) -> Path:
    """The audit with a store of its own, so that there is something to ask."""
    content = yaml.safe_load(file.read_text())
    content |= {"store": f"{content['store']}-{name}", "output": f"{content['output']}-{name}"}
    other = file.parent / f"fresh-{name}.yaml"
    other.write_text(yaml.safe_dump(content))
    return other


def test_token_mode_without_a_token_is_said(head: Head, file: Path) -> None:
    environment = head.without_token(RAY_AUTH_MODE="token", RAY_ADDRESS=head.joining)
    done = raymia(environment, "audit", fresh(file, "none"))
    assert done.returncode == 2, done.stderr
    assert f"there is no token to show {head.joining}" in done.stderr


def test_an_address_nobody_answers_is_said_within_seconds(file: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    joined = command_line.raymia("audit", fresh(file, "off"), RAY_ADDRESS=place)
    assert joined.seconds < 40  # most of it to read the models' files
    assert joined.returncode == 2, joined.stderr
    assert f"no Ray answers at {place}" in joined.stderr
    assert "is the head up" in joined.stderr
    submitted = command_line.raymia("submit", file, "--address", f"http://{place}")
    assert submitted.returncode == 2
    assert f"nobody answers at http://{place}" in submitted.stderr


def test_what_the_cluster_can_never_hold_is_refused_within_a_minute(head: Head, file: Path) -> None:
    content = yaml.safe_load(fresh(file, "gpus").read_text())
    content["resources"] = {"target": {"actors": 2, "gpus": 1, "accelerator_type": "A10G"}}
    wrong = file.parent / "gpus.yaml"
    wrong.write_text(yaml.safe_dump(content))
    joining = subprocess.Popen(
        [sys.executable, "-m", "raymia", "audit", str(wrong)], text=True,
        env={**head.environment, "RAY_ADDRESS": head.joining, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert joining.stdout is not None
    assert joining.stdout.readline().startswith("reading ")
    assert joining.stdout.readline() == "joining Ray ...\n"
    started = time.monotonic()
    _, errors = joining.communicate(timeout=120)
    assert time.monotonic() - started < 60
    assert joining.returncode == 2, errors
    assert (
        "resources: target:tuned needs 1 GPU, a GPU of type A10G, and no machine has more than 0 "
        "GPU" in errors
    )
    assert not list(Path(content["store"]).glob("evidence/*/*/*.parquet"))


# ----------------------------------------------------------------- what a job takes along


def test_a_job_takes_the_records_beside_the_audit_and_nothing_else(
    file: Path, tmp_path: Path
) -> None:
    (file.parent / "secret.txt").write_text("not asked for")
    package = pack(file)
    assert set(package.files) == {AUDIT_FILE, "members.jsonl", "non_members.jsonl"}
    package.write(tmp_path)
    assert (tmp_path / "members.jsonl").read_bytes() == package.files["members.jsonl"].read_bytes()


def test_a_job_takes_along_what_the_audit_names_as_plugins_in_files(
    file: Path, tmp_path: Path
) -> None:
    pack(file).write(tmp_path)
    audit, plugin = tmp_path / AUDIT_FILE, tmp_path / "own.py"
    content = yaml.safe_load(audit.read_text())
    audit.write_text(yaml.safe_dump({**content, "plugins": ["own.py", "a_module"]}))
    plugin.write_text("# an attack")
    package = pack(audit)
    assert set(package.files) == {AUDIT_FILE, "members.jsonl", "non_members.jsonl", "own.py"}
    plugin.write_text("# another")
    assert pack(audit).digest != package.digest


def test_the_id_follows_the_content(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, path in pack(file).files.items():
        (copy / name).write_bytes(path.read_bytes())
    assert pack(copy / AUDIT_FILE).digest == pack(file).digest
    (copy / "members.jsonl").write_text('{"text": "other"}\n')
    assert pack(copy / AUDIT_FILE).digest != pack(file).digest


def test_what_a_job_cannot_take_along_is_refused_together(tmp_path: Path, models: Models) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "weights").mkdir()
    (tmp_path / "here" / "target").symlink_to(models.target)
    file = write_small_audit(
        tmp_path / "here", models, targets=[{"name": "t", "model": "target"}],
        records={"members": ["members.jsonl", "../outside.jsonl"], "candidates": "gone.jsonl"},
    )  # fmt: skip
    (tmp_path / "outside.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InputError) as caught:
        pack(file)
    said = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "target is a folder of weights beside the audit file" in said
    assert "store is store, which would be in the job's working directory" in said
    assert "output is run, which would be in" in said
    assert "../outside.jsonl is not below the audit file's folder" in said
    assert "gone.jsonl: no such file" in said
