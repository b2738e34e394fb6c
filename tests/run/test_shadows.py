"""Shadows: the training of the target on random halves, and which was trained on what."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from rich.console import Console
from small_training import rows_of, tiny, weights, write_training
from tiny_models import passages

from raymia.cli.train import print_training_plan, train_shadows
from raymia.inputs.shadow_folders import _shadow
from raymia.modalities.resolve import resolve_inputs
from raymia.modalities.texts import training_estimate
from raymia.modalities.texts.shadow_training import shadow_trainings
from raymia.modalities.texts.target_training import resolve_target_training
from raymia.run import shadows as run_shadows_module
from raymia.run.audit import run_audit
from raymia.run.shadows import run_shadows
from raymia.run.train import run_training
from raymia.spec.file import load_spec
from raymia.spec.training_file import load_training
from raymia.storage.manifest import MANIFEST_FILE
from raymia.util.errors import InputError

COUNT = 4


def file_of(folder, count=COUNT, **sections):
    shadows = {"shadows": {"count": count}} if count else {}
    return write_training(folder, tiny("gpt2"), **{**shadows, **sections})


def shadows_of(file):
    return run_shadows(load_training(file), Console(quiet=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A target with its shadows, moved since."""
    folder = tmp_path_factory.mktemp("trained")
    file = file_of(folder / "made")
    run_training(load_training(file))
    shadows_of(file)
    shutil.move(folder / "made" / "out", folder / "out")
    return folder / "out"


def lines(path):
    return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]


def test_the_matrix_says_which_was_trained_on_what(trained):
    listed = json.loads((trained / "shadows" / MANIFEST_FILE).read_text())
    assert [one["folder"] for one in listed["shadows"]] == [f"shadow-0{n}" for n in range(COUNT)]
    matrix = pq.read_table(trained / "shadows" / listed["matrix"]).to_pydict()
    assert len(matrix["record_id"]) == listed["records"] == 24
    pool = {*lines(trained / "members.jsonl"), *lines(trained / "non_members.jsonl")}
    columns = [matrix[f"shadow-0{n}"] for n in range(COUNT)]
    assert [sum(column) for column in columns] == [12] * COUNT
    assert {sum(row) for row in zip(*columns, strict=True)} == {COUNT // 2}
    for number, column in enumerate(columns):
        own = trained / "shadows" / f"shadow-0{number}"
        members = {*lines(own / "members.jsonl")}
        assert members | {*lines(own / "non_members.jsonl")} == pool
        assert (len(members), sum(column)) == (12, 12)
        assert len([*own.glob("checkpoint-*")]) == 1


def test_an_audit_of_the_target_reads_its_shadows_by_itself(trained):
    inputs = resolve_inputs(load_spec(trained / MANIFEST_FILE))
    names = [f"shadow-0{n}" for n in range(COUNT)]
    assert [*inputs.spec.references] == ["base", *names]
    assert len({inputs.references[name].fingerprint for name in names}) == COUNT
    matrix = pq.read_table(trained / "shadows" / "in_out.parquet").to_pydict()
    for name in names:
        pairs = zip(matrix["record_id"], matrix[name], strict=True)
        assert inputs.shadow_members[name] == {record for record, is_in in pairs if is_in}
    labels = [attack.label for attack in inputs.attacks]
    own = {"lira", "lira_offline", "lira_t", "lira_t_offline", "learned_shadows", "ratio@base"}
    assert own <= {*labels}
    assert not [label for label in labels if "@shadow" in label], "each shadow would be one more"


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("may_run", [True, False])
def test_shadows_may_have_code_of_their_own_where_their_base_may(trained, method, may_run):
    folder = trained / "shadows" / "shadow-00"
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    base = {**manifest["base"], "trust_remote_code": may_run}
    shadow = _shadow(folder, {**manifest, "base": base, "method": {"kind": method}}, "checkpoint-1")
    assert shadow.trust_remote_code is may_run
    assert (shadow.adapter is None) is (method == "full")


ATTACKS = [
    "lira_t", "lira", "ratio@s-01", "loss", "rmia_shadows", "quantile_shadows", "learned_shadows"
]  # fmt: skip


def audit_with(folder, shadows, **reference):
    population = folder / "population.jsonl"
    others = rows_of(passages(54)[24:])
    population.write_text("".join(json.dumps(row) + "\n" for row in others), encoding="utf-8")
    content = {
        "from_training": str(shadows.parent),
        "references": {"s": {"kind": "shadows", "folder": str(shadows), **reference}},
        "attacks": ATTACKS,
        "records": {"population": str(population)},
        "resources": {"engine": "local"},
    }
    file = folder / "audit.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def test_attacks_score_every_record_by_the_shadows(tmp_path, trained):
    shadows = shutil.copytree(trained, tmp_path / "t") / "shadows"
    shutil.move(shadows, tmp_path / "t" / "kept")
    file = audit_with(tmp_path, tmp_path / "t" / "kept")
    result = run_audit(load_spec(file), Console(quiet=True))
    assert {one.attack: one.n_members for one in result.metrics} == dict.fromkeys(ATTACKS, 12)


# ------------------------------------------------------------------------------- kills


class Killed(KeyboardInterrupt):
    pass


@pytest.mark.training
def test_killed_shadows_go_on_and_end_as_they_would_have(tmp_path, trained, monkeypatch):
    file = file_of(tmp_path)
    calls = []

    def dying(_board, stage):
        def report(done, _total):
            calls.append((stage, done))
            if calls[-1] == ("train target-shadow-01", 1):
                raise Killed

        return report

    with monkeypatch.context() as patch:
        patch.setattr(run_shadows_module, "reporter", dying)
        with pytest.raises(Killed):
            shadows_of(file)
    out = tmp_path / "out" / "shadows"
    assert not (out / MANIFEST_FILE).exists()
    before = (out / "shadow-00" / MANIFEST_FILE).stat().st_mtime_ns
    shadows_of(file)
    assert (out / "shadow-00" / MANIFEST_FILE).stat().st_mtime_ns == before
    assert weights(out) == weights(trained / "shadows")


def runs(folder):
    return [json.loads(file.read_text())["run"] for file in sorted(folder.glob("*/manifest.json"))]


def test_more_shadows_leave_those_before_as_they_are(tmp_path, trained):
    more = shadow_trainings(resolve_target_training(load_training(file_of(tmp_path, COUNT + 2))))
    found = [one.plan.run for one in more]
    assert found[:COUNT] == runs(trained / "shadows")
    assert len({*found}) == COUNT + 2


def test_the_target_is_the_same_with_shadows_and_without(tmp_path, trained):
    plan = resolve_target_training(load_training(file_of(tmp_path, count=None))).plan
    assert plan.run == json.loads((trained / MANIFEST_FILE).read_text())["run"]


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"shadows": {"count": 3}}, "shadows: count is 3; give an even number, as 4"),
        ({"shadows": {"counts": 4}}, "shadows.counts: unknown key"),
        ({"split": {"members": 0.9}, "trainer": {"per_device_train_batch_size": 16}},
         "shadows: 12 members are fewer than one step takes"),
        ({"count": None}, "the training file asks for none"),
    ],
)  # fmt: skip
def test_shadows_that_cannot_be_trained_are_refused_before_anything_is_written(
    tmp_path, sections, message
):
    with pytest.raises(InputError, match=message):
        shadows_of(file_of(tmp_path, **sections))
    assert not (tmp_path / "out").exists()


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: edited(s / MANIFEST_FILE, lambda m: m["shadows"].pop()), "was edited"),
        (lambda s: (s / "in_out.parquet").write_bytes(b""), "in_out.parquet is not the file"),
        (lambda s: (s / "shadow-02" / "members.jsonl").write_text('{"text": "a"}\n'),
         "members.jsonl is not the file"),
        (lambda s: shutil.copytree(s / "shadow-01", s / "shadow-00", dirs_exist_ok=True),
         "another training than the shadows' manifest has"),
        (lambda s: (s / MANIFEST_FILE).unlink(), "manifest.json: no such|not there|no such file"),
        (lambda s: shutil.copy(s.parent / MANIFEST_FILE, s / MANIFEST_FILE),
         "is no manifest of shadows"),
    ],
    ids=["edited", "matrix", "members", "exchanged", "gone", "of a target"],
)  # fmt: skip
def test_a_folder_of_shadows_that_was_changed_is_refused(tmp_path, trained, spoil, message):
    out = shutil.copytree(trained, tmp_path / "out")
    shutil.move(out / "shadows", out / "kept")
    shutil.copytree(out / "kept", out / "shadows")
    file = audit_with(tmp_path, out / "shadows")
    spoil(out / "shadows")
    with pytest.raises(InputError, match=message):
        resolve_inputs(load_spec(file))


def test_a_name_that_a_shadow_would_share_is_refused(tmp_path, trained):
    file = audit_with(tmp_path, trained / "shadows")
    content = yaml.safe_load(file.read_text())
    content["references"]["s-01"] = {"model": str(tiny("gpt2"))}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="'s-01' would be the name of two references"):
        resolve_inputs(load_spec(file))


# ---------------------------------------------------------------------------- commands


def planned(folder, capsys, **sections):
    print_training_plan(file_of(folder, **sections), Console(width=160))
    return capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="the price is of another machine")
def test_the_plan_says_hours_and_cost_with_shadows_and_with_workers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training_estimate, "speed", lambda: 1e6)
    costs = {"per_hour": {"CPU": 0.5, "A10G": 1.2}, "currency": "EUR"}
    alone = planned(tmp_path, capsys, count=None, costs=costs)
    both = planned(tmp_path, capsys, costs=costs)
    assert "4, each on half of the records, about 12; engine local" in both

    def number(text, row):
        return float(re.search(rf"{row} +. +([\d.]+)", text)[1])

    for row in ("machine hours", "cost"):
        assert number(both, row) == pytest.approx(5 * number(alone, row), rel=0.1), row
    assert number(both, "cost") == pytest.approx(0.5 * number(both, "machine hours"), rel=0.1)
    workers = planned(tmp_path, capsys, count=None, resources={"num_workers": 2})
    assert "2, through Ray Train, each on 2 of a batch" in workers
    assert "no price under costs.per_hour" in planned(
        tmp_path, capsys, count=None, costs={"per_hour": {"A10G": 1.2}}
    )


@pytest.mark.training
def test_the_job_says_in_its_last_line_what_it_made(tmp_path, capsys):
    script = runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "train_shadows.py"))
    file = file_of(tmp_path, count=2, trainer={"max_steps": 1})
    assert script["main"]([str(file)]) == 0
    sums = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["members"] for one in sums["shadows"]] == [12, 12]
    assert script["main"]([str(tmp_path / "absent.yaml")]) == 2


@pytest.mark.slow
def test_on_ray_they_are_trained_side_by_side_and_come_out_the_same(tmp_path, trained):
    file = file_of(tmp_path, shadows={"count": COUNT, "engine": "ray", "cpus": 1})
    train_shadows(file)
    assert weights(tmp_path / "out" / "shadows") == weights(trained / "shadows")


def given_sides(folder, **sections):
    """A training whose members and held-out records are given, two of them nearly alike."""
    texts = passages(24)
    file = file_of(folder, 8, records={"members": "m.jsonl", "held_out": "h.jsonl"}, **sections)
    sides = {"m": texts[:12], "h": [texts[0].rsplit(" ", 1)[0] + " again", *texts[13:]]}
    for name, side in sides.items():
        rows = "".join(json.dumps(row) + "\n" for row in rows_of(side))
        (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    resolved = resolve_target_training(load_training(file))
    pair = {resolved.split.members[0].payload, resolved.split.held_out[0].payload}
    halves = [shadow.split.members for shadow in shadow_trainings(resolved)]
    return [len(pair & {record.payload for record in half}) for half in halves]


def test_near_repetitions_of_given_sides_are_on_one_side_of_every_shadow(tmp_path):
    assert sorted(given_sides(tmp_path / "together")) == [0] * 4 + [2] * 4
    apart = given_sides(tmp_path / "apart", split={"near_repetitions": "apart"})
    assert 1 in apart


def test_a_split_of_given_sides_is_refused_but_for_the_repetitions_of_shadows(tmp_path):
    for count, split in ((0, {"near_repetitions": "apart"}), (2, {"members": 0.3})):
        given = {"members": "m.jsonl", "held_out": "h.jsonl"}
        file = file_of(tmp_path, count, records=given, split=split)
        with pytest.raises(InputError, match="members and held-out records are given"):
            load_training(file)
