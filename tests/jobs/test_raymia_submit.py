"""`raymia submit` against a real cluster with token authentication; and joining that cluster."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import command_line
import pytest
import yaml
from cluster_head import Head
from forks import programs
from forks.programs import RAYMIA, Program
from ray_fixtures import free_port, wait_until
from small_audit import Models, passages, write_small_audit, write_texts

import raymia.modalities  # noqa: F401 (registers the kinds of records)
from raymia.engine.on_ray.package import AUDIT_FILE, Package, pack
from raymia.engine.on_ray.submission import command_of
from raymia.util.errors import InputError

pytestmark = pytest.mark.usefixtures("own_ray")

EACH = 6


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


WAITS = """
import os, time
from pathlib import Path
if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
    while not (go_on := Path("{file}")).exists(): time.sleep(0.1)
    if go_on.read_text() != "well": raise ValueError("it was let go")

from raymia.attacks.base import Attack, register

@register
class Waited(Attack):
    name = title = source = formula = "waited"
    def score(self, evidence): return []
"""


def long_job(file: Path, folder: Path, go_on: Path) -> tuple[Path, Path]:
    """The audit, and a plugin that waits for a file, so it runs for as long as a test wants; then
    it fails, unless the file says otherwise. The attack of the plugin is not named. Half of the
    questions are answered."""
    texts = [json.loads(line)["text"] for name in ("members", "non_members")
             for line in (file.parent / f"{name}.jsonl").read_text().splitlines()]  # fmt: skip
    members, others = texts[:EACH], texts[EACH:]
    content = yaml.safe_load(file.read_text())
    content |= {"store": str(folder / "store"), "output": str(folder / "run")}
    for name, some in (("members", members), ("non_members", others)):
        write_texts(file.parent / f"half-{name}.jsonl", some[: EACH // 2])
    half = file.parent / "half.yaml"
    halves = {"members": "half-members.jsonl", "non_members": "half-non_members.jsonl"}
    half.write_text(yaml.safe_dump({**content, "records": halves}))
    assert command_line.raymia("audit", half, "--engine", "local").returncode == 0
    place = folder / "long"
    place.mkdir()
    write_texts(place / "members.jsonl", members)
    write_texts(place / "non_members.jsonl", others)
    audit, plugin = place / "audit.yaml", folder / "waits.py"
    audit.write_text(yaml.safe_dump(content))
    plugin.write_text(WAITS.format(file=go_on))
    return audit, plugin


def test_a_job_is_followed_and_left_running_and_one_that_failed_goes_on_when_submitted_again(
    head: Head, file: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    audit, plugin = long_job(file, tmp_path, go_on)
    submit = ["submit", audit, "--address", head.address, "--plugin", plugin]
    where = {"environment": head.environment}
    watching = Program(RAYMIA, *submit, **where)
    wait_until(lambda: "started; its log:\n" in watching.stdout, 60, "the job is submitted")
    name = f"raymia-{pack(audit, [str(plugin)]).digest[:12]}"
    assert watching.stdout.startswith(f"{name}-1: started; its log:\n")
    second = Program(RAYMIA, *submit, **where)
    wait_until(lambda: second.stdout, 60, "it is found to run")
    assert second.stdout.startswith(f"{name}-1: runs already; its log:\n")
    watching.send(signal.SIGINT)
    left = watching.wait(30)
    assert left.returncode == 5
    follow = " ".join(map(str, ["raymia", *submit]))
    assert f"{name}-1 goes on. To follow it: {follow}\n" in left.stderr
    assert f"To stop it: ray job stop {name}-1 --address {head.address}" in left.stderr
    assert not second.has_ended
    go_on.write_text("")
    failed = second.wait(200)
    assert failed.returncode == 2, failed  # as the job's own
    assert "raymia cannot go on:\n  plugin " in failed.stdout
    assert "waits.py: it was let go (line 6)" in failed.stdout
    go_on.write_text("well")
    again = programs.raymia(*submit, **where)
    assert again.returncode == 0, again
    assert again.stdout.startswith(f"{name}-2: started; its log:\n")
    # Two questions on each record, of which half were answered.
    assert f"asked the models {2 * EACH} questions" in again.stdout
    assert f"stored already: {2 * EACH};" in " ".join(again.stdout.split())
    for done in (left, failed, again):
        assert "Traceback" not in done.stdout + done.stderr
        assert head.token not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_a_token_that_is_missing_or_wrong_is_said(head: Head, file: Path, token: str) -> None:
    shown = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    environment = head.without_token(RAY_ADDRESS=head.joining, **shown)
    audit = fresh(file, "wrong" if token else "missing")
    submitted, joined = (
        programs.raymia(*command, environment=environment)
        for command in (["submit", file, "--address", head.address], ["audit", audit])
    )
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
    done = programs.raymia("audit", fresh(file, "none"), environment=environment)
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
    environment = {**head.environment, "RAY_ADDRESS": head.joining}
    sooner = "from raymia.engine.on_ray import machines; machines.GRACE_SECONDS = 1.0"
    joining = Program(f"{sooner}; {RAYMIA}", "audit", wrong, environment=environment)
    wait_until(lambda: "joining Ray ...\n" in joining.stdout, 120, "it joins the cluster")
    assert joining.stdout.startswith("reading ")
    done = joining.wait(60)
    assert done.returncode == 2, done
    assert (
        "resources: target:tuned needs 1 GPU, a GPU of type A10G, and no machine has more than 0 "
        "GPU" in done.stderr
    )
    assert not list(Path(content["store"]).glob("evidence/*/*/*.parquet"))


# ----------------------------------------------------------------- what a job takes along


def unpack(package: Package, folder: Path) -> None:
    with TemporaryDirectory() as other:
        package.write(Path(other) / "files.zip")
        shutil.unpack_archive(Path(other) / "files.zip", folder)


def test_a_job_takes_the_records_beside_the_audit_and_nothing_else(
    file: Path, tmp_path: Path
) -> None:
    (file.parent / "secret.txt").write_text("not asked for")
    package = pack(file)
    assert set(package.files) == {AUDIT_FILE, "members.jsonl", "non_members.jsonl"}
    unpack(package, tmp_path)
    assert (tmp_path / "members.jsonl").read_bytes() == package.files["members.jsonl"].read_bytes()


def test_a_job_takes_along_what_the_audit_names_as_plugins_in_files(
    file: Path, tmp_path: Path
) -> None:
    unpack(pack(file), tmp_path)
    audit, plugin = tmp_path / AUDIT_FILE, tmp_path / "own.py"
    content = yaml.safe_load(audit.read_text())
    audit.write_text(yaml.safe_dump({**content, "plugins": ["own.py", "a_module"]}))
    plugin.write_text("# an attack")
    package = pack(audit)
    assert set(package.files) == {AUDIT_FILE, "members.jsonl", "non_members.jsonl", "own.py"}
    plugin.write_text("# another")
    assert pack(audit).digest != package.digest


def test_a_job_takes_along_the_plugins_that_the_command_line_names(
    file: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "my own.py"
    plugin.write_text("# an attack")
    package = pack(file, [str(plugin), "a_module"])
    assert package.files["plugin-1/my own.py"] == plugin
    assert command_of(package) == (
        "python -m raymia audit audit.yaml --plugin 'plugin-1/my own.py' --plugin a_module"
    )
    assert command_of(pack(file)) == "python -m raymia audit audit.yaml"
    assert len({pack(file, named).digest for named in ([], ["a_module"], [str(plugin)])}) == 3
    with pytest.raises(InputError, match=r"^--plugin: gone\.py: no such file$"):
        pack(file, ["gone.py"])


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
