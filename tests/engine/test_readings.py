"""What was read of a block's records is passed on, and comes to the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_audit import console, scores_by_row, write_small_audit
from small_chat_audit import write_chat_audit
from tiny_models import BASE, save_adapter

from raymia.engine import readings as engine
from raymia.engine import stream as stream_module
from raymia.models.causal import model as model_module
from raymia.models.causal.reading import Rendered
from raymia.models.causal.readings import Readings
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec


class Letters:
    """Reads a letter as a token, scores every other one, and notes what it is given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def read(self, payloads: Sequence[str]) -> list[Rendered]:
        self.given += payloads
        return [
            Rendered([], error="empty")
            if not payload
            else Rendered([*map(ord, payload)], np.arange(len(payload)) % 2 == 1, len(payload) > 3)
            for payload in payloads
        ]


def model() -> SimpleNamespace:
    return SimpleNamespace(readings=Readings(Letters()))  # type: ignore[arg-type]


def block(*rows: tuple[str, list[str | None]]) -> pa.Table:
    own, neighbors = zip(*rows, strict=True)
    return pa.table({"payload": list(own), "neighbor_payload": pa.array(neighbors)})


def same(one: Rendered, other: Rendered) -> bool:
    scored = (one.scored is None) == (other.scored is None)
    if one.scored is not None and other.scored is not None:
        scored = one.scored.dtype == np.bool_ and one.scored.tolist() == other.scored.tolist()
    rest = ("ids", "truncated", "error")
    return scored and all(getattr(one, name) == getattr(other, name) for name in rest)


def test_a_model_that_reads_alike_reads_nothing_that_came_with_a_block():
    rows = block(("abc", ["abd", None]), ("", []), ("wxyz", ["wxya"]))
    texts = ["abc", "abd", "", "wxyz", "wxya"]
    first, second = model(), model()
    first.readings.prepare(texts)
    rows = engine.take_along(rows, "r", first)
    engine.use(rows, "r", second)
    found = second.readings.read(texts)
    assert second.readings.reader.given == []
    assert all(map(same, found, first.readings.read(texts)))
    engine.forget(rows, second)
    second.readings.read(texts[:1])
    assert second.readings.reader.given == texts[:1]


def test_what_was_not_read_is_read_by_who_needs_it():
    rows = block(("abc", ["abd"]), ("xyz", []))
    first, second = model(), model()
    first.readings.prepare(["abc"])
    rows = engine.take_along(rows, "r", first)
    engine.use(rows, "r", second)
    second.readings.read(["abc", "abd", "xyz"])
    assert second.readings.reader.given == ["abd", "xyz"]


def test_a_block_of_a_model_that_failed_brings_nothing():
    rows = block(("abc", []))
    rows = engine.take_along(rows, "r", None)
    assert engine.read_column("r") in rows.column_names
    second = model()
    engine.use(rows, "r", second)
    engine.use(rows, "another", second)
    second.readings.read(["abc"])
    assert second.readings.reader.given == ["abc"]
    first = model()
    first.readings.prepare(["abc"])
    rows = engine.take_along(rows, "r", first)
    engine.use(engine.take_along(rows, "r", None), "r", third := model())
    third.readings.read(["abc"])
    assert third.readings.reader.given == []


def test_neighbors_that_were_made_since_are_taken_for_no_others():
    first, second = model(), model()
    first.readings.prepare(["abc", "xyz"])
    rows = engine.take_along(block(("abc", []), ("xyz", [])), "r", first)
    longer = rows.set_column(1, "neighbor_payload", pa.array([["abd"], []]))
    engine.use(longer, "r", second)
    second.readings.read(["abc"])
    assert second.readings.reader.given == ["abc"]


def test_what_a_question_made_of_records_is_not_kept_for_ever():
    one = model()
    for number in range(20):
        made = f"TEXT {number}"
        one.readings.prepare([made.lower(), made])
        one.readings.read([made])
        engine.forget(block((made.lower(), [])), one)
    one.readings.reader.given.clear()
    one.readings.read([f"TEXT {number}" for number in range(20)])
    assert one.readings.reader.given == [f"TEXT {number}" for number in range(17)]


def test_a_block_that_is_prepared_ahead_is_kept_until_it_is_asked_about():
    one = model()
    for number in range(2, 20):
        one.readings.prepare([f"text {number}"])
        one.readings.read([f"text {number - 1}"])
        engine.forget(block((f"text {number - 2}", [])), one)
    assert one.readings.reader.given == [f"text {number}" for number in (2, 1, *range(3, 20))]


@dataclass
class Noting:
    """A reader that notes what it reads."""

    reader: Any
    noted: Counter[str]

    def read(self, payloads: Sequence[str]) -> list[Rendered]:
        self.noted.update(payloads)
        found: list[Rendered] = self.reader.read(payloads)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)


@pytest.mark.long
@pytest.mark.parametrize("write", [write_small_audit, write_chat_audit])
def test_models_of_an_audit_read_each_record_of_later_blocks_once(tmp_path, monkeypatch, write):
    noted: Counter[str] = Counter()
    whole = model_module.reader_for
    monkeypatch.setattr(model_module, "reader_for", lambda *given: Noting(whole(*given), noted))
    adapters = [save_adapter(tmp_path / f"lora{n}", BASE, seed=n) for n in range(2)]
    sections = {
        "targets": [{"name": a.name, "model": str(BASE), "adapter": str(a)} for a in adapters],
        "references": {"base": {"model": str(BASE), "dtype": "bfloat16"}},
        "output": "run",
        "store": "store",
        "attacks": ["loss", "difference"],
        "resources": {"engine": "local", "block_records": 2},
    }
    if write is write_small_audit:
        sections |= {"models": None, "neighbors": None}
    scores, counts = [], []
    for name in ("passed_on", "read_anew"):
        folder = tmp_path / name
        folder.mkdir()
        noted.clear()
        run_audit(load_spec(write(folder, **sections)), console())
        scores.append(scores_by_row(folder / "run"))
        counts.append(sorted(noted.values()))
        monkeypatch.setattr(stream_module, "_reading", lambda _: None)
    assert scores[0] == scores[1]
    # The first block is read by each model, and so is the second where its turn came too early.
    early = 2 * 2
    assert max(counts[0][:-early]) == 1
    assert min(counts[1]) >= 2
