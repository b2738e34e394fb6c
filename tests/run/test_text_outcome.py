"""What a run shows of texts: real evidence of small models that are asked without Ray."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from answered_audit import Answered, answer, two_answered
from small_audit import BASE, passages, reweigh, write_texts

from raymia.attacks import NamedAttack
from raymia.attacks.learned import LearnedCombination
from raymia.evidence.store import EvidenceStore
from raymia.modalities.texts.shown import MAX_CHARACTERS, MAX_END, cut_to
from raymia.report.html import render
from raymia.results.result import RunResult
from raymia.results.text_result import TextPiece
from raymia.results.wording import evidence_lost, unanswered_lines
from raymia.run import outcome
from raymia.run.outcome import Run, sum_up
from raymia.scoring.parts import ScoreParts
from raymia.scoring.reduction import reduce_audit
from raymia.scoring.workers import Here

SCRIPT = "<script>alert(1)</script>"
LONG = "so it went on and on, 😀 " * 400


def write_audit(folder: Path, other: Path, **changes: object) -> Path:
    texts = passages(None)
    content = {
        "records": {
            "members": write_texts(folder / "members.jsonl", [*texts[:5], f"{SCRIPT} {texts[5]}"]),
            "non_members": write_texts(folder / "others.jsonl", [*texts[6:11], LONG]),
        },
        "targets": [{"name": "tuned", "model": str(BASE)}],
        "references": {"base": {"model": str(other)}},
        "attacks": ["difference@base", "loss"],
        "store": "store", "output": "run", "metrics": {"resamples": 100},
        "report": {"texts": True},
        **changes,
    }  # fmt: skip
    file = folder / "audit.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "other"
    reweigh(BASE, folder, lambda tensor: tensor * 0.97)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, other: Path) -> Answered:
    return answer(write_audit(tmp_path_factory.mktemp("texts"), other))


def test_pieces_are_the_text_and_their_numbers_the_stored_ones(run: Answered) -> None:
    records = run.inputs.records.table
    texts = dict(zip(*(records[c].to_pylist() for c in ("record_id", "payload")), strict=True))
    target = run.rows("tokens")
    reference = run.rows("tokens", "base")
    assert len(run.result.text_examples) == 4
    for example in run.result.text_examples:
        shown = "".join(piece.text for piece in example.pieces)
        text = texts[example.record_id]
        assert text.startswith(shown)
        assert len(shown) + example.cut == len(text)
        assert example.reference == "base"
        scored = [piece for piece in example.pieces if piece.log_prob is not None]
        stored = target[example.record_id, 0]["log_prob"]
        if len(set(text)) == len(set(shown)) and example.cut == 0 and text.isascii():
            # Each token is a piece of its own where none shares a character with another.
            typical = reference[example.record_id, 0]["log_prob"]
            assert [p.log_prob for p in scored] == pytest.approx(stored, abs=6e-4)
            assert [p.typical for p in scored] == pytest.approx(typical, abs=6e-4)
        assert example.pieces[0].log_prob is None, "the first token has no context"


def test_what_is_lost_of_many_records_is_listed_in_part_and_counted_whole(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    monkeypatch.setattr(outcome, "LONGEST_LIST", 3)
    monkeypatch.setattr(outcome, "ROWS_AT_ONCE", 2)
    scores = ScoreParts(inputs.spec.store, "scores")
    reduction = reduce_audit(inputs, store, plans, scores, Here())
    result = sum_up(Run(inputs, store, plans, plans, {}, 1.0), reduction, scores, Here())
    answers = (store.read(plan.target.questions[0].key, ["truncated"]) for plan in plans)
    count = sum(table["truncated"].to_pylist().count(True) for table in answers)
    assert len(result.dropped) == 3 < count
    assert (result.dropped_total, result.cut_total) == (count, count)
    read_again = RunResult.model_validate_json(result.shortened().model_dump_json())
    said = evidence_lost(read_again)
    assert said == f"questions without an answer: 0; cut at the model's limit and scored: {count}"
    assert unanswered_lines(read_again) == []
    cut = read_again.dropped[0]
    odd = [cut.model_copy(update={"reason": f"reason {n % 7}"}) for n in range(7 + 6)]
    lost = read_again.model_copy(update={"dropped": [cut, *odd], "dropped_total": count + 14})
    lines = unanswered_lines(lost)
    assert lines[0] == f"no answer, of the first 14 alone: 2 x {cut.stage}: reason 0"
    assert lines[-1] == "no answer: 2 other reasons"
    assert len(lines) == 6


def test_it_is_said_that_an_attack_was_fitted_on_a_sample(
    tmp_path: Path, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    combined = NamedAttack("combined", LearnedCombination(), None)
    inputs = replace(inputs, attacks=[*inputs.attacks, combined])
    known = inputs.records.count(True) + inputs.records.count(False)
    scores = ScoreParts(inputs.spec.store, "scores")
    reduction = reduce_audit(inputs, store, plans, scores, Here())
    run = Run(inputs, store, plans, plans, {}, 1.0)
    line = (
        f"combined: of the {known} members and non-members each regression is fitted on "
        f"{known - 1} at most, drawn from those that it does not judge"
    )
    for most, expected in ((known, []), (known - 1, [line])):
        monkeypatch.setattr(outcome, "MAX_FITTED", most)
        problems = sum_up(run, reduction, scores, Here()).problems
        assert [one for one in problems if "fitted" in one] == expected


def test_evidence_that_nothing_proves_is_said(tmp_path: Path, tiny_gpt2: Path) -> None:
    """A program that reads a part and writes it again keeps none of its hashes."""
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    scores = ScoreParts(inputs.spec.store, "scores")
    reduction = reduce_audit(inputs, store, plans, scores, Here())

    def said() -> list[str]:
        there = EvidenceStore(inputs.spec.store)
        result = sum_up(Run(inputs, there, plans, plans, {}, 1.0), reduction, scores, Here())
        return [one for one in result.problems if "without hashes" in one]

    assert said() == []
    part = next(Path(inputs.spec.store).glob("evidence/text.tokens/*/*.parquet"))
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    (line,) = said()
    assert line.startswith("files of evidence without hashes in the store: 1, not verified;")


def test_the_records_are_handed_to_each_step_once(tmp_path: Path, tiny_gpt2: Path) -> None:
    """With ten million of them they are gigabytes, and each copy is put where all can read it."""
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    holds_records = inputs.records.table["record_id"][0].as_py().encode()

    class Elsewhere(Here):
        def map(self, what: str, step: Any, shared: tuple[Any, ...], jobs: Any) -> Any:
            held = [one for one in shared if holds_records in pickle.dumps(one)]
            assert held in ([], [inputs]), what
            assert holds_records not in pickle.dumps(jobs), what
            return super().map(what, step, shared, jobs)

    scores = ScoreParts(inputs.spec.store, "scores")
    reduction = reduce_audit(inputs, store, plans, scores, Elsewhere())
    sum_up(Run(inputs, store, plans, plans, {}, 1.0), reduction, scores, Elsewhere())


def test_records_shown_are_the_most_exposed_of_each_class_and_the_least_exposed_member(
    run: Answered,
) -> None:
    attack = run.result.text_examples[0].attack
    labels, scores = run.labels(), run.scored(attack)

    def by_score(label: bool) -> list[str]:
        return sorted((r for r in labels if labels[r] is label), key=lambda r: -scores[r])

    members, others = by_score(True), by_score(False)
    expected = {members[0], others[0], members[-1], members[1]}
    assert {example.record_id for example in run.result.text_examples} == expected


def test_each_attack_says_what_it_asks(run: Answered) -> None:
    costs = {cost.attack: (cost.of_target, cost.of_others) for cost in run.result.costs}
    assert costs == {"difference@base": (1, 1), "loss": (1, 0)}


def test_loss_is_that_of_the_attack_of_this_name(run: Answered) -> None:
    labels, scores = run.labels(), run.scored("loss")
    (loss,) = run.result.losses
    for value, label in ((loss.members, True), (loss.non_members, False)):
        own = [-score for record, score in scores.items() if labels[record] is label]
        assert value == pytest.approx(sum(own) / len(own))


def test_texts_are_left_out_unless_they_are_asked_for(
    run: Answered, other: Path, tmp_path: Path
) -> None:
    bare = answer(write_audit(tmp_path, other, report={})).result
    assert bare.content_left_out
    shown = [(e.record_id, e.score, e.rank) for e in run.result.text_examples]
    assert [(e.record_id, e.score, e.rank) for e in bare.text_examples] == shown
    assert all(e.pieces == [] for e in bare.text_examples)
    page, full = render(bare, []), render(run.result, [])
    pieces = {piece.text for e in run.result.text_examples for piece in e.pieces}
    telling = [text for text in pieces if len(text) > 8 and f">{text}<" in full]
    assert telling
    assert not [text for text in telling if f">{text}<" in page]
    assert "report: {texts: true}" in page


def test_redacted_run_holds_no_text_and_calls_records_by_other_ids(
    run: Answered, other: Path, tmp_path: Path
) -> None:
    redacted = answer(write_audit(tmp_path, other, report={"redact": True, "texts": True})).result
    assert redacted.redacted
    ids = [example.record_id for example in redacted.text_examples]
    shown = [example.record_id for example in run.result.text_examples]
    assert len(set(ids)) == len(set(shown))
    assert set(ids).isdisjoint(shown)
    dumped = redacted.model_dump_json()
    for text in run.inputs.records.table["payload"].to_pylist():
        assert json.dumps(text)[1:41] not in dumped
    assert redacted.verdict == run.result.verdict


def test_long_texts_are_cut_by_tokens_and_by_characters() -> None:
    pieces = [TextPiece(text=f"{n:04}") for n in range(1_000)]
    assert cut_to(pieces, 300, MAX_CHARACTERS) == (pieces[:300], 2_800)
    kept, cut = cut_to(pieces, 900, 10)
    assert ("".join(piece.text for piece in kept), cut) == ("0000000100", 3_990)
    kept, cut = cut_to([TextPiece(text="x" * 20_000)], 300, MAX_CHARACTERS)
    assert (len(kept[0].text), cut) == (MAX_CHARACTERS, 18_000)


def test_of_a_long_conversation_the_middle_of_what_is_not_scored_is_left_out() -> None:
    asked = TextPiece(text="q" * 5_000, part="context", turn="user")
    answer = [TextPiece(text="word ", log_prob=-1.0) for _ in range(400)]
    rest = TextPiece(text="r" * 900, part="cut")
    kept, cut = cut_to([asked, *answer, rest], 300, MAX_CHARACTERS)
    first, last, *scored, end = kept
    assert (first.text, first.turn, first.left_out) == ("q" * MAX_END, "user", 5_000 - 2 * MAX_END)
    assert (last.text, last.part, last.turn) == ("q" * MAX_END, "context", None)
    assert [piece.text for piece in scored] == ["word "] * 300
    assert scored[-1].left_out == 100 * len("word ")
    assert (end.text, end.part, cut) == ("r" * MAX_END, "cut", 900 - MAX_END)
    cut_before, _ = cut_to([rest, *answer], 300, MAX_CHARACTERS)
    assert cut_before[0].left_out == 900 - MAX_END
    assert cut_before[1].log_prob == -1.0


def test_many_turns_between_are_shortened_so_that_all_of_them_are_short() -> None:
    turn = TextPiece(text="t" * 1_000, part="context", turn="user")
    pieces = [turn] * 100 + [TextPiece(text="word", log_prob=-1.0)]
    kept, cut = cut_to(pieces, 300, MAX_CHARACTERS)
    assert sum(len(piece.text) for piece in kept) <= MAX_CHARACTERS + len("word")
    assert (kept[-1], cut) == (pieces[-1], 0)
    assert sum(piece.turn == "user" for piece in kept) == 100
    whole = sum(len(piece.text) for piece in pieces)
    assert sum(len(piece.text) + piece.left_out for piece in kept) == whole
