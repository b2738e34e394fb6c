"""Tokens and labels are those that TRL trains on: as recorded, and live where TRL is installed."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import chat_templates
import numpy as np
import pytest
import torch
from record_trl_labels import (
    CHATS,
    MAX_LENGTH,
    PLAIN,
    SETTINGS,
    as_completions,
    prepared_by_trl,
)
from tiny_models import BASE, checkpoint, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.labels import has_marks
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.records.conversations import canonical

RECORDED = json.loads(
    (Path(chat_templates.__file__).parent / "trl_labels.json").read_text(encoding="utf-8")
)
MARKS = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def rows_of(kind):
    if kind == "completion":
        return as_completions([*CHATS.values()])
    return [{"messages": turns} for turns in CHATS.values()]


def training_of(kind, template, limit):
    chat = kind != "completion"
    return Training(
        "chat" if chat else "completion", kind, template=template, max_length=limit, eos=not chat
    )


def ours(tokenizer, rows, training):
    """Tokens and labels of each record that can be scored; the first label is no one's."""
    payloads = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    found = TrainedReader(tokenizer, training).read(payloads)
    return [
        (r.ids, [t if s else -100 for t, s in zip(r.ids, r.scored, strict=True)])
        for r in found
        if r.error is None
    ], [r.error for r in found]


def without_first(rows):
    """The first token has no context, so its label is never learned from; a record of which
    nothing else was trained on is none."""
    kept = [(ids, labels[1:]) for ids, labels in rows]
    return [row for row in kept if any(label != -100 for label in row[1])]


def plain_ours(tokenizer, kind, limit):
    """Of records that no template writes, as an audit reads them."""
    rows, of = PLAIN[kind], {"masks": "tokens"}.get(kind, kind)
    loss_on = {"text": "all", "tokens": "labels"}.get(of, "completion")
    training = Training(of, loss_on, max_length=limit, eos=of != "tokens")
    return ours(tokenizer, [payload_of_row(of, row) for row in rows], training)[0]


def payload_of_row(kind, row):
    return row["text"] if kind == "text" else canonical(kind, row)[0]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case.replace(" ", "-"))
def test_tokens_and_labels_are_those_recorded(tokenizer, case):
    name, kind, limit = case.rsplit(" ", 2)
    limit = None if limit == "None" else int(limit)
    if name == "plain":
        found = plain_ours(tokenizer, kind, limit)
    else:
        training = training_of(kind, chat_templates.ALL[name], limit)
        found, _ = ours(tokenizer, rows_of(kind), training)
    assert without_first(found) == without_first([tuple(row) for row in RECORDED[case]])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "falcon"])
def test_the_loss_over_the_evidence_is_that_of_the_training(tmp_path, kind):
    folder = save_tiny(tmp_path / kind, kind)
    training = training_of("assistant", chat_templates.MARKED, MAX_LENGTH)
    model = load_causal_lm(checkpoint(folder, training=training), batch_tokens=256)
    rows = rows_of("assistant")
    answers = model.answer([json.dumps(row) for row in rows], moments=False)
    evidence = np.concatenate([answer.log_prob for answer in answers if answer.error is None])
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total, count = 0.0, 0
    for ids, labels in RECORDED[f"marked assistant {MAX_LENGTH}"]:
        with torch.inference_mode():
            loss = plain(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        learned = sum(label != -100 for label in labels[1:])
        total, count = total + float(loss) * learned, count + learned
    assert len(evidence) == count
    assert -evidence.mean() == pytest.approx(total / count, abs=1e-4)


# ------------------------------------------------------------------ TRL itself


def trls_templates():
    trl = pytest.importorskip("trl")
    folder = Path(trl.__file__).parent / "chat_templates"
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.jinja"))}


def is_written(tokenizer, template, row):
    """Whether the template writes a record, and its prompt; some want turns in a certain order."""
    if template is None:
        return True
    parts = [row.get("prompt", [])]
    given = {"tools": row["tools"]} if "tools" in row else {}
    for key in ("messages", "chosen", "rejected", "completion"):
        if key in row:
            parts.append(parts[0] + row[key])
    try:
        for turns in filter(None, parts):
            is_prompt = turns is parts[0]
            tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=is_prompt, **given
            )
    except Exception:  # jinja's, of any kind
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize(("limit", "each"), [(None, 1), (MAX_LENGTH, 4)])
def test_templates_of_trl_give_the_tokens_and_labels_of_trl(tokenizer, limit, each):
    """All of them whole; where a record is cut does not hang on the template: some of them."""
    compared = Counter()
    for name, template in list(trls_templates().items())[::each]:
        if "strftime_now" in template and "date_string" not in template:
            continue  # those write the day of today
        for kind in ("all", "completion", *(["assistant"] if has_marks(template) else [])):
            rows = [row for row in rows_of(kind) if is_written(tokenizer, template, row)]
            if not rows:
                continue
            _, errors = ours(tokenizer, rows, training_of(kind, template, None))
            assert errors == [None] * len(rows), (name, kind)
            found, _ = ours(tokenizer, rows, training_of(kind, template, limit))
            settings = {"assistant_only_loss": True} if kind == "assistant" else {}
            theirs = prepared_by_trl(tokenizer, rows, template, max_length=limit, **settings)
            assert without_first(found) == without_first(theirs), (name, kind)
            compared[kind] += 1
    assert compared["all"] >= 50 // each
    assert compared["completion"] >= 50 // each
    assert compared["assistant"] >= 25 // each


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("limit", [None, MAX_LENGTH])
def test_records_that_no_template_writes_have_the_tokens_and_labels_of_trl(tokenizer, kind, limit):
    pytest.importorskip("trl")
    settings = SETTINGS.get(kind, {})
    theirs = prepared_by_trl(tokenizer, PLAIN[kind], None, max_length=limit, **settings)
    assert without_first(plain_ours(tokenizer, kind, limit)) == without_first(theirs)
    assert len(theirs) == len(PLAIN[kind]) - (limit is not None and kind != "text")


@pytest.mark.long
def test_turns_found_by_prefixes_are_those_that_trl_marks(tokenizer):
    """A template without its marks writes the same text, in which the turns are to be found."""
    equal, refused, begun, more = set(), set(), {}, set()
    for name, template in trls_templates().items():
        if "strftime_now" in template or not has_marks(template):
            continue
        bare = MARKS.sub(without_marks, template)
        assert not has_marks(bare)
        rows = [row for row in rows_of("assistant") if is_written(tokenizer, template, row)]
        found, errors = ours(tokenizer, rows, training_of("assistant", bare, None))
        told = [error for error in errors if error is not None]
        assert all("cannot be told which tokens are the assistant's" in why for why in told), told
        if told == errors:
            refused |= {name} if told else set()
            continue
        rows = [row for row, error in zip(rows, errors, strict=True) if error is None]
        theirs = prepared_by_trl(
            tokenizer, rows, template, max_length=None, assistant_only_loss=True
        )
        if found == theirs:
            equal.add(name)
            continue
        assert [ids for ids, _ in found] == [ids for ids, _ in theirs], name
        for row, (_, own), (_, marked) in zip(rows, found, theirs, strict=True):
            pairs = [*zip(own, marked, strict=True)]
            if any(one not in (-100, another) for one, another in pairs):
                more |= {(name, key) for key, turns in CHATS.items() if turns == row["messages"]}
                continue
            header = tokenizer.decode([another for one, another in pairs if one != another])
            turns = sum(turn["role"] == "assistant" for turn in row["messages"])
            once = header[: len(header) // turns]
            assert header == once * turns, name
            if header:
                begun.setdefault(name, set()).add(once)
    assert len(equal) >= 15
    # It writes nothing where an answer to a tool is to begin, so its header is scored, too.
    assert more == {("diffusion_gemma_training", "call of a tool")}
    # They write an answer otherwise than they begin it, or those before the last one.
    assert all(name.startswith(("deepseek", "nemotron_3")) for name in refused), refused
    # What these write where an answer is to begin stands within their marks.
    thinks, closed = "<think>\n", "<think>\n\n</think>\n\n"
    assert begun == {
        name: {header}
        for name, header in {
            "qwen2_5_training": "\n", "qwen3_5_nothink_training": closed,
            "qwen3_5_think_training": thinks, "qwen3_6_training": thinks,
            "qwen3_8_training": thinks,
        }.items()
    }  # fmt: skip


def without_marks(mark):
    """What stands for a mark where the text is to stay the same."""
    left, ends, right = mark.groups()
    return f"{{%{left} {'endif' if ends else 'if true'} {right}%}}"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gpt2", "llama", "falcon"])
def test_the_loss_over_the_evidence_is_the_evaluation_loss_of_trls_trainer(
    tmp_path, tokenizer, kind
):
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    folder = save_tiny(tmp_path / kind, kind)
    rows = [row for row in rows_of("assistant") if len(json.dumps(row)) < 400]
    data = Dataset.from_list(rows)
    tokenizer.chat_template = chat_templates.MARKED
    settings = SFTConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, assistant_only_loss=True,
        max_length=96, per_device_eval_batch_size=len(rows), bf16=False,
    )  # fmt: skip
    trainer = SFTTrainer(str(folder), settings, train_dataset=data, eval_dataset=data,
                         processing_class=tokenizer)  # fmt: skip
    training = training_of("assistant", chat_templates.MARKED, 96)
    model = load_causal_lm(checkpoint(folder, training=training), batch_tokens=512)
    answers = model.answer([json.dumps(row) for row in rows], moments=False)
    evidence = np.concatenate([answer.log_prob for answer in answers])
    assert -evidence.mean() == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-4)
