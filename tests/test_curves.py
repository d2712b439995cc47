"""Each curve is held against a slow twin that cuts the list anew at every place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures import curves, rates


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_the_share_at_least_as_similar_is_counted_score_by_score(scores: list[int]) -> None:
    x, y = curves.share_at_least(np.array(scores))
    assert list(x) == sorted(set(scores)) and y[0] == 1
    assert np.allclose(y, [np.mean([s >= at for s in scores]) for at in x])


def test_no_scores_have_no_curve() -> None:
    assert [len(a) for a in curves.share_at_least(np.array([]))] == [0, 0]
    assert [len(a) for a in curves.false_shares(np.array([], bool), 5, 5)] == [0, 0]


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20), st.integers(1, 20))
def test_a_list_cut_at_any_place_has_the_false_share_that_the_whole_list_would_have(order: list[bool], more: int, controls: int) -> None:
    m, c = sum(order) + more, max(controls, len(order) - sum(order))
    estimate, upper = curves.false_shares(np.array(order, bool), m, c)
    cuts = [i + 1 for i, is_target in enumerate(order) if is_target]
    whole = [(sum(order[:cut]), cut - sum(order[:cut])) for cut in cuts]
    assert np.allclose(estimate, [rates.decoy_fdr(m, k, c, flagged) for k, flagged in whole])
    assert np.allclose(upper, [rates.decoy_fdr_upper(m, k, c, flagged) for k, flagged in whole])


def test_false_shares_without_controls_are_an_error() -> None:
    with pytest.raises(ValueError, match="0 of 0 controls"):
        curves.false_shares(np.array([True]), 1, 0)


def test_findings_by_cost_rise_with_what_was_spent_before_the_first() -> None:
    spent, found = curves.found_by_cost(np.array([10, 5, 1]), np.array([True, False, True]), before=100)
    assert list(spent) == [110, 115, 116] and list(found) == [1, 1, 2]
