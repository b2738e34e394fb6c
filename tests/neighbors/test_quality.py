"""The figures on neighbors, against what a person counts by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from raymia.neighbors.drafts import NEIGHBOR_SCHEMA, UNFILLED
from raymia.questions.text import NO_NEIGHBOR, SUM_SCHEMA, TOKEN_SCHEMA
from raymia.results.neighbors import ReferenceAnswers, edit_distance, neighbor_quality
from raymia.results.wording import neighbor_line

TEXTS = {"a": "one two three four", "b": "five six seven eight", "c": "word"}


def made(*rows):
    names = ("record_id", "neighbor", "payload", "masked_share", "attempts", "error")
    return pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in rows], schema=NEIGHBOR_SCHEMA
    )


MADE = made(
    ("a", 1, "one TWO three four", 0.25, 1, None),
    ("a", 2, "one two three four", 0.5, 3, None),
    ("b", 1, "five six nine ten eleven eight", 0.25, 1, None),
    ("b", 2, None, None, 5, UNFILLED),
    ("b", 3, "a neighbor beyond the count", 0.9, 9, None),
    ("c", 1, None, None, 0, "too short"),
    ("other", 1, "of another audit", 0.9, 9, None),
)


def answers(tokens, neighbors):
    token_rows = [
        {"record_id": r, "neighbor": 0, **dict.fromkeys(
            ("log_prob", "mean_log_prob", "std_log_prob"), values),
         "token_ids": [0] * len(values), "is_top1": [False] * len(values)}
        for r, values in tokens.items()
    ]  # fmt: skip
    sum_rows = [
        {"record_id": r, "neighbor": n, "error": v}
        if isinstance(v, str)
        else {"record_id": r, "neighbor": n, "log_prob_sum": v[0], "token_count": v[1]}
        for (r, n), v in neighbors.items()
    ]
    return ReferenceAnswers(
        "base",
        pa.Table.from_pylist(token_rows, schema=TOKEN_SCHEMA),
        pa.Table.from_pylist(sum_rows, schema=SUM_SCHEMA),
    )


REFERENCE = answers(
    {"a": [-1.0, -2.0, -3.0], "b": [-4.0]},
    {("a", 1): (-10.0, 4), ("a", 2): (-6.0, 3), ("b", 1): (-9.0, 2), ("b", 2): NO_NEIGHBOR,
     ("b", 3): (-100.0, 1), ("c", 1): NO_NEIGHBOR},
)  # fmt: skip


def quality(table=MADE, reference=REFERENCE, count=2):
    return neighbor_quality("mask_fill", table, TEXTS, count, reference)


def test_figures_are_those_of_a_count_by_hand():
    found = quality()
    assert (found.made, found.not_made) == (3, 2)
    assert found.masked_share == pytest.approx((0.25 + 0.5 + 0.25) / 3)
    assert found.identical == pytest.approx(1 / 3)
    assert found.failed_attempts == pytest.approx(7 / 10), "2 before a2, and 5 of b2, of 10"
    assert found.edit_distance == pytest.approx((1 / 4 + 0 + 3 / 6) / 3)
    assert found.reference == "base"
    # a: -2.5 and -2 against -2; b: -4.5 against -4
    assert found.log_prob_gap == pytest.approx((-0.5 + 0 - 0.5) / 3)


def test_count_of_the_audit_bounds_what_is_counted():
    assert quality(count=3).made == 4
    assert quality(count=1).not_made == 1


def test_without_a_reference_there_is_no_gap():
    found = quality(reference=None)
    assert (found.reference, found.log_prob_gap) == (None, None)
    assert found.edit_distance is not None


def test_reference_that_answered_nothing_gives_no_gap():
    found = quality(reference=ReferenceAnswers("base", None, None))
    assert (found.reference, found.log_prob_gap) == (None, None)


@pytest.mark.parametrize("table", [None, made()])
def test_without_neighbors_there_are_no_figures(table):
    found = quality(table, reference=None)
    assert (found.made, found.not_made) == (0, 0)
    figures = (found.masked_share, found.identical, found.failed_attempts, found.edit_distance)
    assert figures == (None, None, None, None)


def test_neighbors_that_all_failed_leave_the_rate_of_failures():
    found = quality(made(("a", 1, None, None, 5, UNFILLED)), reference=None)
    assert (found.made, found.not_made, found.failed_attempts) == (0, 1, 1.0)
    assert found.identical is None


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1 / 3),
        ("a b c", "b c", 1 / 3),
        ("a b", "c d", 1),
        ("a b c d", "a c b d", 2 / 4),
        ("a  b", "a b", 0),
        ("", "", 0),
    ],
)
def test_edit_distance_counts_words(a, b, distance):
    assert edit_distance(a, b) == pytest.approx(distance)
    assert edit_distance(b, a) == pytest.approx(distance)


def test_terminal_has_one_line_with_every_figure():
    assert neighbor_line(quality()) == (
        "neighbors (mask_fill): 3 made; not made 40.0 %; attempts failed 70.0 %; "
        "identical to the record 33.3 %; masked 33.3 %; words edited 25.0 %; "
        "log p against the record under base -0.333 nats per token"
    )
    assert "nats" not in neighbor_line(quality(reference=None))


def test_figures_of_a_sample_say_of_how_many_records_it_is():
    found = neighbor_quality("mask_fill", MADE, TEXTS, 2, None, of_records=1_000_000)
    assert neighbor_line(found).endswith("; looked at those of a sample of 1,000,000 records")
    assert "sample" not in neighbor_line(quality())
