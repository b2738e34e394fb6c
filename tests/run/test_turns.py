"""Of equal audits that are started together on one store, one asks."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

from small_audit import BASE, console, passages, write_texts

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.run.asking import in_turn
from raymia.run.audit import run_audit
from raymia.spec.file import parse_spec

PATIENCE = 60.0


def audit(folder: Path, store: str, **changes: object):
    content = {
        "records": {"members": str(folder / "m.jsonl"), "non_members": str(folder / "n.jsonl")},
        "targets": [{"name": "one", "model": str(BASE)}],
        "attacks": ["loss"],
        "resources": {"engine": "local"},
        "metrics": {"fprs": [0.5], "resamples": 100},
        "store": str(folder / store),
        "output": str(folder / f"{store}-out"),
        **changes,
    }
    return parse_spec(content, "audit.yaml")


def asked(result):
    return sum(stage.asked for stage in result.stages)


def test_the_next_waits_says_so_and_finds_what_was_answered(tmp_path):
    texts = [text[:60] for text in passages()]
    write_texts(tmp_path / "m.jsonl", texts[:3])
    write_texts(tmp_path / "n.jsonl", texts[3:6])
    alone = run_audit(audit(tmp_path, "alone"), console())
    assert asked(alone) == 6

    spec, out = audit(tmp_path, "shared"), console()
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    is_held, said = threading.Event(), []

    def ask_first():
        """Another run with the same questions, which answers once this one waits for it."""
        with in_turn(plan_audit(inputs, store), store, console()):
            is_held.set()
            until = time.monotonic() + PATIENCE
            while not said and time.monotonic() < until:
                time.sleep(0.02)
                said.extend(line for line in [out.file.getvalue()] if "waiting for it" in line)
            shutil.copytree(tmp_path / "alone" / "evidence", tmp_path / "shared" / "evidence")

    first = threading.Thread(target=ask_first)
    first.start()
    assert is_held.wait(PATIENCE)
    second = run_audit(spec, out)
    first.join()
    assert said
    assert asked(second) == 0
    assert [stage.stored for stage in second.stages] == [6]
    assert second.metrics == alone.metrics


def test_other_questions_and_complete_stores_wait_for_nobody(tmp_path):
    texts = [text[:60] for text in passages()]
    write_texts(tmp_path / "m.jsonl", texts[:3])
    write_texts(tmp_path / "n.jsonl", texts[3:6])
    spec, other = audit(tmp_path, "s"), audit(tmp_path, "s", attacks=["loss", "lowercase"])
    plans = [plan_audit(resolve_inputs(one), EvidenceStore(one.store)) for one in (spec, other)]
    store, out = EvidenceStore(spec.store), console()
    with in_turn(plans[0], store, out), in_turn(plans[1], store, out):
        assert "waiting" not in out.file.getvalue()
    run_audit(spec, out)
    complete = plan_audit(resolve_inputs(spec), store)
    with in_turn(complete, store, out), in_turn(complete, store, out):
        assert "waiting" not in out.file.getvalue()
