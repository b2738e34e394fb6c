"""What is passed on names no file, and no record by what can be guessed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from made_up_run import made_up_curves, made_up_result, made_up_scores
from typer.testing import CliRunner

from raymia.cli.main import app, compare, gate, report
from raymia.evidence.secret import SECRET_FILE, secret_of
from raymia.report.files import write_report, write_run
from raymia.results.disguise import Disguise
from raymia.results.events import read_events
from raymia.results.events import redacted as redacted_event
from raymia.results.folder import check_fit, load_run
from raymia.results.gate_result import GateOutcome, PrivacyClaim
from raymia.results.redaction import redact
from raymia.results.result import Dropped, FailedTarget, NotRun, ReferenceCard, SetAside
from raymia.run.status import EventLog, recorded
from raymia.storage.files import Folder
from raymia.util.errors import InputError
from raymia.util.hashing import digest_bytes
from raymia.util.reasons import CAME

FOLDER = "/home/ada/patients of 2026"
ID = digest_bytes(b"a text that is easily guessed")
SPEC = {
    "name": "reviews",
    "records": {
        "members": [f"{FOLDER}/surgery.jsonl", "s3://clinic/surgery"],
        "non_members": ["~/others.csv"],
    },
    "targets": [{"name": "tuned", "model": f"{FOLDER}/models/tuned"}, {"model": "org/model"}],
}


NO_ANSWER = (
    f"refused by the endpoint{CAME}status 400: surgery is too long",
    f"ValueError{CAME}no surgery",
    "refused by the endpoint: status 400: surgery is too long",
    "RuntimeError: no surgery\nof a patient",
    "the template cannot write it: surgery must alternate",
    "it has the token 7 ('surgery'), and the model has embeddings for 5 alone",
)
"""Errors that quote records, as they are written now and as earlier versions stored them."""


def leaky(**more):
    return made_up_result(
        made_up_scores(),
        audit_yaml=yaml.safe_dump(SPEC | more),
        records={"members": 60, "non_members": 60, "candidates": 0, "set_aside": 3},
        set_aside=[
            SetAside(where=f"{FOLDER}/surgery.jsonl line 3", record_id=ID, reason="empty"),
            SetAside(
                where="s3://clinic/surgery/part one.jsonl row 4",
                record_id=None,
                reason=f"a repetition of {FOLDER}/surgery.jsonl line 1",
            ),
            SetAside(
                where=f"{FOLDER}/pictures/surgery 1.png",
                record_id=None,
                reason="no such file; came: surgery 2.png",
            ),
        ],
        dropped=[
            Dropped(stage="tuned", record_id=ID, neighbor=None, reason=reason)
            for reason in (f"lost {ID}", *NO_ANSWER)
        ],
        dropped_total=1 + len(NO_ANSWER),
        references=[
            ReferenceCard(
                target="tuned", name="base", kind="base", model=f"{FOLDER}/models/surgery"
            )
        ],
        failed=[
            FailedTarget(name="x", reason="/scans/surgery/x.safetensors: damaged"),
            FailedTarget(name="y", reason=f"all 3 answers are an error, as: {NO_ANSWER[0]}"),
        ],
        problems=[f"file://{FOLDER}/surgery: gone", "see s3://clinic/surgery/x, and ask"],
    )


def redacted(result, secret=b"secret"):
    return redact(result, Disguise.of_audit(secret, yaml.safe_load(result.audit_yaml)))


def test_no_path_and_no_id_that_can_be_guessed_is_left():
    told = redacted(leaky()).model_dump_json()
    for word in ("surgery", "ada", "patients", "clinic", "others.csv", ID, "/scans"):
        assert word not in told
    for word in ("refused by the endpoint", "RuntimeError", "the template cannot write it"):
        assert word in told
    for word in ("org/model", "tuned", " line 3", " row 4", "a repetition of", "damaged"):
        assert word in told


def test_the_same_secret_gives_the_same_names_and_another_gives_others():
    one, same, other = (redacted(leaky(), secret) for secret in (b"1", b"1", b"2"))
    assert one == same
    assert one.dropped[0].record_id != other.dropped[0].record_id
    assert one.set_aside[0].record_id == one.dropped[0].record_id
    assert one.set_aside[0].where != other.set_aside[0].where
    assert redact(one, Disguise(b"2")) is one


def test_formulas_and_sources_stay_as_they_are():
    assert redacted(leaky()).attacks == leaky().attacks


def test_scores_are_called_by_the_same_names(tmp_path):
    store, run, scores = tmp_path / "store", tmp_path / "run", made_up_scores()
    store.mkdir()
    write_run(str(run), leaky(store=str(store)), [scores], made_up_curves(scores))
    write_report(str(run), redacted=True)
    secret = (store / SECRET_FILE).read_bytes()
    read, table = load_run(str(run))
    ids = scores["record_id"].to_pylist()
    assert table["record_id"].to_pylist() == [Disguise(secret).id(one) for one in ids]
    others, expected = (t.drop_columns(["record_id"]).to_pandas() for t in (table, scores))
    assert others.equals(expected)
    assert read.dropped[0].record_id == Disguise(secret).id(ID)
    before = (run / "metrics.json").read_bytes()
    write_report(str(run), redacted=True)
    assert (run / "metrics.json").read_bytes() == before
    for file in run.iterdir():
        assert secret not in file.read_bytes()


def test_the_secret_of_a_store_is_drawn_once_and_is_its_owners_alone(tmp_path):
    store = Folder(str(tmp_path))
    assert secret_of(store) == secret_of(store)
    assert len(secret_of(store)) == 32
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o077 == 0


def test_two_who_ask_first_have_one_secret(tmp_path, monkeypatch):
    store, others = Folder(str(tmp_path)), []

    def draw(size):
        if others:
            return b"2" * size
        others.append(None)
        others.append(secret_of(store))  # another asks between the look and the writing
        return b"1" * size

    monkeypatch.setattr("raymia.evidence.secret.secrets.token_bytes", draw)
    assert secret_of(store) == others[1] == (tmp_path / SECRET_FILE).read_bytes() == b"2" * 32


def test_a_secret_is_never_readable_by_others(tmp_path, monkeypatch):
    modes, link = [], os.link

    def seen(path, *more):
        modes.append(Path(path).stat().st_mode & 0o077)
        link(path, *more)

    monkeypatch.setattr("os.link", seen)
    assert len(secret_of(Folder(str(tmp_path)))) == 32
    assert modes == [0]


def test_a_secret_on_a_disk_without_links_is_its_owners_alone(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    store = Folder(str(tmp_path))
    assert secret_of(store) == secret_of(store)
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o077 == 0


def test_a_store_that_is_gone_is_not_made_for_its_secret(tmp_path):
    gone = Folder(str(tmp_path / "gone"))
    assert secret_of(gone) != secret_of(gone)
    assert not (tmp_path / "gone").exists()


# ------------------------------------------------------------- junit.xml and the events

QUOTING = (
    f"{FOLDER}/surgery.jsonl: all 3 answers are an error, as: refused by the endpoint{CAME}status "
    "400: surgery is too long"
)


@pytest.fixture
def told(tmp_path):
    """A run whose every file tells of a record, and the events of one that was killed before."""
    scores = made_up_scores()
    outcome = GateOutcome(
        target="tuned", condition="any.auc > 0.5", status="not_evaluated", reason=QUOTING
    )
    claim = PrivacyClaim(
        target="tuned", epsilon=1.0, delta=1e-5, status="not_evaluated", reason=QUOTING
    )
    lost = NotRun(target="tuned", attack="spv@self", reason=QUOTING)
    result = leaky(store=str(tmp_path / "store")).model_copy(
        update={"gate": [outcome], "privacy": [claim], "not_run": [lost]}
    )
    run = tmp_path / "run"
    EventLog(str(run), "killed").write(
        {"event": "target", "target": "tuned", "state": "failed", "why": QUOTING}
    )
    with pytest.raises(ValueError, match="surgery"), recorded(str(run), "last", "mine", ["tuned"]):
        raise ValueError(f"{QUOTING}\nand a second line on surgery")
    write_run(str(run), result, [scores], made_up_curves(scores))
    return run


def files_that_tell(run, word=b"surgery"):
    contents = {
        str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()
    }
    return [name for name, content in contents.items() if word in content]


def test_every_file_of_a_redacted_run_is_redacted(told):
    assert len(files_that_tell(told)) >= 5
    write_report(str(told), redacted=True)
    assert files_that_tell(told) == []
    case = (told / "junit.xml").read_text()
    assert "all 3 answers are an error, as: refused by the endpoint" in case
    killed, last = read_events(Folder(str(told))).values()
    assert "refused by the endpoint" in killed[0]["why"]
    assert [event["event"] for event in last] == ["run_started", "run_ended"]


def test_what_an_earlier_version_left_when_it_redacted_is_redacted_now(told):
    kept = {name: (told / name).read_bytes() for name in ("junit.xml", "events/last.jsonl")}
    write_report(str(told), redacted=True)
    for name, content in kept.items():
        (told / name).write_bytes(content)
    write_report(str(told), redacted=True)
    assert files_that_tell(told, b"too long") == files_that_tell(told, b"/home") == []


def test_events_are_redacted_once(told):
    write_report(str(told), redacted=True)
    before = read_events(Folder(str(told)))
    write_report(str(told), redacted=True)
    assert read_events(Folder(str(told))) == before


def test_events_of_an_audit_that_is_redacted_never_quote(tmp_path):
    disguise = Disguise.of_audit(b"s", SPEC)

    def told(event):
        return redacted_event(event, disguise)

    with recorded(str(tmp_path), "run", "mine", ["tuned"], told) as log:
        log.write({"event": "target", "target": "tuned", "state": "failed", "why": QUOTING})
        assert files_that_tell(tmp_path) == []
    assert files_that_tell(tmp_path) == []
    assert "refused by the endpoint" in read_events(Folder(str(tmp_path)))["run"][1]["why"]


def test_a_url_has_one_name_with_its_credentials_and_without():
    url = "https://host/surgery of 2026.jsonl?sig=s3cret"
    disguise = Disguise.of_audit(b"s", {"records": {"members": [url]}})
    said, kept = (disguise.text(f"{one}: gone") for one in (url, url.replace("s3cret", "***")))
    assert said == kept
    assert said.endswith(">: gone")
    assert "SECRET" not in disguise.text("cannot open s3://KEY:SECRET@other/x.jsonl")


def test_a_column_of_ids_is_keyed_as_each_is():
    column, disguise = pa.chunked_array([["a", "b"], ["a"]]), Disguise(b"s")
    assert disguise.ids(column).to_pylist() == [disguise.id(one) for one in "aba"]


# ------------------------------------------------------------------ scores and metrics


@pytest.fixture
def run(tmp_path):
    scores = made_up_scores()
    write_run(str(tmp_path / "run"), made_up_result(scores), [scores], made_up_curves(scores))
    return tmp_path / "run"


def refused(run, says):
    """By all three commands that read a run."""
    for command in (
        lambda: report(str(run)),
        lambda: gate(str(run), ["any.auc > 0.5"]),
        lambda: compare(str(run), str(run)),
    ):
        with pytest.raises(InputError, match=says):
            command()


def test_scores_that_were_changed_are_refused(run):
    table = pq.read_table(run / "scores.parquet")
    place = table.schema.get_field_index("score")
    changed = pa.array([1.0] * table.num_rows, pa.float64())
    pq.write_table(table.set_column(place, "score", changed), run / "scores.parquet")
    refused(run, "not the file that metrics.json beside it was measured from")


def test_metrics_that_were_changed_are_refused(run):
    """Also where nothing in the file itself says that they were, as in an earlier run."""
    content = json.loads((run / "metrics.json").read_text())
    content["metrics"] = content["metrics"][1:]
    (run / "metrics.json").write_text(json.dumps(content))
    refused(run, r"metrics\.json: its content was changed after the run wrote it")
    (run / "metrics.json").write_text(json.dumps({**content, "content_sha256": None}))
    refused(run, r"its metrics are not those that were measured from scores\.parquet")


def test_metrics_of_distinct_records_that_were_added_are_refused(run):
    content = json.loads((run / "metrics.json").read_text())
    assert content["distinct_metrics"] == []
    content |= {"distinct_metrics": content["metrics"], "content_sha256": None}
    (run / "metrics.json").write_text(json.dumps(content))
    refused(run, r"its metrics are not those that were measured from scores\.parquet")


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("verdict", None, {"finding": "no_leak_found", "sentence": "Nothing is leaked."}),
        ("records", "members", 10_000),
        ("problems", None, []),
        ("complete", None, False),
    ],
)
def test_what_is_not_measured_may_not_be_changed_by_hand_either(run, place, key, value):
    content = json.loads((run / "metrics.json").read_text())
    before = content[place] if key is None else content[place][key]
    assert before != value
    content[place] = value if key is None else {**content[place], key: value}
    (run / "metrics.json").write_text(json.dumps(content))
    refused(run, r"metrics\.json: its content was changed after the run wrote it")


def test_metrics_that_are_laid_out_otherwise_are_the_same(run):
    content = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(dict(reversed(content.items()))))
    assert check_fit(str(run)) is None
    assert write_report(str(run))


def test_runs_that_know_nothing_of_their_scores_and_runs_without_scores_are_read(run):
    (run / "scores.parquet").rename(run / "elsewhere")
    assert write_report(str(run))
    content = json.loads((run / "metrics.json").read_text())
    del content["scores_sha256"], content["content_sha256"]
    (run / "metrics.json").write_text(json.dumps(content))
    (run / "elsewhere").rename(run / "scores.parquet")
    assert write_report(str(run))


def forget_the_scores(run):
    """As in a run of an earlier version."""
    content = json.loads((run / "metrics.json").read_text())
    del content["scores_sha256"], content["content_sha256"]
    (run / "metrics.json").write_text(json.dumps(content))


def lose_the_scores(run):
    (run / "scores.parquet").unlink()


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (["gate", "--fail-if", "any.auc > 0.9"], forget_the_scores),
        (["report"], forget_the_scores),
        (["report"], lose_the_scores),
        (["compare"], forget_the_scores),
    ],
)
def test_commands_that_tell_of_a_run_say_where_nothing_confirms_its_metrics(run, command, change):
    def said():
        runs = [str(run)] * (2 if command == ["compare"] else 1)
        return CliRunner().invoke(app, [*command, *runs], env={"COLUMNS": "300"}).output

    whole = said()
    assert whole
    assert "note: " not in whole
    change(run)
    assert [line.endswith(("nothing confirms it", "nothing confirms"))
            for line in said().splitlines() if line.startswith("note: ")] == [True]  # fmt: skip
