"""One audit with every attack there is: models are asked once, whatever the number of attacks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from small_audit import (
    BASE,
    PARAPHRASER,
    Models,
    console,
    passages,
    scores_by_row,
    write_small_audit,
    write_texts,
)

from raymia.attacks import registry
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

RECORDS, POPULATION, NEIGHBORS, PAIRS, COPIES, SAMPLES = 12, 24, 2, 1, 2, 2
ASKED = {
    "tokens": RECORDS + POPULATION,
    "neighbors": RECORDS * NEIGHBORS,
    "swaps": RECORDS * COPIES,
    "noise": RECORDS * 2 * PAIRS,
    "samples": RECORDS * SAMPLES,
}
"""How often what is not asked once about each record is asked."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, models: Models) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("all")
    texts = passages(28)
    shadow_members = write_texts(folder / "s.jsonl", [*texts[:3], *texts[24:27]])
    shadows = {
        name: {"kind": "shadow", "model": str(model), "members": shadow_members}
        for name, model in (("in", models.other), ("out", BASE))
    }
    shadows["out"]["members"] = write_texts(folder / "none.jsonl", texts[80:82])
    file = write_small_audit(
        folder,
        models,
        members=texts[:6],
        non_members=texts[24:30],
        references={"base": {"model": str(BASE), "max_tokens": 250}, **shadows},
        neighbors={"model": str(PARAPHRASER), "count": NEIGHBORS},
        probes={
            "prefix": {"shots": 2},
            "swaps": {"count": COPIES},
            "noise": {"pairs": PAIRS},
            "samples": {"count": SAMPLES},
            "gradient": {},
        },
        corpus={"files": write_texts(folder / "corpus.jsonl", texts[60:64])},
        records={
            "members": "members.jsonl",
            "non_members": "non_members.jsonl",
            "population": write_texts(folder / "population.jsonl", texts[100 : 100 + POPULATION]),
            "known_members": write_texts(folder / "known.jsonl", texts[12:16]),
        },
    )
    return folder, run_audit(load_spec(file), console())


def test_each_question_is_asked_once_for_all_attacks(done: tuple[Path, RunResult]) -> None:
    _, result = done
    asked = {stage.name: stage.questions for stage in result.stages}
    assert result.complete
    assert asked["neighbors"] == {"make": RECORDS * NEIGHBORS}
    run = [kind for kind in registry().values() if "judged_answers" not in kind.needs]
    with_reference = [kind for kind in run if "reference" in kind.needs]
    for stage, kinds in (("target:tuned", run), ("reference:base", with_reference)):
        names = {name for kind in kinds for name in kind.asks}
        assert asked[stage] == {name: ASKED.get(name, RECORDS) for name in names}
    assert {*asked["target:tuned"]} >= {*ASKED, "lowercase", "gradient"}
    report = (done[0] / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{RECORDS + POPULATION} tokens, {RECORDS * NEIGHBORS} neighbors" in report


def test_every_attack_scores(done: tuple[Path, RunResult]) -> None:
    folder, result = done
    scores = scores_by_row(folder / "run")
    run = {attack.split("@")[0] for _, attack, _ in scores}
    plain = {name for name, kind in registry().items() if "judged_answers" not in kind.needs}
    assert run == plain, "all but those on preferences"
    scored = {
        attack.split("@")[0]
        for (_, attack, _), score in scores.items()
        if score is not None and math.isfinite(score)
    }
    learned = {
        name for name in plain if registry()[name].needs & {"units", "labels", "other_scores"}
    }
    assert {"learned_combination", "learned_shadows"} <= learned
    assert scored == plain - learned, "six members are too few to learn"
    assert [test.suspects for test in result.dataset_inference] == ["members"]


def test_rmia_and_quantile_judge_the_records_and_not_the_population(
    done: tuple[Path, RunResult],
) -> None:
    folder, _ = done
    scores = scores_by_row(folder / "run")
    for attack in ("rmia@base", "quantile@base", "loss"):
        assert len([key for key in scores if key[1] == attack]) == RECORDS
