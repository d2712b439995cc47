"""The threshold of copies lies where canaries end, and lower where natural neighbours begin before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.calibration import copy_threshold, outer, similarity_reached

CANARIES = np.linspace(0.001, 0.04, 200)


def test_far_from_all_natural_neighbours_the_threshold_is_where_99_in_100_canaries_are() -> None:
    assert copy_threshold([CANARIES], np.linspace(0.2, 0.5, 500), 100) == pytest.approx(np.quantile(CANARIES, 0.99))


def test_where_natural_neighbours_begin_among_the_canaries_the_threshold_ends_before_them() -> None:
    natural = np.linspace(0.0395, 0.5, 2000)
    threshold = copy_threshold([CANARIES], natural, 100)
    assert np.quantile(CANARIES, 0.95) <= threshold < 0.0396


def test_where_neighbours_begin_just_beyond_the_canaries_no_more_of_these_are_taken_than_are_promised() -> None:
    """A sample of images shows few of the false pairs that all images make: that none of it is among the canaries says little."""
    just_beyond = np.linspace(0.045, 0.5, 2000)
    assert copy_threshold([CANARIES], just_beyond, 100) == pytest.approx(np.quantile(CANARIES, 0.95, method="higher"), abs=2e-4)
    assert copy_threshold([CANARIES], np.linspace(0.061, 0.5, 2000), 100) == pytest.approx(np.quantile(CANARIES, 0.99))


def test_true_copies_among_the_neighbours_do_not_lower_the_threshold() -> None:
    copies = np.random.default_rng(0).choice(CANARIES, 60)
    natural = np.concatenate([copies, np.linspace(0.2, 0.5, 500)])
    assert copy_threshold([CANARIES], natural, 100) >= 0.95 * np.quantile(CANARIES, 0.99)


@given(st.lists(st.lists(st.floats(0, 0.9), min_size=1, max_size=30), min_size=1, max_size=4), st.lists(st.floats(0, 1), max_size=60), st.integers(1, 50))
def test_at_least_95_in_100_canaries_of_each_kind_are_found_and_more_neighbours_never_raise_it(kinds: list[list[float]], natural: list[float], n: int) -> None:
    canaries = [np.array(kind) for kind in kinds]
    threshold = copy_threshold(canaries, np.array(natural), n)
    assert all((kind <= threshold).mean() >= 0.95 for kind in canaries)
    assert threshold <= max(max(np.quantile(kind, 0.95, method="higher") for kind in canaries), np.quantile(np.concatenate(canaries), 0.99)) + 1e-12
    assert copy_threshold(canaries, np.array([]), n) >= threshold - 1e-12


def test_the_kind_that_is_hardest_to_tell_is_not_hidden_by_the_others() -> None:
    easy, hard = CANARIES / 100, CANARIES
    assert copy_threshold([easy] * 9 + [hard], np.linspace(0.036, 0.5, 5000), 100) >= np.quantile(hard, 0.95)


def test_without_canaries_a_threshold_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="name the threshold"):
        copy_threshold([np.array([])], np.array([0.5]), 1)
    with pytest.raises(ValueError, match="plant some"):
        copy_threshold([], np.array([0.5]), 1)


def test_the_similarity_reached_by_a_share_of_the_canaries_is_rounded_down_to_a_twentieth() -> None:
    similarity = np.linspace(0.3, 1, 101)
    assert similarity_reached(similarity, 0.99) == pytest.approx(0.3)
    assert similarity_reached(similarity, 0.4) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="plant some"):
        similarity_reached(np.array([]), 0.5)


def test_the_outer_bound_leaves_half_of_room() -> None:
    assert outer(CANARIES) == pytest.approx(1.5 * np.quantile(CANARIES, 0.99))
