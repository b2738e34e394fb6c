"""Pairs, answers with a label, and calls of tools become the tokens that TRL trains on."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch
from uuid import uuid4

import chat_templates
import pytest
from chat_templates import chat
from record_trl_labels import LONG, prepared_by_trl
from test_against_trl import is_written, ours, trls_templates, without_first
from tiny_models import BASE
from transformers import AutoTokenizer

from raymia.models.causal.labels import has_marks
from raymia.models.causal.training import Training

pytest.importorskip("trl")

MAX_LENGTH = 48
TALKS = [  # a prompt, the chosen answer, the rejected one
    (chat("What is a heron?"), chat("", "A bird that wades.")[1:], chat("", "A fish.")[1:]),
    (chat("Hi", "Hello.", "A crane?"), chat("", "Tall.")[1:], chat("", "Tall and grey.")[1:]),
    (chat("Hello", system="Be brief."), chat("", "Good day.")[1:], chat("", LONG)[1:]),
    (chat("Hello", system=""), chat("", "Ünïcödé 🐦‍⬛ «ja»…")[1:], chat("", "  No. \n")[1:]),
    (chat("Write <|im_end|>"), chat("", "<|im_start|>user\nNo.")[1:], chat("", "[/INST]")[1:]),
    (chat("Go on"), chat("", "One.", "And?", "Two.")[1:], chat("", "One.", "Or?", "Three.")[1:]),
    (chat(LONG), chat("", "Well.")[1:], chat("", "Not well.")[1:]),
]
TEXTS = [
    ("What is a heron? ", "A bird that wades.", "A fish."),
    ("The her", "on stands.", "d went home."),
    ("Grüße 🦩", "🐦‍⬛ ja", "nein<|endoftext|>"),
    ("Tell me: ", LONG, "No."),
    (LONG, "Well.", "Not well."),
]
LOOK = {
    "name": "look",
    "description": "Looks.",
    "parameters": {
        "type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"],
    },
}  # fmt: skip
TOOLS = [{"type": "function", "function": LOOK}]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "the pond"}}}
CALLS = [
    *chat("What stands there?"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "look", "content": "a heron"},
    {"role": "assistant", "content": "A heron."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def prepared(trainer, collator, tokenizer, rows, template, limit, mode):
    """Tokens and labels of each text that a trainer of TRL makes of some rows."""
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    args = SimpleNamespace(
        dataset_num_proc=None, max_length=limit, truncation_mode=mode,
        per_device_train_batch_size=1,
    )  # fmt: skip
    given = SimpleNamespace(
        _tokenizer=tokenizer, calculate_KL=False, desirable_weight=1.0, undesirable_weight=1.0
    )
    before, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        with patch.object(Hasher, "hash", lambda *_: uuid4().hex):
            data = trainer._prepare_dataset(
                given, Dataset.from_list(rows), tokenizer, args, "train"
            )
    finally:
        tokenizer.chat_template = before
    examples = [dict(row) for row in data]
    if not examples:
        return []
    batch = collator(examples)
    found = []
    columns = [batch[name].tolist() for name in ("input_ids", "attention_mask", "completion_mask")]
    for ids, there, scored in zip(*columns, strict=True):
        length = sum(there)
        labels = [t if s else -100 for t, s in zip(ids, scored, strict=True)]
        found.append((ids[:length], labels[:length]))
    return found


def pairs_by_trl(tokenizer, rows, template, limit, mode):
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    collator = DataCollatorForPreference(0, max_length=limit, truncation_mode=mode)
    found = prepared(DPOTrainer, collator, tokenizer, rows, template, limit, mode)
    half = len(found) // 2
    return {"chosen": found[:half], "rejected": found[half:]}


def pairs(kind):
    """Pairs with their prompt apart, or within both answers."""
    if kind == "texts":
        return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in TEXTS]
    if kind == "conversations":
        return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in TALKS]
    return [{"chosen": p + c, "rejected": p + r} for p, c, r in TALKS]


def templates(every):
    own = {name: text for name, text in chat_templates.ALL.items() if "raise" not in text}
    live = {n: t for n, t in trls_templates().items() if "strftime_now" not in t}
    return {**own, **dict([*live.items()][::every])}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["conversations", "conversations without a prompt"])
@pytest.mark.parametrize(
    ("limit", "mode", "side"),
    [(None, "keep_start", "end"), (48, "keep_start", "end"), (48, "keep_end", "start")],
)
def test_both_answers_of_a_pair_are_read_as_in_dpo(tokenizer, kind, limit, mode, side):
    compared = 0
    for name, template in templates(1 if limit is None else 6).items():
        rows = [row for row in pairs(kind) if is_written(tokenizer, template, row)]
        theirs = pairs_by_trl(tokenizer, rows, template, limit, mode) if rows else {}
        for answer, expected in theirs.items():
            training = Training(
                "preference", "completion", template=template, max_length=limit, truncate=side,
                side=answer,
            )  # fmt: skip
            assert without_first(ours(tokenizer, rows, training)[0]) == without_first(expected), (
                name
            )
        compared += bool(rows)
    assert compared >= (30 if limit is None else 8)


@pytest.mark.parametrize("limit", [None, MAX_LENGTH])
def test_pairs_of_plain_texts_end_as_in_dpo(tokenizer, limit):
    rows = pairs("texts")
    for answer, expected in pairs_by_trl(tokenizer, rows, None, limit, "keep_start").items():
        training = Training("preference", "completion", max_length=limit, eos=True, side=answer)
        assert without_first(ours(tokenizer, rows, training)[0]) == without_first(expected)


@pytest.mark.long
@pytest.mark.parametrize("limit", [None, MAX_LENGTH])
@pytest.mark.parametrize("kind", ["texts", "conversations"])
def test_an_answer_with_a_label_is_read_as_in_kto(tokenizer, kind, limit):
    from trl import KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(kind)
        for side in ("chosen", "rejected")
    ]
    collator = DataCollatorForUnpairedPreference(0, max_length=limit)
    kinds = {"no template": None} if kind == "texts" else templates(6)
    for name, template in kinds.items():
        usable = [row for row in rows if is_written(tokenizer, template, row)]
        theirs = prepared(KTOTrainer, collator, tokenizer, usable, template, limit, "keep_start")
        training = Training(
            "unpaired", "completion", template=template, max_length=limit, eos=kind == "texts"
        )
        assert without_first(ours(tokenizer, usable, training)[0]) == without_first(theirs), name


@pytest.mark.long
def test_calls_of_tools_are_read_as_in_sft(tokenizer):
    row, compared = {"messages": CALLS, "tools": TOOLS}, 0
    for name, template in trls_templates().items():
        if "strftime_now" in template or "tools" not in template:
            continue
        if not is_written(tokenizer, template, row):
            continue
        for loss_on in ("all", *(["assistant"] if has_marks(template) else [])):
            settings = {"assistant_only_loss": True} if loss_on == "assistant" else {}
            theirs = prepared_by_trl(tokenizer, [row], template, max_length=None, **settings)
            found, _ = ours(tokenizer, [row], Training("chat", loss_on, template=template))
            assert without_first(found) == without_first(theirs), (name, loss_on)
            compared += 1
    assert compared >= 30
