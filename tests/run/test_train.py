"""A training: its checkpoints are what an audit scores, and a kill changes none of them."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from chat_templates import TRIMMED_AND_MARKED
from command_line import raymia
from forks.programs import run
from rich.console import Console
from small_chat_audit import conversation
from small_training import (
    facts_of,
    rows_of,
    stopping_after,
    tiny,
    train,
    weights,
    write_training,
)
from tiny_models import beginning_model, passages

from raymia.modalities.resolve import resolve_inputs
from raymia.modalities.texts import run_training as run_train
from raymia.modalities.texts.target_training import resolve_target_training
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.rendering import TrainedReader
from raymia.prepare import train_target, trainer
from raymia.prepare.fine_tune import mean_loss
from raymia.results.deletions import deletion_lines
from raymia.run.audit import run_audit
from raymia.spec import TextRecordsSpec
from raymia.spec.file import load_spec
from raymia.spec.training_file import is_training_file, load_training
from raymia.storage.manifest import MANIFEST_FILE, write_manifest
from raymia.util.errors import InputError, RaymiaError

ARCHITECTURES = ("gpt2", "gptj", "falcon", "llama")
METHODS = ("full", "lora", "prefix", "p_tuning", "ia3")
CASES = [
    *((kind, method, 32) for kind in ARCHITECTURES for method in METHODS),
    ("gpt2", "dora", 32), ("llama", "dora", 32),
    ("gpt2", "qlora", 64), ("gptj", "qlora", 64), ("llama", "qlora", 64),
]  # fmt: skip
OFTEN = [
    (kind, method, width) for kind, method, width in CASES if kind == "gpt2" or method == "lora"
]
"""Each method, and each architecture; `make test-slow` has each with each, and kills each."""


def payloads(inputs, is_member):
    table = inputs.records.table.to_pylist()
    return [row["payload"] for row in table if row["is_member"] is is_member]


@pytest.mark.training
@pytest.mark.parametrize(
    ("kind", "method", "width"),
    [pytest.param(*case, marks=() if case in OFTEN else pytest.mark.slow) for case in CASES],
)
def test_every_method_ends_in_a_checkpoint_that_an_audit_scores_and_tells_from_the_base(
    tmp_path, kind, method, width
):
    manifest = train(write_training(tmp_path, tiny(kind, width), method))
    inputs = resolve_inputs(load_spec(tmp_path / "out" / MANIFEST_FILE))
    assert (inputs.records.count(True), inputs.records.count(False)) == (12, 12)
    assert inputs.assumed == ()
    ((name, target),) = inputs.targets.items()
    assert name == manifest["checkpoints"][0]["folder"]
    model = load_causal_lm(target, batch_tokens=1_024)
    # bitsandbytes has another kernel for asking than for training
    close = {"abs": 2e-2 if method == "qlora" else 2e-3}
    for is_member, key in ((True, "train_loss"), (False, "held_out_loss")):
        found = mean_loss(model, payloads(inputs, is_member))
        assert found == pytest.approx(manifest["checkpoints"][0][key], **close)
    texts = payloads(inputs, True)[:2]
    base = load_causal_lm(inputs.references["base"], batch_tokens=1_024)
    for own, other in zip(
        model.answer(texts, moments=False), base.answer(texts, moments=False), strict=True
    ):
        assert np.isfinite(own.log_prob).all()
        assert np.abs(own.log_prob - other.log_prob).max() > 1e-3, "nothing was trained"


# ------------------------------------------------------------------------------ kills


@pytest.mark.training
@pytest.mark.parametrize(
    ("kind", "method", "width"),
    [
        ("llama", {"kind": "lora", "r": 2, "lora_dropout": 0.3}, 32),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES),
    ],
    ids=str,
)
def test_three_kills_change_nothing(tmp_path, monkeypatch, kind, method, width):
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    options = {"max_steps": 7, "gradient_accumulation_steps": 2, "warmup_ratio": 0.3,
               "lr_scheduler_type": "cosine", "weight_decay": 0.1,
               "per_device_train_batch_size": 2, "save_strategy": "steps",
               "save_steps": 2}  # fmt: skip
    undisturbed = train(write_training(tmp_path / "whole", tiny(kind, width), method,
                                       trainer=options))  # fmt: skip
    file = write_training(tmp_path / "killed", tiny(kind, width), method, trainer=options)
    for step in (1, 2, 5):
        with stopping_after(step, monkeypatch):
            train(file)
        assert not (tmp_path / "killed" / "out" / MANIFEST_FILE).exists()
    resumed = train(file)
    assert [one["step"] for one in resumed["checkpoints"]] == [2, 4, 6, 7]
    assert facts_of(resumed) == facts_of(undisturbed)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
import torch
from raymia.prepare import trainer
from raymia.modalities.texts import run_training as train
from raymia.run.train import run_training
from raymia.spec.training_file import load_training

torch.set_num_threads(1)  # as tests do
trainer.SAVE_SECONDS = 0

@contextmanager
def bar(*_):
    yield lambda done, total: done == 3 and os.kill(os.getpid(), signal.SIGKILL)

train.progress_bar = bar
run_training(load_training(Path(sys.argv[1])))
"""


@pytest.mark.training
def test_a_process_that_is_killed_is_gone_on_with_by_another(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    file = write_training(tmp_path / "killed", tiny("gpt2"), "p_tuning", trainer=options)
    child = run(KILLED, file)
    assert child.returncode == -signal.SIGKILL, child.stderr
    resumed = train(file)
    whole = train(write_training(tmp_path / "whole", tiny("gpt2"), "p_tuning", trainer=options))
    assert facts_of(resumed) == facts_of(whole)


@pytest.mark.training
def test_a_finished_training_is_left_as_it_is(tmp_path, monkeypatch):
    file = write_training(tmp_path, tiny("gpt2"))
    manifest = train(file)
    monkeypatch.setattr(run_train, "train_target", None)
    assert train(file) == manifest
    assert not (tmp_path / "out" / "training").exists()


@pytest.mark.training
@pytest.mark.parametrize("stage", ["finished", "stopped"])
def test_a_folder_of_another_training_is_refused(tmp_path, monkeypatch, stage):
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    file = write_training(tmp_path, tiny("gpt2"), trainer=options)
    if stage == "finished":
        train(file)
    else:
        with stopping_after(2, monkeypatch):
            train(file)
    before = weights(tmp_path / "out")
    file = write_training(tmp_path, tiny("gpt2"), trainer={**options, "learning_rate": 0.02})
    with pytest.raises(InputError, match="other records, settings, seed or base"):
        train(file)
    assert weights(tmp_path / "out") == before


# -------------------------------------------------------------------- what is trained


def chats(count, **more):
    return [{**conversation(text), **more} for text in passages(count)]


@pytest.mark.training
def test_the_mask_of_the_training_is_that_of_the_audit_token_by_token(tmp_path, monkeypatch):
    (tmp_path / "template.jinja").write_text(TRIMMED_AND_MARKED, encoding="utf-8")
    rows = chats(20)
    for row in rows[::3]:  # of several turns, the last of which ends the record
        row["messages"] = [*row["messages"], {"role": "user", "content": "And?"},
                           {"role": "assistant", "content": "No more."}]  # fmt: skip
    trained = []
    original = train_target.run_trainer

    def spy(model, rows, *given, **options):
        trained.extend(rows)
        return original(model, rows, *given, **options)

    monkeypatch.setattr(train_target, "run_trainer", spy)
    train(write_training(tmp_path, tiny("llama"), rows=rows, training={
        "template": "template.jinja", "loss_on": "assistant", "max_length": 60,
    }))  # fmt: skip
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")  # the manifest names all relative to it
    inputs = resolve_inputs(load_spec(tmp_path / "elsewhere" / MANIFEST_FILE))
    (target,) = inputs.targets.values()
    model = load_causal_lm(target, batch_tokens=1_024)
    records = TrainedReader(model.tokenizer, target.training).read(payloads(inputs, True))
    assert len(records) == len(trained) == 10
    for record, row in zip(records, trained, strict=True):
        assert record.ids == row["input_ids"]
        scored = [label != -100 for label in row["labels"]]
        assert record.scored.tolist() == scored
        assert 0 < sum(scored) < len(scored)
    answers = model.answer(payloads(inputs, True), moments=False)
    assert [len(a.log_prob) for a in answers] == [sum(r.scored) for r in records]


@pytest.mark.training
@pytest.mark.parametrize(
    ("rows", "training"),
    [
        ([{"prompt": t[:20], "completion": t[20:]} for t in passages(16)], {}),
        ([{"prompt": t[:9], "chosen": t[9:], "rejected": "No."} for t in passages(16)], {}),
        ([{"input_ids": [n + 5, 7, 9, n], "labels": [-100, 7, -100, n]} for n in range(16)], {}),
        (rows_of(passages(16)), {"eos": False}),
    ],
    ids=["completion", "preference", "tokens", "text without end"],
)
def test_every_format_is_trained_on_and_audited_as_it_was(tmp_path, rows, training):
    manifest = train(write_training(tmp_path, tiny("gpt2"), rows=rows, training=training))
    inputs = resolve_inputs(load_spec(tmp_path / "out" / MANIFEST_FILE))
    (target,) = inputs.targets.values()
    model = load_causal_lm(target, batch_tokens=1_024)
    found = mean_loss(model, payloads(inputs, True))
    assert found == pytest.approx(manifest["checkpoints"][0]["train_loss"], abs=2e-3)
    assert inputs.records.count(True) == 8


@pytest.mark.training
def test_a_training_that_added_no_tokens_to_texts_is_audited_so(tmp_path):
    base = beginning_model(tmp_path / "base")
    manifest = train(write_training(
        tmp_path, base, rows=rows_of(passages(16)), training={"special_tokens": False}
    ))  # fmt: skip
    inputs = resolve_inputs(load_spec(tmp_path / "out" / MANIFEST_FILE))
    (target,) = inputs.targets.values()
    assert not target.training.special_tokens
    found = mean_loss(load_causal_lm(target, batch_tokens=1_024), payloads(inputs, True))
    assert found == pytest.approx(manifest["checkpoints"][0]["train_loss"], abs=2e-3)


def test_a_record_that_cannot_be_read_is_set_aside_and_is_no_member(tmp_path):
    rows = rows_of([*(text[:120] for text in passages(12)), " ".join(passages(3))])
    found = resolve_target_training(load_training(write_training(
        tmp_path, tiny("gpt2"), rows=rows, training={"max_length": 100, "truncate": "drop"}
    )))  # fmt: skip
    (one,) = found.set_aside
    assert one.reason == "longer than 100 tokens, so it is left out"
    assert one.where.endswith("line 13")
    assert len(found.split.members) + len(found.split.held_out) == 12


def test_what_is_not_said_of_the_length_is_what_the_model_reads(tmp_path):
    def length(method):
        file = write_training(tmp_path, tiny("gpt2"), method, training={})
        return resolve_target_training(load_training(file)).plan.training.max_length

    assert (length("lora"), length("prefix")) == (128, 124)


@pytest.mark.training
def test_the_training_stops_where_held_out_records_are_no_better(tmp_path, monkeypatch):
    options = {"max_steps": 12, "learning_rate": 0.2, "save_strategy": "steps", "save_steps": 1,
               "early_stopping_patience": 2}  # fmt: skip
    manifest = train(write_training(tmp_path / "a", tiny("gpt2"), "full", trainer=options))
    losses = [one["held_out_loss"] for one in manifest["checkpoints"]]
    assert manifest["stopped_early"]
    assert len(losses) < 12
    assert min(losses) == losses[-3]
    file = write_training(tmp_path / "b", tiny("gpt2"), "full", trainer=options)
    with stopping_after(len(losses), monkeypatch):  # it had stopped, and nobody was told
        train(file)
    assert facts_of(train(file)) == facts_of(manifest)


@pytest.mark.training
def test_a_loss_that_is_no_number_ends_the_training_and_says_where(tmp_path):
    options = {"learning_rate": 1e30, "max_steps": 9, "max_grad_norm": 0}
    file = write_training(tmp_path, tiny("gpt2"), "full", trainer=options)
    with pytest.raises(RaymiaError, match=r"step [2-4]: the loss is (nan|inf).*learning_rate"):
        train(file)
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trainer": {"per_device_train_batch_size": 13}}, "12 members are fewer than one step"),
        ({"method": {"kind": "lora", "target_modules": ["q_proj"]}},
         "no layer q_proj; its layers end in .*c_attn"),
        ({"method": {"kind": "ia3", "target_modules": ["c_attn"], "feedforward_modules": ["zzz"]}},
         "method.feedforward_modules: the model has no layer zzz; its layers end in .*c_attn"),
        ({"method": {"kind": "ia3", "target_modules": ["c_attn"],
                     "feedforward_modules": ["c_fc"]}},
         "feedforward_modules: c_fc is not among `target_modules`, c_attn"),
        ({"method": {"kind": "ia3", "feedforward_modules": ["c_fc"]}},
         "some of `target_modules`, which has to be given"),
        ({"method": {"kind": "prefix", "encoder_hidden_size": 10}},
         "encoder_hidden_size is of a network .*`prefix_projection: true`"),
        ({"method": {"kind": "lora", "rank": 3}}, "method.rank: unknown key"),
        ({"trainer": {"lr": 3}}, "trainer.lr: unknown key"),
        ({"training": {"max_length": 500}}, "max_length: 500 tokens do not fit the base"),
        ({"training": {"packing": "joined"}}, r"a row of its own.*trainer: \{packing: true\}"),
        ({"trainer": {"packing": True, "per_device_train_batch_size": 12},
          "training": {"max_length": 128}},
         r"12 members, packed into \d+ rows, are fewer than one step takes \(12"),
        ({"trainer": {"packing": True}, "method": {"kind": "prefix", "num_virtual_tokens": 4}},
         "trainer.packing: virtual tokens stand before a row"),
        ({"trainer": {"packing": True}, "dpo": {"beta": 0.1}}, "with `dpo` each record has a row"),
        ({"resources": {"num_workers": 3}},
         r"3 workers cannot share a per_device_train_batch_size of 4.*give 3 or 6"),
        ({"resources": {"num_workers": 8}}, "8 workers are more than a per_device.* of 4"),
        ({"resources": {"num_workers": 2}, "dp": {"epsilon": 1, "delta": 1e-3}},
         "resources.num_workers: with `dp` one worker trains"),
        ({"resources": {"num_workers": 2}, "dpo": {"beta": 0.1}}, "with `dpo` one worker trains"),
        ({"resources": {"use_gpu": True}}, "resources: one worker trains in this process"),
        ({"split": {"members": 0.01}}, "0 would be trained on"),
        ({"records": {"members": "records.jsonl"}}, "both `members` and `held_out`"),
        ({"base": "https://host/model?sig=s3cret"}, "base: model should be .* without credentials"),
        ({"base": "s3://key:s3cret@bucket/model"}, "base: model should be .* without credentials"),
        ({"base": Path("/nowhere")}, "base.model: no such folder: /nowhere"),
        ({"records": {"files": "absent.jsonl"}}, "absent.jsonl: no such file"),
    ],
)  # fmt: skip
def test_wrong_input_is_named_before_anything_is_written(tmp_path, sections, message):
    file = write_training(tmp_path, **{"base": tiny("gpt2"), **sections})
    with pytest.raises(InputError, match=message) as refused:
        train(file)
    assert "s3cret" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "quantization", "message"),
    [
        ("full", {"quant_method": "bitsandbytes", "load_in_4bit": True,
                  "bnb_4bit_quant_type": "nf4"}, r"saved quantized \(nf4\).*an adapter"),
        ("lora", {"quant_method": "fp8", "weight_block_size": [32, 32]},
         r"saved quantized \(fp8\), and no gradient passes"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_trained_are_refused(tmp_path, method, quantization, message):
    base = shutil.copytree(tiny("llama"), tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    with pytest.raises(InputError, match=message):
        train(write_training(tmp_path / "t", base, method))


def test_a_model_that_would_not_be_quantized_is_no_qlora(tmp_path):
    with pytest.raises(InputError, match="quantizes no layer of a falcon"):
        train(write_training(tmp_path, tiny("falcon"), "qlora"))


# -------------------------------------------------------------- manifest and commands


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(write_training(folder, tiny("llama"), trainer={"max_steps": None, "num_train_epochs": 2}))
    return folder


def in_manifest(change):
    def edit(out):
        path = out / MANIFEST_FILE
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def append(name):
    def edit(out):
        (file,) = out.glob(name)
        file.write_bytes(file.read_bytes() + b"\n")

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (in_manifest(lambda m: m["checkpoints"][0].update(held_out_loss=1.0)), "was edited"),
        (in_manifest(lambda m: m["training"].update(loss_on="all", eos=False)), "was edited"),
        (in_manifest(lambda m: m.pop("seal")), "was edited"),
        (append("non_members.jsonl"), "non_members.jsonl is not the file"),
        (append("checkpoint-3/adapter_model.safetensors"), "adapter_model.* is not the file"),
        (lambda out: (out / "members.jsonl").unlink(), "members.jsonl is not there"),
    ],
)
@pytest.mark.parametrize("way", ["alone", "in an audit file"])
def test_what_was_edited_is_refused(trained, tmp_path, edit, message, way):
    shutil.copytree(trained / "out", tmp_path / "out")
    edit(tmp_path / "out")
    file = tmp_path / "out" / MANIFEST_FILE
    if way == "in an audit file":
        file = tmp_path / "audit.yaml"
        file.write_text("from_training: out\n")
    with pytest.raises(InputError, match=message):
        load_spec(file)


def test_checkpoints_that_are_listed_by_an_edited_manifest_are_refused(trained, tmp_path):
    shutil.copytree(trained / "out", tmp_path / "out")
    in_manifest(lambda m: m["checkpoints"].pop())(tmp_path / "out")
    file = tmp_path / "audit.yaml"
    file.write_text(
        "records: {members: out/members.jsonl}\n"
        f"targets: [{{manifest: out/manifest.json, model: {tiny('llama')}}}]\n"
    )
    with pytest.raises(InputError, match="was edited after the training"):
        resolve_inputs(load_spec(file))


def test_an_audit_file_says_otherwise_key_by_key(trained, tmp_path):
    file = tmp_path / "audit.yaml"
    file.write_text(
        f"from_training: {trained / 'out'}\n"
        "name: mine\n"
        "training: {max_length: 9}\n"
        "references: {other: {model: gpt2}}\n"
    )
    spec = load_spec(file)
    assert (spec.name, spec.training.max_length, spec.training.loss_on) == ("mine", 9, "all")
    assert {*spec.references} == {"base", "other"}
    assert spec.records.split == "randomized"


def test_the_manifest_says_all_of_the_training(trained):
    manifest = json.loads((trained / "out" / MANIFEST_FILE).read_text())
    assert [(one["step"], one["epoch"]) for one in manifest["checkpoints"]] == [(3, 1), (6, 2)]
    assert all(math.isfinite(one["train_loss"]) for one in manifest["checkpoints"])
    assert manifest["trainable_parameters"] == 2 * (32 + 32 + 32 + 16) * 2
    assert manifest["split"]["members"] == manifest["split"]["held_out"] == 12
    assert manifest["trainer"]["num_train_epochs"] == 2
    assert {"raymia", "hash", "torch", "transformers", "peft"} <= {*manifest["code"]}
    rest = {key: value for key, value in manifest.items() if key not in ("kind", "seal")}
    assert write_manifest(trained / "again", rest, TextRecordsSpec.manifest) == manifest


@pytest.mark.training
def test_the_command_trains_and_audits_with_no_more_than_the_manifest(tmp_path):
    file = write_training(tmp_path, tiny("gpt2"), "full", trainer={"max_steps": 1})
    planned = raymia("plan", file)
    assert planned.returncode == 0, planned.stderr
    for said in (
        "12 members, 12 held out",
        "95,104 of 95,104",
        "1 (3 an epoch)",
        "GiB",
        "at least",
    ):
        assert said in planned.stdout
    assert not (tmp_path / "out").exists()
    done = raymia("train", file)
    assert done.returncode == 0, done.stderr
    assert "checkpoint-1" in done.stdout
    audited = raymia("audit", tmp_path / "out" / MANIFEST_FILE, "--engine", "local")
    assert audited.returncode == 0, audited.stderr
    result = json.loads((tmp_path / "out" / "raymia-run" / "metrics.json").read_text())
    assert (result["records"]["members"], result["records"]["non_members"]) == (12, 12)
    assert {one["target"] for one in result["metrics"]} == {"checkpoint-1"}
    refused = raymia("train", tmp_path / "absent.yaml")
    assert refused.returncode == 2
    assert "no such training file" in refused.stderr


@pytest.mark.training
def test_the_job_says_in_its_last_line_how_it_ended(tmp_path, capsys):
    import runpy

    script = runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "train_lm.py"))
    file = write_training(tmp_path, tiny("gpt2"), trainer={"max_steps": 1})
    assert script["main"]([str(file)]) == 0
    sums = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (sums["steps"], sums["problems"]) == (1, [])
    assert script["main"]([str(tmp_path / "absent.yaml")]) == 2


# ------------------------------------------------------------------------ claims of privacy


@pytest.fixture(scope="module")
def trained_by_heart(tmp_path_factory):
    """A training that learned its members by heart."""
    folder = tmp_path_factory.mktemp("by heart")
    options = {"max_steps": 60, "per_device_train_batch_size": 16, "save_strategy": "no"}
    rows = rows_of(text[:60] for text in passages(120))
    train(write_training(folder, tiny("gpt2"), "full", rows=rows, trainer=options))
    return folder / "out"


def audited(folder, out, epsilon, **sections):
    file = folder / "audit.yaml"
    target = {"name": "t", "model": str(out / "checkpoint-60"),
              "claim": {"epsilon": epsilon, "delta": 1e-5}}  # fmt: skip
    content = {"from_training": str(out), "targets": [target], "attacks": ["loss"],
               "resources": {"engine": "local"}, **sections}  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    return raymia("audit", file)


def test_a_training_that_claims_privacy_and_has_none_is_the_first_line(tmp_path, trained_by_heart):
    done = audited(tmp_path, trained_by_heart, 1.0)
    line = "The training of t is broken: it claims an epsilon of 1 at a delta of 1e-05"
    table = done.stdout[done.stdout.index("The training of t") :]
    assert line in table, done.stderr
    page = (tmp_path / "raymia-run" / "report.html").read_text()
    assert page.index(line) < page.index('id="verdict"')
    result = json.loads((tmp_path / "raymia-run" / "metrics.json").read_text())
    (claim,) = result["privacy"]
    assert claim["status"] == "failed"
    bound = max(one["value"] for one in result["metrics"][0]["epsilon"])
    assert f"epsilon is at least {bound:.3f}" in claim["reason"]


def test_a_claim_that_holds_stands_beside_its_bound(tmp_path, trained_by_heart):
    done = audited(tmp_path, trained_by_heart, 40.0)
    assert "is broken" not in done.stdout
    assert "t claims an epsilon of 40 at a delta of 1e-05 for each record" in done.stdout


def before_and_after(folder, out, **after):
    before = {"name": "before", "model": str(out / "checkpoint-60")}
    targets = [{"name": "after", "model": str(tiny("gpt2")), **after}, before]
    content = {"from_training": str(out), "targets": targets, "attacks": ["loss"],
               "resources": {"engine": "local"}}  # fmt: skip
    file = folder / "audit.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_spec(file)


def test_a_model_that_was_trained_again_without_the_members_is_held_beside_the_one_before(
    tmp_path, trained_by_heart
):
    """The base stands for it: it has seen none of them."""
    spec = before_and_after(tmp_path, trained_by_heart, without_members_of="before")
    result = run_audit(spec, Console(quiet=True))
    (one,) = result.deletions
    assert (one.target, one.before, one.attack) == ("after", "before", "loss")
    assert one.auc_before.low > 0.9
    assert one.auc_after.low < 0.5 < one.auc_after.high
    moved = one.auc_before.value - one.auc_after.value
    assert one.difference.value == pytest.approx(moved)
    assert one.difference.low > 0.2
    (line,) = deletion_lines(result.deletions)
    assert "after, trained again without the members of before: the removed records score" in line
    page = Path(spec.output, "report.html").read_text(encoding="utf-8")
    assert "trained again without the members of before" in page


@pytest.mark.parametrize("name", ["after", "nobody"])
def test_a_model_that_was_trained_again_names_another_target(tmp_path, trained_by_heart, name):
    spec = before_and_after(tmp_path, trained_by_heart, without_members_of=name)
    with pytest.raises(InputError, match=f"of 'after' is '{name}'.*there are: after, before"):
        resolve_inputs(spec)


def test_a_claim_that_no_bound_could_refute_is_refused(tmp_path, trained_by_heart):
    done = audited(tmp_path, trained_by_heart, 1.0, metrics={"delta": 1e-6})
    assert done.returncode == 2
    assert "metrics.delta: 1e-06 is less than the 1e-05" in done.stderr


def test_the_claim_of_each_checkpoint_is_read_from_the_manifest(trained, tmp_path):
    rest = json.loads((trained / "out" / MANIFEST_FILE).read_text())
    for number, one in enumerate(rest["checkpoints"]):
        one["privacy"] = {"epsilon": 1.0 + number, "delta": 1e-3}
    rest = {key: value for key, value in rest.items() if key != "seal"}
    shutil.copytree(trained / "out", tmp_path / "out")
    write_manifest(tmp_path / "out", {**rest, "privacy": {"delta": 1e-3}}, TextRecordsSpec.manifest)
    spec = resolve_inputs(load_spec(tmp_path / "out" / MANIFEST_FILE)).spec
    assert [target.claim.epsilon for target in spec.targets] == [1.0, 2.0]
    assert spec.metrics.delta == 1e-3


def test_a_manifest_is_no_training_file(tmp_path):
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"kind": "lm", "base": {}, "checkpoints": []}))
    with pytest.raises(InputError, match="the manifest of a training that is done; give `raymia"):
        load_training(file)
    assert not is_training_file(file)


@pytest.mark.training
def test_what_is_set_aside_is_printed(tmp_path, capsys):
    file = write_training(tmp_path, base=tiny("gpt2"))
    with (tmp_path / "records.jsonl").open("a") as records:
        records.write('{"text": ""}\n')
    train(file)
    assert "1 set aside: empty" in capsys.readouterr().out
