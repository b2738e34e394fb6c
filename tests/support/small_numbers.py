"""An audit of numbers (:mod:`number_modality`): no process of it imports torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MEMBERS, OTHERS = [5.0 + 0.01 * n for n in range(30)], [7.0 + 0.01 * n for n in range(30)]


def write_number_audit(folder: Path, **changes: Any) -> Path:
    """Write records, a model and an audit file; what is given replaces whole top-level keys."""
    for name, numbers in (("members", MEMBERS), ("others", OTHERS)):
        lines = "".join(f"{json.dumps({'number': number})}\n" for number in numbers)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "center.json").write_text("5.0", encoding="utf-8")
    records = {"kind": "number", "members": "members.jsonl", "non_members": "others.jsonl"}
    content = {
        "records": records,
        "targets": [{"name": "one", "model": "./center.json"}],
        "attacks": ["near"],
        "resources": {"engine": "local"},
        "output": "run",
        "store": "store",
        **changes,
    }
    file = folder / "audit.yaml"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file
