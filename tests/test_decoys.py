"""Hits at equal library size against all libraries of that size written out, and a model that saw neither library."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures.decoys import against_decoys, hits_at_size

quick = settings(deadline=None, max_examples=60)


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Hits of up to 8 prompts in a library of up to 7 clusters whose ids are no row numbers, some of them twice."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_clusters = draw(st.integers(1, 7))
    hits = np.argwhere(rng.random((8, n_clusters)) < draw(st.floats(0, 0.7))) * [3, 10**15]
    return np.concatenate([hits, hits[:2]]), n_clusters


def in_library(hits: np.ndarray, library: tuple[int, ...]) -> int:
    return len({prompt for prompt, cluster in hits.tolist() if cluster // 10**15 in library})


@given(searches(), st.integers(0, 7))
@quick
def test_the_expected_hits_are_the_mean_over_all_libraries_of_that_size(search, size):
    hits, n_clusters = search
    size = min(size, n_clusters)
    counts = [in_library(hits, library) for library in combinations(range(n_clusters), size)]
    found = hits_at_size(hits, n_clusters, size)
    assert found.expected == pytest.approx(np.mean(counts))
    assert min(counts) <= found.low <= found.high <= max(counts)


def test_the_drawn_libraries_spread_as_all_libraries_do():
    hits = np.array([[prompt, prompt % 4] for prompt in range(40)] + [[99, 4], [99, 5]])  # four clusters serve ten prompts each
    counts = np.array([len(set(hits[np.isin(hits[:, 1], library), 0].tolist())) for library in combinations(range(12), 6)])
    found = hits_at_size(hits, 12, 6, n_draws=20_000)
    assert (found.low, found.high) == tuple(np.quantile(counts, [0.025, 0.975]))
    few = [hits_at_size(hits, 12, 6, n_draws=1, seed=seed).low for seed in range(2000)]
    assert np.mean(few) == pytest.approx(counts.mean(), abs=4 * counts.std() / np.sqrt(2000))


@given(searches(), st.integers(0, 1000))
@quick
def test_the_full_library_keeps_every_hit_and_a_larger_one_never_loses_any(search, seed):
    hits, n_clusters = search
    n_hit = len(np.unique(hits[:, 0]))
    assert hits_at_size(hits, n_clusters, n_clusters, seed=seed) == pytest.approx((n_hit, n_hit, n_hit))
    assert hits_at_size(hits, n_clusters, 0).expected == 0
    expected = [hits_at_size(hits, n_clusters, size, n_draws=1).expected for size in range(n_clusters + 1)]
    assert (np.diff(expected) >= -1e-12).all()


def test_one_cluster_survives_with_the_share_that_is_drawn():
    assert hits_at_size(np.array([[7, 3]]), 1436, 140).expected == pytest.approx(140 / 1436)
    assert hits_at_size(np.array([[7, 3], [7, 4]]), 4, 2).expected == pytest.approx(5 / 6)
    assert hits_at_size(np.zeros((0, 2), int), 10, 5) == (0, 0, 0)


def test_the_draws_are_the_same_each_time():
    hits = np.array([[prompt, prompt % 5] for prompt in range(30)])
    assert hits_at_size(hits, 20, 7) == hits_at_size(hits[::-1], 20, 7)
    assert len({hits_at_size(hits, 20, 7, n_draws=1, seed=seed).low for seed in range(20)}) > 1


def test_a_model_that_saw_neither_library_hits_both_alike_though_one_is_ten_times_larger():
    rng = np.random.default_rng(1)
    members, decoys, raw = [], [], []
    for _ in range(300):
        is_simple = rng.random(330) < 0.1  # simple pictures are hit by chance, by several prompts each
        is_hit = rng.random((20, 330)) < np.where(is_simple, 0.05, 0)
        is_member = rng.permutation(330) < 300
        hits = np.argwhere(is_hit)
        of_members = is_member[hits[:, 1]]
        found = against_decoys(hits[of_members], hits[~of_members], 300, 30)
        members.append(found[0].expected)
        decoys.append(found[1].expected)
        raw.append(len(np.unique(hits[of_members, 0])))
        assert found[2] == 30
    assert np.mean(members) == pytest.approx(np.mean(decoys), abs=4 * np.std(np.subtract(members, decoys)) / np.sqrt(300))
    assert np.mean(raw) > 4 * np.mean(decoys)  # what comparing libraries of unlike size would call memorization


def test_the_smaller_library_sets_the_size_whichever_it_is():
    hits = np.array([[0, 0], [1, 1], [2, 2]])
    members, decoys, size = against_decoys(hits, hits, 3, 12)
    assert (size, members.expected, decoys.expected) == (3, 3, pytest.approx(3 * 3 / 12))


def test_hits_outside_the_library_and_an_empty_side_are_an_error():
    with pytest.raises(ValueError, match="3 of them hit; pass the number of all clusters"):
        hits_at_size(np.array([[0, 0], [0, 1], [0, 2]]), 2, 1)
    with pytest.raises(ValueError, match="5 of 4 clusters"):
        hits_at_size(np.zeros((0, 2), int), 4, 5)
    with pytest.raises(ValueError, match="nothing to compare"):
        against_decoys(np.zeros((0, 2), int), np.zeros((0, 2), int), 4, 0)
