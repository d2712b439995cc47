"""Rounds double, and giving up misses no more than it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc

from tasks.measures.stopping import cumulative_rounds, first_futile_n, is_futile, n_always_drawn


def test_rounds_double_up_to_the_budget():
    assert cumulative_rounds(8, 512) == [8, 16, 32, 64, 128, 256, 512]
    assert cumulative_rounds(8, 100) == [8, 16, 32, 64, 100]
    assert cumulative_rounds(8, 8) == cumulative_rounds(16, 8) == [8]


@given(st.integers(1, 600), st.integers(1, 600))
def test_rounds_grow_and_end_at_the_budget(first, budget):
    rounds = cumulative_rounds(first, budget)
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == budget
    assert all(b <= 2 * a for a, b in zip(rounds, rounds[1:], strict=False))


def test_a_round_or_budget_of_nothing_is_refused():
    for first, budget in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match=f"first round of {first} within a budget of {budget}"):
            cumulative_rounds(first, budget)


@pytest.mark.parametrize(("min_rate", "one_look", "seven_looks"), [(0.3, 14, 21), (0.1, 46, 68), (0.02, 236, 349)])
def test_the_published_numbers_are_those_of_one_look(min_rate, one_look, seven_looks):
    assert first_futile_n(min_rate, 0.05, 1) == one_look
    assert first_futile_n(min_rate, 0.05, 7) == seven_looks


@given(st.integers(0, 30), st.integers(1, 200), st.floats(0.01, 0.9), st.integers(1, 8))
def test_futile_is_the_binomial_tail_written_with_the_incomplete_beta_function(largest, n, min_rate, looks):
    c = max(largest, 1)
    tail = 1.0 if c >= n else betainc(n - c, c + 1, 1 - min_rate)
    if abs(tail - 0.05 / looks) > 1e-9:
        assert is_futile(largest, n, min_rate, 0.05, looks) == (tail <= 0.05 / looks)


@given(st.integers(0, 20), st.integers(2, 300), st.floats(0.01, 0.9))
def test_more_pictures_never_revive_and_a_larger_clique_or_more_looks_never_doom(largest, n, min_rate):
    now = is_futile(largest, n, min_rate, 0.05, 3)
    assert now <= is_futile(largest, n + 1, min_rate, 0.05, 3)
    assert is_futile(largest + 1, n, min_rate, 0.05, 3) <= now
    assert is_futile(largest, n, min_rate, 0.05, 4) <= now


def test_no_pair_and_a_single_picture_are_the_same_evidence():
    for n in (13, 14, 15):
        assert is_futile(0, n, 0.3, 0.05, 1) == is_futile(1, n, 0.3, 0.05, 1) == (n >= 14)


def missed(rate, min_rate, looks, n_prompts=20_000):
    """Share of prompts of a rate that are given up before a clique of 10, and of those given up at their first possible look."""
    rng = np.random.default_rng(0)
    rounds = cumulative_rounds(8, 512)
    hits, drawn = np.zeros(n_prompts, int), 0
    is_open, is_missed = np.ones(n_prompts, bool), np.zeros(n_prompts, bool)
    per_look = []
    for n in rounds:
        hits += rng.binomial(n - drawn, rate, n_prompts)
        drawn = n
        is_open &= hits < 10
        futile = np.array([is_futile(c, n, min_rate, 0.05, looks) for c in range(10)])
        stopped = is_open & futile[np.minimum(hits, 9)]
        per_look.append(stopped.mean())
        is_missed |= stopped
        is_open &= ~stopped
    return is_missed.mean(), max(per_look)


@pytest.mark.parametrize("min_rate", [0.3, 0.1, 0.05])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_prompt_at_or_above_the_rate_is_given_up_no_more_often_than_promised(min_rate, factor):
    error = 4 * np.sqrt(0.05 * 0.95 / 20_000)
    assert missed(min_rate * factor, min_rate, looks=1)[1] <= 0.05 + error  # each look alone
    assert missed(min_rate * factor, min_rate, looks=7)[0] <= 0.05 + error  # all looks together


def test_prompts_that_return_nothing_are_given_up_at_the_second_round():
    assert missed(0.0, 0.3, looks=1) == (1.0, 1.0)
    assert not is_futile(1, 8, 0.3, 0.05, 1)
    assert is_futile(1, 16, 0.3, 0.05, 1)


def test_settings_that_are_no_probabilities_are_refused():
    for settings in ((0.0, 0.05, 1), (1.0, 0.05, 1), (0.3, 0.0, 1), (0.3, 1.0, 1), (0.3, 0.05, 0)):
        with pytest.raises(ValueError, match=f"min_rate {settings[0]}, miss_probability {settings[1]}, looks {settings[2]}"):
            first_futile_n(*settings)


@pytest.mark.parametrize("min_rate", [0.3, 0.1, 0.02])
@pytest.mark.parametrize("clique_size", [5, 10, 100])
def test_what_every_prompt_gets_is_the_first_round_that_could_stop_one(min_rate, clique_size):
    could_stop = [n for n in cumulative_rounds(8, 512) if n >= clique_size or is_futile(1, n, min_rate, 0.05, 1)]
    assert n_always_drawn(8, 512, clique_size, min_rate, 0.05) == could_stop[0]


def test_a_budget_below_every_rule_is_always_drawn():
    assert n_always_drawn(8, 8, 10, 0.3, 0.05) == 8
