"""Whole audits with neighbors that no T5 made."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from small_audit import BASE, Models, console, evidence, passages, scores_by_row, write_small_audit

from raymia.cli.main import print_result
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

RECORDS, COUNT = 8, 2


@pytest.mark.parametrize(
    "neighbors",
    [
        {"kind": "substitute", "count": COUNT},
        {"kind": "infill", "model": str(BASE), "count": COUNT, "candidates": 2},
    ],
    ids=lambda section: section["kind"],
)
def test_audit_is_complete_and_says_how_good_its_neighbors_are(
    tmp_path: Path, models: Models, neighbors: dict[str, Any]
) -> None:
    texts = passages(28)
    file = write_small_audit(
        tmp_path, models, members=texts[:4], non_members=texts[24:28], neighbors=neighbors,
        attacks=["neighbor", "spv"],
    )  # fmt: skip
    spec = load_spec(file)
    result = run_audit(spec, console())
    assert result.complete
    assert {s.name: (s.asked, s.stored) for s in result.stages} == {
        "neighbors": (RECORDS * COUNT, 0),
        "target:tuned": (RECORDS * (1 + COUNT), 0),
        "reference:base": (RECORDS * (1 + COUNT), 0),
    }
    scores = scores_by_row(tmp_path / "run")
    assert len(scores) == 2 * RECORDS
    assert None not in scores.values()

    quality = result.neighbors
    assert quality is not None
    assert (quality.kind, quality.reference) == (neighbors["kind"], "base")
    assert quality.made + quality.not_made == RECORDS * COUNT
    made = evidence(tmp_path / "store", f"neighbors.{neighbors['kind']}").values()
    shares = [row["masked_share"] for row in made if row["error"] is None]
    assert quality.masked_share == pytest.approx(fmean(shares))
    assert quality.log_prob_gap is not None
    assert quality.log_prob_gap < 0 or neighbors["kind"] == "infill", "odd words are less likely"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["neighbors"]["made"] > 0
    assert "<h3>Neighbors</h3>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    again = run_audit(spec, console())
    assert {stage.asked for stage in again.stages} == {0}
    assert again.neighbors == quality
    terminal = console()
    print_result(again, spec.output, terminal)
    assert f"neighbors ({neighbors['kind']}): {quality.made} made" in terminal.file.getvalue()  # type: ignore[attr-defined]
