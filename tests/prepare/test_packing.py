"""Several records in a row are trained on as if each stood alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chat_templates import TRIMMED_AND_MARKED
from small_chat_audit import conversation
from small_training import rows_of, tiny, train, write_training
from tiny_models import checkpoint, passages

from raymia.modalities.resolve import resolve_inputs
from raymia.modalities.texts.target_training import resolve_target_training
from raymia.models.causal.family import load_causal_lm
from raymia.prepare.packing import Packed, check_packing, filled, packed
from raymia.prepare.trainer import pad_batch
from raymia.records.conversations import NOT_TRAINED
from raymia.spec.file import load_spec
from raymia.spec.training_file import load_training
from raymia.storage.manifest import MANIFEST_FILE
from raymia.util.errors import InputError

ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]},
    {"input_ids": [9, 8, 7], "labels": [9, 8, 7]},
    {"input_ids": [3, 4, 5, 6], "labels": [-100, 4, 5, 6]},
]


def best_fit_decreasing(lengths, room):
    """How full the rows are, by looking at every row for every record."""
    rows = []
    for length in sorted(lengths, reverse=True):
        fits = [row for row in rows if sum(row) + length <= room]
        if fits:
            max(fits, key=sum).append(length)
        else:
            rows.append([length])
    return sorted(map(sum, rows))


@pytest.mark.parametrize("seed", range(5))
def test_every_record_stands_in_one_row_and_rows_are_filled_best_fit_decreasing(seed):
    lengths = np.random.default_rng(seed).integers(1, 33, 60).tolist()
    rows = filled(lengths, room=32)
    assert sorted(record for row in rows for record in row) == list(range(60))
    assert sorted(sum(lengths[n] for n in row) for row in rows) == best_fit_decreasing(lengths, 32)


def test_positions_begin_anew_and_no_first_token_carries_a_loss():
    row = packed(ROWS)
    assert row["position_ids"] == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]
    assert row["input_ids"] == [5, 6, 7, 8, 9, 9, 8, 7, 3, 4, 5, 6]
    assert row["labels"] == [-100, -100, 7, 8, 9, -100, 8, 7, -100, 4, 5, 6]


def model_of(kind):
    return load_causal_lm(checkpoint(tiny(kind)), batch_tokens=512).model


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "falcon", "llama"])
def test_the_loss_of_packed_rows_is_that_of_the_records(kind):
    """And so are the gradients, beside a shorter row that is padded."""
    model = model_of(kind)
    check_packing(model, ROWS)

    def gradients(rows):
        model.zero_grad()
        batch = pad_batch(rows)
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
        labels = batch["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=NOT_TRAINED
        )
        loss.backward()
        return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    loss, apart = gradients(ROWS)
    together, in_rows = gradients([*Packed(ROWS, ((0, 2), (1,)))])
    assert together == pytest.approx(loss, rel=1e-5)
    for one, other in zip(apart, in_rows, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("llama", lambda row: row.pop("position_ids"), "in a llama a record sees those before it"),
        ("gpt2", lambda row: row["position_ids"].add_(9), "a gpt2 reads a record otherwise after"),
        ("llama", lambda row: row["unknown"], "a llama cannot read several records in a row"),
    ],
)
def test_a_model_that_would_mix_records_is_refused(monkeypatch, kind, change, message):
    model = model_of(kind)
    forward = model.forward

    def otherwise(**batch):
        if "position_ids" in batch:
            change(batch)
        return forward(**batch)

    monkeypatch.setattr(model, "forward", otherwise)
    with pytest.raises(InputError, match=message):
        check_packing(model, ROWS)


def packed_training(folder, **sections):
    options = {"packing": True, "per_device_train_batch_size": 2}
    return write_training(folder, tiny("llama"), "full", trainer=options, **sections)


SHORT = [text[:70] for text in passages(24)]
CHATS = {
    "rows": [conversation(text) for text in SHORT],
    "training": {"loss_on": "assistant", "max_length": 120},
}


@pytest.mark.parametrize("chats", [False, True])
def test_a_packed_training_ends_where_the_same_records_in_rows_of_their_own_do(tmp_path, chats):
    """With all records in each step: then nothing but the rows differs."""
    sections = {"rows": rows_of(SHORT), "training": {"max_length": 64}}
    if chats:
        template = tmp_path / "template.jinja"
        template.write_text(TRIMMED_AND_MARKED)
        sections = {**CHATS, "training": {**CHATS["training"], "template": str(template)}}
    file = packed_training(tmp_path / "plan", **sections)
    rows = resolve_target_training(load_training(file)).plan.rows
    assert rows < 12
    found = {}
    for name, size, options in (("packed", rows, {"packing": True}), ("apart", 12, {})):
        trainer = {**options, "per_device_train_batch_size": size, "learning_rate": 0.001,
                   "lr_scheduler_type": "constant", "adam_epsilon": 1e-3}  # fmt: skip
        file = write_training(tmp_path / name, tiny("llama"), "full", trainer=trainer, **sections)
        found[name] = train(file)
    own, other = (found[name]["checkpoints"][-1] for name in ("packed", "apart"))
    assert own["epoch"] == other["epoch"] == 2
    for loss in ("train_loss", "held_out_loss"):
        assert own[loss] == pytest.approx(other[loss], abs=2e-3)
    assert (found["packed"]["training"]["packing"], found["apart"]["training"]["packing"]) == (
        "separate", "none",
    )  # fmt: skip


def test_an_audit_reads_packed_records_as_any_others(tmp_path):
    sections = {"rows": rows_of(SHORT), "training": {"max_length": 64}}
    manifest = train(packed_training(tmp_path, **sections))
    assert json.loads((tmp_path / "out" / MANIFEST_FILE).read_text())["trainer"]["packing"] is True
    inputs = resolve_inputs(load_spec(tmp_path / "out" / MANIFEST_FILE))
    (target,) = inputs.targets.values()
    assert target.training.packing == "separate"
    assert manifest["training"]["max_length"] == target.training.limit == 64
    plain = train(write_training(tmp_path / "plain", tiny("llama"), "full", **sections))
    other = resolve_inputs(load_spec(tmp_path / "plain" / "out" / MANIFEST_FILE))
    (beside,) = other.targets.values()
    assert target.training.key_parts() == beside.training.key_parts()
    assert "packing" not in load_training(tmp_path / "plain" / "training.yaml").trainer.key_parts()
    assert plain["training"]["packing"] == "none"
