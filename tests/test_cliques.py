"""Largest cliques against exhaustive search and networkx, and what may not be mistaken for one."""

import time
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from tasks.measures.cliques import clique_mean_distance, largest_clique, medoid


def random_graph(n, p, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < p, 1)
    return upper | upper.T


def joined(n, *groups):
    """Graph of n vertices in which each group is a clique."""
    edges = np.zeros((n, n), bool)
    for group in groups:
        edges[np.ix_(group, group)] = True
    return edges


def is_clique(edges, members):
    return all(edges[a, b] for a, b in combinations(members, 2))


def _reference_exhaustive_cliques(edges):
    """All cliques of the largest size, by trying every subset."""
    n = len(edges)
    for size in range(n, 0, -1):
        found = [list(c) for c in combinations(range(n), size) if is_clique(edges, c)]
        if found:
            return found
    return [[]]


graphs = st.builds(random_graph, st.integers(0, 9), st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), st.integers(0, 10**6))


@settings(deadline=None)
@given(graphs)
def test_finds_a_clique_of_the_size_that_trying_every_subset_finds(edges):
    members, is_exact = largest_clique(edges)
    assert is_exact
    assert members.tolist() in _reference_exhaustive_cliques(edges)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("n", [20, 45])
def test_agrees_with_the_branch_and_bound_of_networkx(n, p):
    for seed in range(4):
        edges = random_graph(n, p, seed)
        members, is_exact = largest_clique(edges, step_limit=10**7)
        _, expected = nx.max_weight_clique(nx.from_numpy_array(edges), weight=None)
        assert is_exact
        assert len(members) == expected
        assert is_clique(edges, members)


def test_counts_a_clique_of_ten_in_a_graph_of_noise():
    for seed in range(10):
        group = np.sort(np.random.default_rng(seed).choice(200, 10, replace=False))
        members, is_exact = largest_clique(random_graph(200, 0.1, seed) | joined(200, group))
        assert is_exact
        assert members.tolist() == group.tolist()


def test_a_chain_of_a_hundred_is_one_component_and_a_clique_of_two():
    chain = np.eye(100, k=1, dtype=bool) | np.eye(100, k=-1, dtype=bool)
    assert connected_components(chain, directed=False)[0] == 1
    members, is_exact = largest_clique(chain)
    assert (members.tolist(), is_exact) == ([0, 1], True)


def test_nothing_alone_and_no_pair():
    assert largest_clique(np.zeros((0, 0), bool))[0].tolist() == []
    assert largest_clique(np.zeros((0, 0), bool))[1]
    assert largest_clique(np.zeros((1, 1), bool))[0].tolist() == [0]
    assert largest_clique(np.zeros((5, 5), bool))[0].tolist() == [0]


def test_the_diagonal_is_ignored_and_the_argument_left_as_it_was():
    edges = joined(5, [1, 2, 4])
    before = edges.copy()
    assert edges[1, 1]
    assert largest_clique(edges)[0].tolist() == largest_clique(edges & ~np.eye(5, dtype=bool))[0].tolist() == [1, 2, 4]
    assert (edges == before).all()


def test_of_equal_cliques_the_first_is_returned():
    assert largest_clique(joined(9, [6, 7, 8], [0, 4, 5], [1, 2, 3]))[0].tolist() == [0, 4, 5]


@settings(deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_the_size_does_not_depend_on_the_order(edges, random):
    order = list(range(len(edges)))
    random.shuffle(order)
    shuffled = edges[np.ix_(order, order)] if order else edges
    assert len(largest_clique(shuffled)[0]) == len(largest_clique(edges)[0])


@settings(deadline=None)
@given(st.integers(1, 14), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_raising_the_threshold_or_adding_a_generation_never_shrinks_the_clique(n, seed, low, high):
    distances = np.random.default_rng(seed).random((n, n))
    distances = np.maximum(distances, distances.T)
    low, high = sorted((low, high))
    size = lambda edges: len(largest_clique(edges)[0])
    assert size(distances < low) <= size(distances < high)
    assert size(distances[:-1, :-1] < high) <= size(distances < high)


@pytest.mark.parametrize(("p", "at_least", "exact"), [(1.0, 500, True), (0.999, 415, True), (0.99, 205, False), (0.9, 45, False)])
def test_five_hundred_nearly_alike_end_in_a_moment(p, at_least, exact):
    edges = random_graph(500, p)
    started = time.process_time()
    members, is_exact = largest_clique(edges)
    assert time.process_time() - started < 1.5  # 0.02 to 0.3 s on an idle machine
    assert len(members) >= at_least
    assert is_exact == exact
    assert is_clique(edges, members)


def test_blocks_of_alike_pictures_with_noise_between_them_are_settled_exactly():
    blocks = [np.arange(100 * i, 100 * i + 80 + i) for i in range(5)]
    members, is_exact = largest_clique(joined(500, *blocks) | random_graph(500, 0.02))
    assert is_exact
    assert set(blocks[4]) <= set(members.tolist())


def test_a_search_cut_short_says_so_and_a_longer_one_finds_no_less():
    edges = random_graph(60, 0.8, 3)
    cut, is_exact = largest_clique(edges, step_limit=1)
    full, is_proven = largest_clique(edges, step_limit=10**8)
    assert (is_exact, is_proven) == (False, True)
    assert is_clique(edges, cut)
    assert 8 <= len(cut) <= len(full)


def test_a_one_sided_graph_is_refused():
    for wrong in (np.triu(np.ones((4, 4), bool)), np.ones((3, 4), bool), np.ones(4, bool)):
        with pytest.raises(ValueError, match="not a symmetric square matrix"):
            largest_clique(wrong)


def _distances(n, seed=0):
    points = np.random.default_rng(seed).random((n, 3))
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_clique_mean_distance_is_the_mean_over_pairs_without_the_diagonal():
    distances, members = _distances(8), np.array([1, 4, 6, 7])
    expected = np.mean([distances[a, b] for a, b in combinations(members, 2)])
    assert clique_mean_distance(distances, members) == pytest.approx(expected)
    assert clique_mean_distance(distances, members[::-1]) == pytest.approx(expected)
    assert np.isnan(clique_mean_distance(distances, members[:1]))


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_the_medoid_is_the_member_nearest_to_the_others_as_a_loop_finds_it(n, seed):
    distances = _distances(n, seed)
    members = np.random.default_rng(seed).choice(n, max(2, n // 2), replace=False)
    mean = {m: np.mean([distances[m, o] for o in members if o != m]) for m in members.tolist()}
    assert mean[medoid(distances, members)] == pytest.approx(min(mean.values()))


def test_the_medoid_looks_at_members_only_and_takes_the_first_of_equals():
    line = np.abs(np.subtract.outer(np.arange(7.0), np.arange(7.0)))
    assert medoid(line, np.arange(7)) == 3
    assert medoid(line, np.array([0, 1, 2])) == 1
    assert medoid(line, np.array([5, 6])) == medoid(line, np.array([6, 5])) == 5
    assert medoid(np.zeros((1, 1)), np.array([0])) == 0


def test_a_lone_member_of_many_is_no_choice_and_no_member_an_error():
    line = np.abs(np.subtract.outer(np.arange(7.0), np.arange(7.0)))
    assert medoid(line, np.array([0])) == medoid(line, np.arange(7)) == 3
    with pytest.raises(ValueError, match="medoid of no members"):
        medoid(line, np.array([], int))
