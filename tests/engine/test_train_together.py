"""Several workers on Ray train the model that one worker trains."""

from __future__ import annotations

import json
import os

import pytest
from safetensors.numpy import load_file
from small_training import rows_of, tiny, train, write_training
from tiny_models import passages

from raymia.modalities.texts import run_training as run_train
from raymia.prepare import together
from raymia.prepare.train_target import train_target
from raymia.util.errors import RaymiaError

MEMBERS = 9
OPTIONS = {
    "max_steps": None, "num_train_epochs": 3, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2, "weight_decay": 0.1, "warmup_steps": 2,
}  # fmt: skip
"""Batches of 4, 4 and 1: for the last there is a worker without a record."""


def file_of(folder, **sections):
    folder.mkdir()
    texts = passages(MEMBERS + 5)
    for name, some in (("members", texts[:MEMBERS]), ("held_out", texts[MEMBERS:])):
        lines = "".join(json.dumps(row) + "\n" for row in rows_of(some))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    records = {"members": "members.jsonl", "held_out": "held_out.jsonl"}
    return write_training(folder, tiny("llama"), trainer=OPTIONS, records=records, **sections)


@pytest.mark.usefixtures("local_ray")
def test_two_workers_end_where_one_does_though_one_of_them_is_killed(tmp_path, monkeypatch):
    alone = train(file_of(tmp_path / "alone"))
    file = file_of(tmp_path / "both", resources={"num_workers": 2})
    steps = tmp_path / "steps.txt"
    own = [tmp_path / "both" / "out" / name / "notes.txt" for name in ("ray", "training")]
    for notes in own:
        notes.parent.mkdir(parents=True)
        notes.write_text("mine")

    def watched(dies_at):
        def training(plan, progress):
            def report(done, total):
                progress(done, total)
                with steps.open("a") as out:
                    out.write(f"{together.rank()}:{done} ")
                if (together.rank(), done) == (1, dies_at):
                    os._exit(1)

            return train_target(plan, report)

        return training

    monkeypatch.setattr(run_train, "train_target", watched(dies_at=3))
    with pytest.raises(RaymiaError):
        train(file)
    out = tmp_path / "both" / "out"
    assert {one.name for one in out.glob("checkpoint-*")} == {"checkpoint-2"}
    steps.write_text("")
    monkeypatch.setattr(run_train, "train_target", watched(dies_at=None))
    both = train(file)
    assert sorted(steps.read_text().split()) == [f"{r}:{n}" for r in (0, 1) for n in (3, 4, 5, 6)]
    assert (both["workers"], both["steps"]) == (2, alone["steps"]) == (2, 6)
    for one, other in zip(both["checkpoints"], alone["checkpoints"], strict=True):
        assert one == pytest.approx(other, abs=2e-4)
    for file in (tmp_path / "alone" / "out").glob("checkpoint-*/*.safetensors"):
        found = load_file(out / file.parent.name / file.name)
        for name, wanted in load_file(file).items():
            assert found[name] == pytest.approx(wanted, abs=1e-5), name
    assert not [one.name for one in out.iterdir() if one.name.startswith("raymia-")]
    assert [notes.read_text() for notes in own] == ["mine", "mine"]
