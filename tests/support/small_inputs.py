"""Small audits on tiny models, for tests that load none of them."""

from __future__ import annotations

import json

import pyarrow as pa
from tiny_models import passages

from raymia.questions.text import SUM_SCHEMA, TOKEN_SCHEMA
from raymia.spec.file import parse_spec


def write_rows(path, rows):
    """Write rows as JSONL and return the file's name."""
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def write_jsonl(path, texts):
    return write_rows(path, ({"text": text} for text in texts))


def audit(folder, model, paraphraser, **changes):
    """An audit of a model, with every kind of section; a change of None removes a section."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = passages(9)
    content = {
        "records": {
            "members": write_jsonl(folder / "m.jsonl", texts[:3]),
            "non_members": write_jsonl(folder / "n.jsonl", texts[3:6]),
        },
        "targets": [{"name": "one", "model": str(model)}],
        "references": {
            "base": {"model": str(model), "max_tokens": 64},
            "self_prompt": {
                "kind": "self_prompt", "prompts": write_jsonl(folder / "p.jsonl", texts[6:]),
                "texts": 4, "prompt_tokens": 4, "max_tokens": 12,
                "fine_tune": {"epochs": 1, "batch_size": 2, "max_tokens": 16},
            },
        },
        "neighbors": {"model": str(paraphraser), "count": 2},
        "store": str(folder / "store"),
        **changes,
    }  # fmt: skip
    return parse_spec({k: v for k, v in content.items() if v is not None}, "audit.yaml")


def answer(store, planned, records=None):
    """Store made-up answers to what is missing of a planned question, of some records or of all."""
    rows = [
        {"record_id": record, "neighbor": index, "payload": f"neighbor {index} of {record}"}
        for record, index in planned.missing.pairs()
        if records is None or record in records
    ]
    kind = planned.question.kind
    if kind == "neighbors.mask_fill":
        store.commit(planned.key, pa.Table.from_pylist(rows))
        return
    schema = TOKEN_SCHEMA if kind == "text.tokens" else SUM_SCHEMA
    for row in rows:
        del row["payload"]
    store.commit(planned.key, pa.Table.from_pylist(rows, schema=schema))
