"""What is written is read back, whole, or refused in words."""

import dataclasses
import json
import math
import os
import uuid
import weakref
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from made_up_run import made_up_result, made_up_scores

import raymia
from raymia.report.files import write_report, write_run
from raymia.report.html import render
from raymia.results import folder as files
from raymia.results.folder import load_curves, load_run
from raymia.results.result import LONGEST_LIST, ReferenceCard, SetAside
from raymia.results.text_result import TextExample, TextPiece
from raymia.storage import lease
from raymia.storage.files import Folder
from raymia.util.errors import InputError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_written_run_is_read_back(folder, result, scores, curves):
    write_run(folder, result, [scores], curves)
    read, table = load_run(folder)
    assert read == result.model_copy(update={"scores_sha256": read.scores_sha256})
    assert table.drop_columns("score").equals(scores.drop_columns("score"))
    for written, found in zip(scores["score"].to_pylist(), table["score"].to_pylist(), strict=True):
        assert written == found or (math.isnan(written) and math.isnan(found))


def test_only_the_four_files_are_left(tmp_path, result, scores, curves):
    write_run(str(tmp_path), result, [scores], curves)
    write_run(str(tmp_path), result, [scores], curves)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["curves.parquet", "metrics.json", "report.html", "scores.parquet"]


def test_failed_rendering_leaves_the_earlier_run_untouched(
    folder, result, scores, monkeypatch, curves
):
    write_run(folder, result, [scores], curves)

    def broken(*_):
        raise RuntimeError("no report")

    monkeypatch.setattr("raymia.report.files.render", broken)
    with pytest.raises(RuntimeError):
        write_run(folder, made_up_result(scores, created="later"), [scores], curves)
    assert load_run(folder)[0].created == result.created


def test_run_cut_off_between_files_is_not_taken_for_whole(
    folder, result, scores, monkeypatch, curves
):
    write_run(folder, result, [scores], curves)
    write = Folder.write

    def killed(self, name, content):
        if name == files.METRICS_FILE:
            raise KeyboardInterrupt
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        write_run(folder, made_up_result(scores, created="later"), [scores], curves)
    with pytest.raises(InputError, match="scores are of another run"):
        load_run(folder)


def test_long_lists_are_cut_in_the_file_and_the_total_stays(folder, result, scores, curves):
    aside = [SetAside(where=str(i), record_id=None, reason="bad") for i in range(LONGEST_LIST + 5)]
    records = result.records.model_copy(update={"set_aside": len(aside)})
    write_run(folder, made_up_result(scores, set_aside=aside, records=records), [scores], curves)
    read, _ = load_run(folder)
    assert len(read.set_aside) == LONGEST_LIST
    assert read.records.set_aside == LONGEST_LIST + 5


def test_a_text_with_a_key_in_its_code_is_kept_as_it_is(folder, result, scores, curves):
    code = 'fetch("https://maps.example.com/json?key=" + KEY)'
    said = f"{code}; see https://host/données.jsonl?sig=s3cret\nand C:\\data"
    example = TextExample(
        target="tuned", attack="loss", record_id="r0", is_member=True, rank=1, of=60, score=1.0,
        outscored=None,
        pieces=[TextPiece(text=code), TextPiece(text=said)],
    )  # fmt: skip
    given = result.model_copy(update={"text_examples": [example], "problems": [said]})
    write_run(folder, given, [scores], curves)
    read, _ = load_run(folder)
    assert read.text_examples[0].pieces[0].text == code
    assert read.problems == [said.replace("s3cret", "***")]
    write_report(folder)
    for name in (files.METRICS_FILE, files.REPORT_FILE):
        assert b"s3cret" not in Folder(folder).read(name)


def test_charts_hide_credentials_and_are_still_json(result, curves):
    name = 'x https://host/data?a=1&sig=s3cret"'
    names = {"tuned": name, "base": "base"}
    drawn = [replace(one, target=names[one.target]) for one in curves]
    metrics = [one.model_copy(update={"target": names[one.target]}) for one in result.metrics]
    page = render(result.model_copy(update={"metrics": metrics}), drawn)
    charts = json.loads(page.partition('id="charts">')[2].partition("</script>")[0])
    assert 'https://host/data?a=1&sig=***"' in json.dumps(charts).replace("\\", "")
    assert "s3cret" not in page


def test_an_audit_file_that_an_earlier_version_damaged_is_said_to_be(folder, result):
    """Its line break was taken for a part of the signature before it."""
    damaged = result.model_copy(
        update={"audit_yaml": "a: https://host/x?sig=***b: 1\nc:\n  - d: e: f\n"}
    )
    with pytest.raises(InputError, match=r"an earlier version .* run the audit again"):
        files.settings_of(damaged, folder)


def test_list_longer_than_its_total_is_refused(result, scores):
    records = result.records.model_copy(update={"set_aside": 0})
    with pytest.raises(ValueError, match="set_aside lists 1 entries, but the total is 0"):
        made_up_result(scores, records=records)


def test_dropped_total_defaults_to_the_list_and_can_exceed_it(result, scores):
    assert result.dropped_total == 1
    assert made_up_result(scores, dropped_total=9).dropped_total == 9


def test_diverged_loss_is_kept_in_words():
    card = ReferenceCard(
        target="t", name="r", kind="k", model="m", facts={"loss": math.nan, "gap": -math.inf}
    )
    assert card.facts == {"loss": "nan", "gap": "-inf"}


def test_table_with_other_string_types_is_accepted(folder, result, scores, curves):
    encoded = scores.set_column(0, "target", scores["target"].dictionary_encode())
    write_run(folder, result, [encoded.append_column("note", pa.nulls(scores.num_rows))], curves)
    assert load_run(folder)[1].schema == scores.schema


def test_wrong_type_of_score_is_refused(folder, result, scores, curves):
    words = scores.set_column(4, "score", pa.array(["high"] * scores.num_rows))
    with pytest.raises(ValueError, match="do not fit their schema"):
        write_run(folder, result, [words], curves)


def test_missing_column_is_named(folder, result, scores, curves):
    with pytest.raises(ValueError, match="is_member is missing"):
        write_run(folder, result, [scores.drop_columns(["is_member"])], curves)


def test_scores_that_cannot_be_written_leave_the_earlier_ones(folder, result, scores, curves):
    write_run(folder, result, [scores], curves)
    pieces = [scores.slice(0, 100), scores.drop_columns(["is_member"])]
    with pytest.raises(ValueError, match="is_member is missing"):
        write_run(folder, result, pieces, curves)
    assert load_run(folder)[1].num_rows == scores.num_rows


def test_scores_are_taken_piece_by_piece(folder, result, scores, curves):
    """The next piece is made only when the one before it has been written."""
    alive = []

    def pieces():
        for start in range(0, scores.num_rows, 180):
            piece = pa.Table.from_pydict(scores.slice(start, 180).to_pydict(), scores.schema)
            alive.append(weakref.ref(piece))
            yield piece
            del piece
            assert sum(reference() is not None for reference in alive) <= 2

    write_run(folder, result, pieces(), curves)
    assert len(alive) == 6
    assert load_run(folder)[1].num_rows == scores.num_rows


def test_a_report_can_be_made_again_without_scores(folder, result, scores, curves):
    write_run(folder, result, [scores], curves)
    Folder(folder).remove(files.SCORES_FILE)
    again, drawn = load_curves(folder)
    assert render(again, drawn) == Folder(folder).read(files.REPORT_FILE).decode()
    for found, given in zip(drawn, curves, strict=True):
        for field in dataclasses.fields(given):
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(given, field.name), strict=True
            )


def test_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json: no such file"):
        load_run(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema_version": 99},
            "expected schema version 2, got 99: another version of raymia wrote",
        ),
        ({"seed": "seven"}, "not the metrics of a run: seed"),
        ({"surprise": 1}, "not the metrics of a run: surprise"),
    ],
)
def test_metrics_that_cannot_be_read_are_refused(tmp_path, result, scores, change, message, curves):
    write_run(str(tmp_path), result, [scores], curves)
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        load_run(str(tmp_path))


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "audit.yaml").write_text("name: a")
    with pytest.raises(InputError, match=r"audit\.yaml/metrics\.json: no such file"):
        load_run(str(tmp_path / "audit.yaml"))


def cut_short(content):
    return content[: len(content) // 2]


def overwritten(content):
    return content[:4] + b"?" * 400 + content[404:]


@pytest.mark.parametrize("damage", [cut_short, overwritten])
@pytest.mark.parametrize("name", ["scores.parquet", "curves.parquet"])
def test_a_damaged_table_is_refused_and_named(tmp_path, result, scores, curves, name, damage):
    write_run(str(tmp_path), result, [scores], curves)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))

    def read():
        run = raymia.load_run(tmp_path)
        return run.scores(run.targets[0])

    with pytest.raises(InputError, match=rf"{name}: not (a table of|the file that)"):
        read()


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_file_that_is_not_metrics_is_refused(tmp_path, result, scores, content, curves):
    write_run(str(tmp_path), result, [scores], curves)
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(InputError, match="not the metrics of a run"):
        load_run(str(tmp_path))


def test_candidates_have_scores_and_no_label(folder, result, curves):
    scores = made_up_scores()
    unknown = scores.set_column(3, "is_member", pa.nulls(scores.num_rows, pa.bool_()))
    everything = pa.concat_tables([scores, unknown])
    write_run(folder, result, [everything], curves)
    assert load_run(folder)[1].num_rows == 2 * scores.num_rows


def test_stored_run_is_redacted_for_good(tmp_path, scores, curves):
    example = TextExample(
        target="tuned", attack="loss", record_id="ab12", is_member=True, score=1.0, rank=1, of=60,
        outscored=0.5, pieces=[TextPiece(text="Zanzibar", log_prob=-1.0, typical=-2.0)],
    )  # fmt: skip
    write_run(str(tmp_path), made_up_result(scores, text_examples=[example]), [scores], curves)
    files = [tmp_path / "report.html", tmp_path / "metrics.json"]
    assert all("Zanzibar" in file.read_text(encoding="utf-8") for file in files)
    write_report(str(tmp_path), redacted=True)
    for file in files:
        content = file.read_text(encoding="utf-8")
        assert "Zanzibar" not in content
        assert "ab12" not in content
    assert load_run(str(tmp_path))[0].redacted


def test_a_report_is_not_written_anew_while_a_run_writes_to_its_folder(
    folder, result, scores, curves, monkeypatch
):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    write_run(folder, result, [scores], curves)
    before = Folder(folder).read("report.html")
    Folder(folder).write("report.html", b"of the run")
    with (
        lease.held(folder, "a run"),
        pytest.raises(InputError, match=f"a run of process {os.getpid()} on .* is writing to"),
    ):
        write_report(folder)
    assert Folder(folder).read("report.html") == b"of the run"
    write_report(folder)
    assert Folder(folder).read("report.html") == before


def test_a_folder_of_no_run_stays_as_it_is(tmp_path):
    with pytest.raises(InputError, match="is this a run's folder"):
        write_report(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
