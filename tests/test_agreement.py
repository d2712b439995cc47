"""Kappa is scikit-learn's and statsmodels', its interval covers where theirs shrinks; a precision never lies outside its interval."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from tasks.measures import agreement

JUDGED = st.integers(1, 40).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))


def crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Both, only a, only b, neither: two by two."""
    return np.array([[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]])


def judged(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two judges with these counts."""
    counts = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_the_table_of_the_textbook_has_its_kappa() -> None:
    value, low, high = agreement.kappa(*judged(20, 5, 10, 15))  # observed 0.7, by chance 0.5
    assert value == pytest.approx(0.4) and low < 0.4 < high


@given(JUDGED)
def test_kappa_is_that_of_scikit_learn_and_statsmodels_and_undefined_where_theirs_is(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    value, low, high = agreement.kappa(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cohens_kappa(crossed(a, b), return_results=False)
    assert np.isnan(value) == bool(len(set(a) | set(b)) == 1) == np.isnan(theirs)
    if not np.isnan(value):
        assert value == pytest.approx(theirs, abs=1e-12) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
        assert -1 <= low <= value <= high <= 1


@given(JUDGED)
def test_neither_the_order_of_the_judges_nor_what_is_called_true_matters(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    np.testing.assert_allclose(agreement.kappa(a, b), agreement.kappa(b, a), atol=1e-12)
    np.testing.assert_allclose(agreement.kappa(a, b), agreement.kappa(~a, ~b), atol=1e-12)


def test_the_interval_is_near_the_asymptotic_one_of_many_judgements_and_does_not_vanish_with_few() -> None:
    many = judged(400, 60, 40, 500)
    theirs = cohens_kappa(crossed(*many))
    np.testing.assert_allclose(agreement.kappa(*many), (theirs.kappa, theirs.kappa_low, theirs.kappa_upp), atol=0.01)
    value, low, high = agreement.kappa(*judged(6, 0, 0, 6))
    assert (value, high) == (1, 1) and low == pytest.approx(2 * proportion_confint(12, 12, method="beta")[0] - 1)


@pytest.mark.parametrize(("n", "share", "right"), [(20, 0.5, 0.95), (20, 0.9, 0.95), (60, 0.5, 0.99), (60, 0.2, 0.85)])
def test_the_interval_covers_the_kappa_of_two_judges_who_err_at_a_known_rate(rng: np.random.Generator, n: int, share: float, right: float) -> None:
    yes, agreed = share * right + (1 - share) * (1 - right), right**2 + (1 - right) ** 2
    by_chance = yes**2 + (1 - yes) ** 2
    truth = (agreed - by_chance) / (1 - by_chance)
    covered = []
    for _ in range(400):
        is_copy = rng.random(n) < share
        _, low, high = agreement.kappa(is_copy ^ (rng.random(n) > right), is_copy ^ (rng.random(n) > right))
        covered += [] if np.isnan(low) else [low <= truth <= high]
    assert np.mean(covered) >= 0.93


def test_judges_of_other_things_are_refused_and_of_none_have_no_kappa() -> None:
    with pytest.raises(ValueError, match="one of each judge"):
        agreement.kappa(np.ones(3, bool), np.ones(2, bool))
    assert np.isnan(agreement.kappa(np.zeros(0, bool), np.zeros(0, bool))).all()


@given(arrays(bool, st.integers(0, 30)))
def test_the_precision_at_each_cut_is_the_share_so_far_with_the_interval_of_statsmodels(labels: np.ndarray) -> None:
    rows = agreement.precision_at(labels)
    assert rows.shape == (len(labels), 3)
    for n, row in enumerate(rows, 1):
        k = int(labels[:n].sum())
        np.testing.assert_allclose(row, [k / n, *proportion_confint(k, n, method="beta")], atol=1e-9)


def test_a_list_of_copies_that_ends_in_strangers_loses_its_precision_there() -> None:
    rows = agreement.precision_at(np.array([True, True, False, False]))
    assert rows[:, 0].tolist() == [1, 1, 2 / 3, 0.5] and (rows[:, 1] < rows[:, 0]).all() and (rows[:, 0] <= rows[:, 2]).all()
