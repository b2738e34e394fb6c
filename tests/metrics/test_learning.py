"""What learned attacks share."""

from __future__ import annotations

import numpy as np
import torch

from raymia.metrics import learning
from raymia.metrics.learning import Features, fit, fitted_rows, one_thread


def test_small_fits_take_one_thread_and_give_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def made(count: int = 60) -> tuple[Features, np.ndarray]:
    draws = np.random.default_rng(0)
    labels = draws.random(count) < 0.5
    return Features([draws.normal(size=count) + labels, draws.normal(size=count)]), labels


def test_up_to_the_stated_number_all_records_are_fitted_on(monkeypatch) -> None:
    features, labels = made()
    monkeypatch.setattr(learning, "MAX_FITTED", 60)
    everything = np.ones(60, np.bool_)
    expected = fit(np.column_stack(features.scores), labels)
    found = features.fit(everything, labels, "x")
    assert found[-1].coef_.tobytes() == expected[-1].coef_.tobytes()


def test_beyond_it_as_many_are_drawn_of_either_class(monkeypatch) -> None:
    monkeypatch.setattr(learning, "MAX_FITTED", 20)
    rows, labels = np.arange(0, 100), np.arange(100) % 4 == 0
    chosen = fitted_rows(rows, labels, "x")
    assert (labels[chosen].sum(), (~labels[chosen]).sum()) == (10, 10)
    assert (np.diff(chosen) > 0).all()
    assert fitted_rows(rows, labels, "x").tolist() == chosen.tolist()
    assert fitted_rows(rows, labels, "y").tolist() != chosen.tolist()


def test_a_rare_class_is_taken_whole_and_the_other_fills_up(monkeypatch) -> None:
    monkeypatch.setattr(learning, "MAX_FITTED", 20)
    rows, labels = np.arange(50, 100), np.isin(np.arange(100), [3, 60, 70, 99])
    chosen = fitted_rows(rows, labels, "x")
    assert {60, 70, 99} <= {*chosen.tolist()}
    assert len(chosen) == 20
    assert set(chosen.tolist()) <= {*rows.tolist()}


def test_records_are_judged_piece_by_piece_as_at_once(monkeypatch) -> None:
    features, labels = made()
    features.scores[0][[4, 40]], features.scores[1][4] = np.inf, np.nan
    model = features.fit(np.arange(60) > 10, labels, "x")
    chosen = np.arange(60) % 3 > 0
    whole, there = features.judged(model, chosen), features.are_there()
    monkeypatch.setattr(learning, "AT_ONCE", 7)
    np.testing.assert_allclose(features.judged(model, chosen), whole, rtol=1e-12)
    assert np.flatnonzero(~there).tolist() == [4]
    assert features.are_there().tolist() == there.tolist()


def test_some_of_the_records_are_their_rows() -> None:
    features, _ = made()
    chosen = np.arange(60) % 3 == 0
    some = features.of(chosen)
    assert len(some) == 20
    assert some.at(slice(2, 5)).tolist() == features.at(np.array([6, 9, 12])).tolist()
