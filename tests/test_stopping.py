"""The futility rule against scipy's binomial distribution, and what it misses by enumeration and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from tasks.measures.stopping import cumulative_rounds, first_futile_n, futile_cliques, is_futile, n_always_drawn

ROUNDS = cumulative_rounds(8, 512)
quick = settings(deadline=None, max_examples=80)


def test_the_designs_rounds_double_from_8_to_512():
    assert ROUNDS == [8, 16, 32, 64, 128, 256, 512]


@given(st.integers(1, 100), st.integers(1, 3000))
def test_rounds_double_and_end_with_the_budget(first, budget):
    rounds = cumulative_rounds(first, budget)
    assert rounds[-1] == budget and rounds == sorted(set(rounds))
    assert rounds[0] == min(first, budget)
    assert all(b == 2 * a for a, b in zip(rounds[:-1], rounds[1:-1], strict=False))
    assert len(rounds) == 1 or budget <= 2 * rounds[-2]


@pytest.mark.parametrize(("first", "budget"), [(0, 8), (8, 0), (-1, -1)])
def test_rounds_that_draw_nothing_are_an_error(first, budget):
    with pytest.raises(ValueError, match="draws nothing"):
        cumulative_rounds(first, budget)


@pytest.mark.parametrize(("min_rate", "n"), [(0.3, 14), (0.1, 46), (0.02, 236)])
def test_the_designs_first_futile_numbers(min_rate, n):
    assert first_futile_n(min_rate, 0.05, looks=1) == n
    assert not is_futile(1, n - 1, min_rate, 0.05, looks=1)


@pytest.mark.parametrize(("min_rate", "n"), [(0.3, 21), (0.1, 68), (0.02, 349)])
def test_the_first_futile_numbers_with_seven_looks(min_rate, n):
    assert first_futile_n(min_rate, 0.05, looks=len(ROUNDS)) == n


@given(st.integers(0, 20), st.integers(1, 300), st.floats(0.01, 0.9), st.floats(0.001, 0.5), st.integers(1, 8))
@quick
def test_is_futile_where_an_exact_one_sided_test_rejects_the_rate(largest, n, min_rate, miss, looks):
    seen = max(min(largest, n), 1)  # a single picture is a clique of one: no pair
    p = binomtest(seen, n, min_rate, alternative="less").pvalue
    if abs(p - miss / looks) > 1e-9:
        assert is_futile(min(largest, n), n, min_rate, miss, looks) == (p < miss / looks)


def test_no_pair_counts_as_one_whether_called_zero_or_one():
    for n in range(1, 60):
        assert is_futile(0, n, 0.1, 0.05, 1) == is_futile(1, n, 0.1, 0.05, 1)


@given(st.integers(1, 10), st.integers(10, 300), st.floats(0.02, 0.5), st.integers(1, 7))
@quick
def test_more_pictures_make_futile_and_a_larger_clique_or_more_looks_unmake_it(largest, n, min_rate, looks):
    if is_futile(largest, n, min_rate, 0.05, looks):
        assert is_futile(largest, n + 1, min_rate, 0.05, looks)
        assert is_futile(largest - 1, n, min_rate, 0.05, looks)
        assert is_futile(largest, n, min_rate, 0.05, 1)
        assert is_futile(largest, n, min(2 * min_rate, 0.99), 0.05, looks)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.6])
def test_each_look_misses_at_most_its_share_by_enumeration(rate):
    for n in ROUNDS:
        hits = np.arange(n + 1)
        given_up = np.array([is_futile(c, n, rate, 0.05, len(ROUNDS)) for c in hits.tolist()])
        assert binom.pmf(hits, n, rate)[given_up].sum() <= 0.05 / len(ROUNDS)


def given_up_share(rate: float, min_rate: float, looks: int, n_prompts: int, seed: int) -> float:
    """Share of prompts of this rate given up at any round before their clique of 10, in simulation."""
    shown = np.random.default_rng(seed).random((n_prompts, 512)) < rate
    hits = np.stack([shown[:, :n].sum(axis=1) for n in ROUNDS], axis=1)
    tables = [np.array([is_futile(c, n, min_rate, 0.05, looks) for c in range(n + 1)]) for n in ROUNDS]
    futile = np.stack([table[column] for table, column in zip(tables, hits.T, strict=True)], axis=1)
    complete = hits >= 10
    first = np.argmax(complete | futile, axis=1)  # the round that stops the prompt; the clique is looked for first
    every = np.arange(n_prompts)
    return float((futile[every, first] & ~complete[every, first]).mean())


@pytest.mark.parametrize("min_rate", [0.02, 0.1, 0.3])
def test_a_prompt_at_the_least_rate_is_given_up_with_at_most_the_miss_probability(min_rate):
    n_prompts = 4000
    slack = 3 * np.sqrt(0.05 * 0.95 / n_prompts)
    assert given_up_share(min_rate, min_rate, len(ROUNDS), n_prompts, 1) <= 0.05 + slack
    assert given_up_share(1.5 * min_rate, min_rate, len(ROUNDS), n_prompts, 2) <= 0.05


def test_a_prompt_that_never_returns_its_image_is_given_up_early():
    assert given_up_share(0.001, 0.3, len(ROUNDS), 1000, 3) > 0.99
    assert min(n for n in ROUNDS if is_futile(1, n, 0.3, 0.05, len(ROUNDS))) == 32


def test_without_the_division_by_looks_the_misses_add_up():
    once, seven = (given_up_share(0.1, 0.1, looks, 4000, 4) for looks in (1, len(ROUNDS)))
    assert once > 5 * seven


def given_up(rate: float, futile: dict[int, int], clique_size: int, n_prompts: int, seed: int) -> float:
    """Share of simulated prompts of this rate whose hits are at most as many as futile says at a round before a clique is complete."""
    shown = np.random.default_rng(seed).random((n_prompts, max(futile))) < rate
    going, lost = np.ones(n_prompts, bool), np.zeros(n_prompts, bool)
    for n, largest in futile.items():
        hits = shown[:, :n].sum(axis=1)
        going &= hits < clique_size
        lost |= going & (largest > 0) & (hits <= largest)
        going &= ~lost
    return float(lost.mean())


@pytest.mark.parametrize(("min_rate", "missed"), [(0.3, 0.0388), (0.1, 0.0428), (0.02, 0.0497), (0.2, 0.0422), (0.5, 0.0458)])
def test_over_all_rounds_a_prompt_worth_finding_is_given_up_with_at_most_the_miss_probability(min_rate, missed):
    futile, slack = futile_cliques(8, 512, 10, min_rate, 0.05), 3 * np.sqrt(0.05 * 0.95 / 20_000)
    assert given_up(min_rate, futile, 10, 20_000, 5) == pytest.approx(missed, abs=slack)
    assert all(given_up(factor * min_rate, futile, 10, 4000, 6) <= 0.05 for factor in (1.2, 1.5, 1.9))


@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 12), st.floats(0.02, 0.7), st.sampled_from([0.01, 0.05, 0.2]))
@settings(deadline=None, max_examples=25)
def test_whatever_the_settings_the_total_keeps_to_the_miss_probability_and_a_look_to_its_own(first, budget, clique_size, min_rate, miss):
    futile = futile_cliques(first, budget, clique_size, min_rate, miss)
    assert list(futile) == cumulative_rounds(first, budget)
    assert all(0 <= largest < clique_size for largest in futile.values())
    assert all(is_futile(largest, n, min_rate, miss, 1) for n, largest in futile.items() if largest)
    assert given_up(min_rate, futile, clique_size, 2000, 7) <= miss + 4 * np.sqrt(miss * (1 - miss) / 2000)


def test_at_the_default_rate_no_look_is_stricter_than_it_would_be_alone():
    """So the pictures of an audit with min_rate 0.3 are those it always drew; at 0.1 the fifth round asks for one hit less."""
    alone = {rate: {n: max((c for c in range(1, 10) if is_futile(c, n, rate, 0.05, 1)), default=0) for n in ROUNDS} for rate in (0.3, 0.1)}
    assert futile_cliques(8, 512, 10, 0.3, 0.05) == alone[0.3] == {8: 0, 16: 1, 32: 4, 64: 9, 128: 9, 256: 9, 512: 9}
    assert futile_cliques(8, 512, 10, 0.1, 0.05) == alone[0.1] | {128: 5}


@pytest.mark.parametrize("wrong", [(0.0, 0.05, 1), (1.0, 0.05, 1), (0.3, 0.0, 1), (0.3, 1.0, 1), (0.3, 0.05, 0)])
def test_settings_out_of_range_are_an_error(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        is_futile(1, 10, *wrong)
    with pytest.raises(ValueError, match="between 0 and 1"):
        first_futile_n(*wrong)


@given(st.integers(1, 64), st.integers(1, 600), st.integers(2, 12), st.sampled_from([0.1, 0.3, 0.6]))
@quick
def test_always_drawn_is_the_first_round_at_which_any_outcome_could_stop_a_prompt(first, budget, clique_size, min_rate):
    found = n_always_drawn(first, budget, clique_size, min_rate, 0.05)
    rounds = cumulative_rounds(first, budget)
    could_stop = [n for n in rounds if n >= clique_size or is_futile(1, n, min_rate, 0.05, 1)]
    assert found == (could_stop[0] if could_stop else budget)


def test_always_drawn_in_the_designs_rounds():
    assert n_always_drawn(8, 512, 10, 0.3, 0.05) == 16  # 8 pictures hold no clique of 10 and are never futile
    assert n_always_drawn(8, 512, 8, 0.3, 0.05) == 8
    assert n_always_drawn(8, 12, 100, 0.02, 0.05) == 12
