"""Learned attacks on images are judged by records that they were not fitted on, and the choice of
a perturbation by records that it was not made on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from made_image_evidence import NO_ANSWER, autoencoder, denoiser, everything, overfitted, without
from sklearn.metrics import roc_auc_score

from raymia.attacks import build
from raymia.attacks.images.fluctuation import choose_perturbation
from raymia.attacks.images.learned import Examples, cross_fitted
from raymia.attacks.networks.small_resnet import fit_resnet
from raymia.evidence.image import Grid, ImageEvidence, ImageShadowEvidence, Labels
from raymia.metrics.learning import fold_of

NETWORKS = ["pfami_nns", "secmi_nns"]


def score(name, given, **parameters):
    """Scores, by as few networks as there can be."""
    few = {"folds": 2} if name in NETWORKS else {}
    return build(name, {**few, **parameters}, "here", "image").score(given)


def labeled(count=80, units=None, **more):
    """Random answers; half of the records are members, which nothing tells."""
    ids = [f"r{i}" for i in range(count)]
    given = everything(count=count, shadows=0)
    return replace(given, labels=Labels([i % 2 == 0 for i in range(count)], units or ids), **more)


@cache
def of_labeled(name):
    return score(name, labeled())


def relabel(given, changes):
    labels = list(given.labels.is_member)
    for i, label in changes.items():
        labels[i] = label
    return replace(given, labels=Labels(labels, given.labels.units))


# --------------------------------------------------- nothing is judged by what was fitted on it


@pytest.mark.parametrize("name", NETWORKS)
def test_own_label_does_not_change_a_records_score(name):
    flipped = score(name, relabel(labeled(), {0: False}))
    found = of_labeled(name)
    assert flipped[0] == found[0]
    assert (flipped != found).any(), "the label does teach what judges the others"


def test_label_of_a_record_of_its_group_does_not_change_it_either():
    given = labeled(units=[f"g{i // 4}" for i in range(80)])
    before, after = score("pfami_nns", given), score("pfami_nns", relabel(given, {3: True}))
    np.testing.assert_array_equal(before[:4], after[:4])


def test_candidate_gets_a_score_and_teaches_nothing():
    given = labeled()
    more = relabel(labeled(81), {80: None})
    assert (more.target.terms.values["l2"][:80] != given.target.terms.values["l2"]).any()
    other = replace(more, target=_replace_last(more.target))
    before, after = score("pfami_nns", more), score("pfami_nns", other)
    np.testing.assert_array_equal(before[:80], after[:80])
    assert np.isfinite(before[80])
    assert before[80] != after[80]


def _replace_last(model):
    values = {c: v.copy() for c, v in model.terms.values.items()}
    for column in values.values():
        column[-1] *= 1.7
    return replace(model, terms=Grid(model.terms.timesteps, values))


def test_candidate_of_a_group_is_scored_by_what_did_not_see_the_group():
    given = relabel(labeled(units=[f"g{i // 4}" for i in range(80)]), {3: None})
    before, after = score("pfami_nns", given), score("pfami_nns", relabel(given, {0: False}))
    assert before[3] == after[3]


@pytest.mark.parametrize("name", NETWORKS)
def test_with_shadows_no_label_of_the_records_is_looked_at(name):
    given = with_shadows()
    unlabeled = replace(given, labels=Labels([None] * 60, given.labels.units))
    np.testing.assert_array_equal(score(name, given), score(name, unlabeled))


def test_what_shadows_say_of_a_record_does_not_change_its_own_score():
    """Shadows of the same records know which they saw: a network that saw the record's picture
    under a shadow could recognize the record under the target."""
    given = with_shadows()
    flipped = []
    for shadow in given.shadows:
        is_in = shadow.is_in.copy()
        is_in[7] = ~is_in[7]
        flipped.append(ImageShadowEvidence(shadow.model, is_in))
    before, after = score("pfami_nns", given), score("pfami_nns", replace(given, shadows=flipped))
    assert before[7] == after[7]
    assert (before != after).any()


def with_shadows(count=60):
    given = labeled(count)
    draws = np.random.default_rng(4)
    shadows = [ImageShadowEvidence(denoiser(50 + k, count), draws.random(count) < 0.5)
               for k in range(2)]  # fmt: skip
    return replace(given, shadows=shadows)


def test_order_of_shadows_changes_nothing():
    given = with_shadows()
    other = replace(given, shadows=given.shadows[::-1])
    np.testing.assert_array_equal(score("pfami_nns", given), score("pfami_nns", other))


@pytest.mark.long
def test_noise_teaches_nothing():
    """Each AUC of 60 and 60 records has a standard error of 0.053, the mean of 12 one of 0.015."""
    aucs = []
    for seed in range(12):
        draws = np.random.default_rng(seed)
        pictures = draws.normal(size=(120, 1, 6, 5)).astype(np.float32)
        labels = draws.permutation(np.arange(120) % 2 == 0)
        units = [f"{seed} {i}" for i in range(120)]
        odds = cross_fitted(Examples(pictures, labels, units), pictures, units, 3)
        aucs.append(roc_auc_score(labels, odds))
    assert abs(np.mean(aucs) - 0.5) < 0.05


@pytest.mark.long
def test_labels_teach_what_the_target_shows():
    given = replace(overfitted(count=160), shadows=())
    aucs = [roc_auc_score(given.labels.is_member, score(name, given)) for name in NETWORKS]
    assert min(aucs) > 0.95


# ------------------------------------------------------------------------- the pictures


def test_order_of_draws_means_nothing():
    given = replace(everything(autoencoder, 60, shadows=0), reference=None)
    target = given.target

    def shuffled(answers):
        return Grid(answers.timesteps, {c: v[..., [2, 0, 3, 1]] for c, v in answers.values.items()})

    other = replace(
        target,
        terms=shuffled(target.terms),
        neighbors={name: shuffled(g) for name, g in target.neighbors.items()},
    )
    np.testing.assert_array_equal(
        score("pfami_nns", given), score("pfami_nns", replace(given, target=other))
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_reference_is_looked_at(name):
    given = labeled()
    alone = score(name, replace(given, reference=None))
    beside = of_labeled(name)
    assert (alone[np.isfinite(alone)] != beside[np.isfinite(beside)]).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 10, 10), (3, 5, 9), (1, 16, 16), (3, 70, 33)])
def test_pictures_of_any_size_are_judged(shape):
    draws = np.random.default_rng(0)
    pictures = draws.normal(size=(30, *shape)).astype(np.float32)
    fitted = fit_resnet(pictures, np.arange(30) % 2 == 0, np.arange(30) % 5 == 0)
    assert np.isfinite(fitted.log_odds(pictures)).all()


def test_inputs_are_scaled_by_what_teaches_alone():
    draws = np.random.default_rng(0)
    pictures = draws.normal(3.0, 2.0, size=(40, 2, 4, 4)).astype(np.float32)
    stops = np.arange(40) % 4 == 0
    fitted = fit_resnet(pictures, draws.permutation(np.arange(40) % 2 == 0), stops)
    np.testing.assert_allclose(fitted.mean, pictures[~stops].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(fitted.deviation, pictures[~stops].std(axis=0), rtol=1e-5)


def test_picture_is_judged_the_same_whatever_is_judged_with_it():
    draws = np.random.default_rng(0)
    pictures = draws.normal(size=(40, 1, 6, 6)).astype(np.float32)
    fitted = fit_resnet(pictures, np.arange(40) % 2 == 0, np.arange(40) % 5 == 0)
    together = fitted.log_odds(pictures)
    alone = np.concatenate([fitted.log_odds(p[None]) for p in pictures])
    np.testing.assert_allclose(alone, together, atol=1e-5)


# --------------------------------------------------------------------------- what is missing


def test_record_without_an_answer_has_no_score_and_teaches_nothing():
    before = of_labeled("pfami_nns")
    assert np.isnan(before).nonzero()[0].tolist() == [NO_ANSWER]
    after = score("pfami_nns", relabel(labeled(), {NO_ANSWER: True}))
    np.testing.assert_array_equal(before, after)


def test_too_few_records_give_no_score():
    assert np.isnan(score("pfami_nns", labeled(20))).all()


# ------------------------------------------------------------- the choice of a perturbation


def told_by(perturbation, count=400, seed=0, shadows=0):
    """Members' neighbors of one perturbation are much worse than they are, of the other not."""

    def model(number, is_member):
        draws = np.random.default_rng((seed, number))
        neighbors = {}
        for name in ("crop", "blur"):
            values = draws.uniform(1.0, 2.0, (count, 3, 2, 1))
            if name == perturbation:
                values = values + is_member[:, None, None, None]
            neighbors[name] = Grid((50, 100), {"l2": values})
        terms = Grid((50, 100), {"l2": draws.uniform(0.9, 1.1, (count, 2, 1))})
        return replace(denoiser(0, count), terms=terms, neighbors=neighbors)

    is_member = np.random.default_rng(seed + 9).random(count) < 0.5
    of_shadows = [np.random.default_rng((seed, 99, k)).random(count) < 0.5 for k in range(shadows)]
    return ImageEvidence(
        np.zeros((count, 1, 2, 2), np.uint8),
        model(0, is_member),
        shadows=[ImageShadowEvidence(model(1 + k, i), i) for k, i in enumerate(of_shadows)],
        labels=Labels(is_member.tolist(), [f"r{i}" for i in range(count)]),
    )


def mean_ratios(model, name, rows):
    own, around = model.terms.values["l2"], model.neighbors[name].values["l2"]
    return [np.mean([(n - own[i]) / own[i] for n in around[i]]) for i in rows]


@pytest.mark.parametrize("perturbation", ["crop", "blur"])
def test_perturbation_is_chosen_on_a_tenth_of_the_records_which_then_have_no_score(perturbation):
    given = told_by(perturbation, count=300)
    choice = choose_perturbation(given)
    assert (choice.perturbation, choice.fitted_on) == (perturbation, "records")
    assert 20 <= choice.spent.sum() <= 45, "a tenth of 300"
    rows = np.flatnonzero(choice.spent)
    labels = [given.labels.is_member[i] for i in rows]
    for name, found in choice.aucs.items():
        expected = roc_auc_score(labels, mean_ratios(given.target, name, rows))
        assert found == pytest.approx(expected)
    for name in ("pfami", "pfami_nns"):
        found = score(name, given)
        np.testing.assert_array_equal(np.isnan(found), choice.spent)
    named = score("pfami", given, perturbation=perturbation)
    np.testing.assert_array_equal(score("pfami", given), np.where(choice.spent, np.nan, named))


def test_labels_of_records_that_are_scored_do_not_change_the_choice():
    given = told_by("blur")
    choice = choose_perturbation(given)
    flipped = {i: not given.labels.is_member[i] for i in range(400) if not choice.spent[i]}
    again = choose_perturbation(relabel(given, flipped))
    assert again.aucs == choice.aucs
    np.testing.assert_array_equal(again.spent, choice.spent)


def test_groups_are_not_split_by_the_choice():
    given = told_by("blur")
    units = [f"g{i // 4}" for i in range(400)]
    given = replace(given, labels=Labels(given.labels.is_member, units))
    spent = choose_perturbation(given).spent
    assert 0 < spent.sum() < 100
    assert all(len({*spent[k : k + 4].tolist()}) == 1 for k in range(0, 400, 4))


def test_candidates_are_not_spent():
    given = told_by("blur")
    labels = [label if i % 2 else None for i, label in enumerate(given.labels.is_member)]
    given = replace(given, labels=Labels(labels, given.labels.units))
    spent = choose_perturbation(given).spent
    assert spent.any()
    assert all(labels[i] is not None for i in np.flatnonzero(spent))


@pytest.mark.parametrize("perturbation", ["crop", "blur"])
def test_perturbation_is_chosen_on_shadows_where_there_are_some(perturbation):
    given = told_by(perturbation, shadows=3)
    choice = choose_perturbation(given)
    assert (choice.perturbation, choice.fitted_on) == (perturbation, "shadows")
    assert not choice.spent.any()
    for name, found in choice.aucs.items():
        expected = [
            roc_auc_score(s.is_in, mean_ratios(s.model, name, range(400))) for s in given.shadows
        ]
        assert found == pytest.approx(np.mean(expected))
    unlabeled = replace(given, labels=None)
    assert choose_perturbation(unlabeled).aucs == choice.aucs
    assert np.isfinite(score("pfami", unlabeled)).all()


def test_without_labels_to_choose_on_the_first_perturbation_is_taken():
    given = told_by("blur", count=40)
    choice = choose_perturbation(given)
    assert (choice.perturbation, choice.fitted_on, choice.aucs) == ("crop", "nothing", {})
    assert np.isfinite(score("pfami", given)).all()


def test_records_without_an_answer_do_not_decide():
    given = told_by("blur")
    tenth = np.flatnonzero(fold_of(given.labels.units, 10, "part that a perturbation is chosen on")
                           == 0)  # fmt: skip
    expected = choose_perturbation(given)
    choice = choose_perturbation(replace(given, target=without(given.target, tenth[0])))
    assert choice.perturbation == "blur"
    assert choice.aucs != expected.aucs


def test_audits_own_perturbation_needs_no_choice_and_spends_nothing():
    given = replace(told_by("blur"), chosen="crop", labels=None)
    found = score("pfami", given)
    np.testing.assert_array_equal(found, score("pfami", given, perturbation="crop"))
    assert np.isfinite(found).all()
