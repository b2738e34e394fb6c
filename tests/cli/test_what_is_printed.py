"""No command prints what opens a door, or takes over the terminal."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from command_line import raymia
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tiny_models import BASE

from raymia.spec.file import load_spec
from raymia.storage.files import Folder
from raymia.util.credentials import hidden_in
from raymia.util.terminal import terminal

SECRET = "se/c+ret"
BUCKET = f"memory://me:{SECRET}@bucket"
RUN, STORE = f"{BUCKET}/run", f"{BUCKET}/store"
URL = f"s3://me:{SECRET}@bucket/file"
ESCAPE = "\x1b]0;evil\x07"


def write_audit(path, **changes):
    for name in ("members", "others"):
        rows = [
            {"text": f"the {name} have a text of their own, which is number {n}"} for n in range(6)
        ]
        (path.parent / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "name": "x",
        "records": {"members": "members.jsonl", "non_members": "others.jsonl"},
        "targets": [{"name": "one", "model": str(BASE)}],
        "attacks": ["loss"],
        "resources": {"engine": "local"},
        "shift": {"enabled": False},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content | changes))
    return path


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """What an audit printed that has credentials in its folders."""
    file = write_audit(tmp_path_factory.mktemp("audit") / "audit.yaml", output=RUN, store=STORE)
    return raymia("audit", file)


def test_an_audit_prints_no_credentials(audited):
    assert audited.returncode == 0, audited.stderr
    assert SECRET not in audited.stdout + audited.stderr
    assert "report: memory://***@bucket/run/report.html" in audited.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("report", RUN),
        ("report", RUN, "--redact"),
        ("status", RUN),
        ("gate", RUN, "--fail-if", "any.auc > 0.2"),
        ("export", RUN, "--to", "model-card"),
        ("compare", RUN, RUN),
        ("store", "ls", STORE),
        ("store", "verify", STORE),
        ("store", "gc", STORE),
        ("report", f"{BUCKET}/nothing"),
        ("status", f"{BUCKET}/nothing"),
        ("gate", f"{BUCKET}/nothing"),
        ("compare", RUN, f"{BUCKET}/nothing"),
        ("store", "ls", f"{BUCKET}/nothing"),
    ],
    ids=lambda command: " ".join(command).replace(BUCKET, "URL"),
)
@pytest.mark.parametrize("columns", [160, 30])
@pytest.mark.usefixtures("audited")
def test_no_command_prints_credentials(command, columns):
    done = raymia(*command, columns=columns)
    printed = "".join((done.stdout + done.stderr).split())
    assert printed
    assert SECRET not in printed
    assert "c+ret" not in printed


@pytest.mark.usefixtures("audited")
def test_a_file_that_is_not_there_is_named_as_it_was_given():
    assert (
        "memory://***@bucket/nothing/metrics.json" in raymia("report", f"{BUCKET}/nothing").stderr
    )
    assert Folder(URL).place("x") == f"{URL}/x"


@pytest.mark.usefixtures("audited")
def test_a_comparison_in_a_file_has_no_credentials(tmp_path):
    assert raymia("compare", RUN, RUN, "--json", tmp_path / "c.json").returncode == 0
    assert SECRET not in (tmp_path / "c.json").read_text()


def test_an_audit_file_is_kept_value_by_value(tmp_path):
    """Each but for its credentials, also where one ends a line of YAML, or stands in quotes."""
    signed = [f"memory://data/{name}?sig={SECRET}" for name in ("records.jsonl", "données.jsonl")]
    for url, who in zip(signed, ("members", "others"), strict=True):
        rows = [{"text": f"the {who} have a text of their own, number {n}"} for n in range(6)]
        place, _, name = url.rpartition("/data/")
        content = "".join(json.dumps(row) + "\n" for row in rows)
        Folder(f"{place}/data").write(name, content.encode())
    records = {"members": signed[0], "non_members": signed[1]}
    file = write_audit(tmp_path / "audit.yaml", records=records, output=str(tmp_path / "run"))
    done = raymia("audit", file)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["audit_yaml"]
    assert SECRET not in written
    expected = load_spec(file).model_dump(mode="json")
    assert yaml.safe_load(written) == hidden_in(expected)
    assert yaml.safe_load(written)["records"]["members"] == ["memory://data/records.jsonl?sig=***"]
    for command in (("compare", tmp_path / "run"), ("report", "--redact")):
        assert raymia(*command, tmp_path / "run").returncode == 0


@pytest.mark.parametrize("command", ["audit", "plan", "sweep", "train", "status"])
def test_the_name_of_a_file_does_not_reach_the_terminal_raw(tmp_path, command):
    file = tmp_path / f"audit{ESCAPE}.yaml"
    file.write_text("a: [")
    done = raymia(command, file)
    assert done.returncode == 2
    assert "audit?]0;evil?.yaml" in done.stderr
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


@pytest.mark.parametrize("command", ["audit", "plan"])
def test_nor_does_the_name_of_a_file_that_it_names(tmp_path, command):
    names = {"members": f"no{ESCAPE}.jsonl", "non_members": "others.jsonl"}
    done = raymia(command, write_audit(tmp_path / f"audit{ESCAPE}.yaml", records=names))
    assert done.returncode == 2
    assert "no?]0;evil?.jsonl" in done.stderr
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


@pytest.mark.parametrize("width", [20, 200])
@pytest.mark.parametrize(
    "drawn",
    [
        f"see {URL}",
        f"[bold]see {URL}[/bold]",
        Text(f"see {URL}", "bold"),
        Text.assemble("see ", (URL, "bold")),
        Panel(f"see {URL}", title=URL),
        f"see {ESCAPE}",
        Text(f"see {ESCAPE}"),
        f"https://host/file?token={SECRET}",
    ],
)
def test_whatever_is_drawn_is_sayable(monkeypatch, capsys, drawn, width):
    monkeypatch.setenv("COLUMNS", str(width))
    table = Table(title=drawn if isinstance(drawn, str) else "")
    table.add_column("what", overflow="fold")
    table.add_row(drawn)
    for one in (drawn, table):
        terminal().print(one)
    said = "".join(sign for sign in capsys.readouterr().out if sign not in " │\n")
    assert said
    assert "c+ret" not in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_what_hides_nothing_is_drawn_as_it_was(capsys):
    terminal().print(Text("größer 汉字 s3://bucket/a@b", "bold"), "runs/[ema]/[/x]")
    assert capsys.readouterr().out == "größer 汉字 s3://bucket/a@b runs/[ema]/[/x]\n"


def test_a_plan_names_a_folder_as_it_is(tmp_path):
    folder = tmp_path / "runs" / "[ema]" / "[" / "x]"
    shutil.copytree(BASE, folder)
    targets = [{"name": "one", "model": str(folder)}]
    done = raymia("plan", write_audit(tmp_path / "audit.yaml", targets=targets), columns=300)
    assert done.returncode == 0, done.stderr
    assert "runs/[ema]/[/x]" in done.stdout
