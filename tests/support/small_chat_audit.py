"""A small audit of conversations: the shipped base, tuned on answers alone or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from chat_templates import TRIMMED_AND_MARKED
from small_audit import BASE, passages

from raymia.modalities.resolve import resolve_inputs
from raymia.spec import AuditSpec


def conversation(text: str) -> dict[str, Any]:
    words = text.split()
    turns = [
        {"role": "user", "content": " ".join(words[:6])},
        {"role": "assistant", "content": " ".join(words[6:])},
    ]
    return {"messages": turns}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


def write_chat_audit(
    folder: Path,
    *,
    target: Path = BASE,
    count: int = 8,
    words: int = 24,
    make: Any = conversation,
    side: str = "chosen",
    **sections: Any,
) -> Path:
    """Write records, a template and an audit file; returns the audit file."""
    texts = passages(words)
    parts = {
        "members": texts[:count],
        "non_members": texts[count : 2 * count],
        "population": texts[2 * count : 2 * count + 3],
        "prompts": texts[2 * count + 3 : 3 * count + 3],
    }
    names = {
        name: write_rows(folder / f"{name}.jsonl", [make(text) for text in own])
        for name, own in parts.items()
    }
    (folder / "template.jinja").write_text(TRIMMED_AND_MARKED, encoding="utf-8")
    spec = {
        "records": {
            **{name: names[name] for name in ("members", "non_members", "population")},
            "side": side,
        },
        "training": {"template": "template.jinja", "loss_on": "assistant"},
        "targets": [{"name": "tuned", "model": str(target)}],
        "resources": {"engine": "local"},
        "metrics": {"fprs": [0.2], "resamples": 100},
        **sections,
    }
    path = folder / "audit.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def scores_of(spec: AuditSpec) -> dict[str, dict[str, float]]:
    """The score of each attack, by the words of the conversation or pair that it is of."""
    records = resolve_inputs(spec).records
    payloads = dict(zip(records.ids, records.table["payload"].to_pylist(), strict=True))
    rows = pq.read_table(Path(spec.output) / "scores.parquet").to_pylist()
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        content = json.loads(payloads[row["record_id"]])
        content.pop("label", None)
        found.setdefault(row["attack"], {})[json.dumps(content)] = row["score"]
    return found
