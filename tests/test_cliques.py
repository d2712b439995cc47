"""largest_clique against networkx and brute force; the ranking and the medoid against twins written out."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform

from tasks.measures import distances as pixels
from tasks.measures.cliques import clique_mean_distance, largest_clique, medoid


def graph(n: int, density: float, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < density, 1)
    return upper | upper.T


def planted(edges: np.ndarray, members: np.ndarray) -> np.ndarray:
    edges = edges.copy()
    edges[np.ix_(members, members)] = True
    return edges


def distances_of(n: int, seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).random((n, 3))
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def is_clique(edges: np.ndarray, members: np.ndarray) -> bool:
    return all(edges[a, b] for a, b in combinations(members.tolist(), 2))


graphs = st.builds(graph, st.integers(1, 12), st.floats(0, 1), st.integers(0, 10_000))


@given(graphs)
@settings(max_examples=150, deadline=None)
def test_is_the_largest_of_all_subsets_that_agree(edges):
    members, is_exact = largest_clique(edges)
    n = len(edges)
    subsets = (subset for size in range(n, 0, -1) for subset in combinations(range(n), size))
    assert is_exact
    assert is_clique(edges, members) and (np.diff(members) > 0).all()
    assert len(members) == len(next(s for s in subsets if is_clique(edges, np.array(s))))


@pytest.mark.parametrize("density", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_networkx_on_larger_graphs(density, seed):
    edges = graph(45, density, seed)
    members, is_exact = largest_clique(edges, step_limit=10**8)
    reference = nx.max_weight_clique(nx.from_numpy_array(edges), weight=None)[1]
    assert is_exact and is_clique(edges, members) and len(members) == reference


def test_counts_a_clique_of_ten_in_a_graph_of_noise():
    members = np.random.default_rng(1).choice(300, 10, replace=False)
    found, is_exact = largest_clique(planted(graph(300, 0.05, 2), members))
    assert is_exact and found.tolist() == sorted(members.tolist())


def test_of_two_cliques_it_takes_the_larger_though_the_smaller_has_the_higher_degrees():
    edges = np.zeros((40, 40), bool)
    edges = planted(planted(edges, np.arange(5)), np.arange(10, 17))
    edges[:5, 20:40] = edges[20:40, :5] = True  # the smaller has twenty neighbours, none of them joined: six at most
    assert edges[:5].sum(axis=1).min() > edges[10:17].sum(axis=1).max()
    assert largest_clique(edges)[0].tolist() == list(range(10, 17))


def test_a_triangle_is_found_beside_a_bipartite_graph_that_draws_every_greedy_start():
    edges = np.zeros((23, 23), bool)
    edges[:10, 10:20] = edges[10:20, :10] = True  # twenty vertices of degree ten, and no clique of three
    members, is_exact = largest_clique(planted(edges, np.arange(20, 23)))
    assert is_exact and members.tolist() == [20, 21, 22]


def test_a_chain_is_no_clique_though_it_is_one_component():
    chain = np.eye(30, k=1, dtype=bool) | np.eye(30, k=-1, dtype=bool)
    members, is_exact = largest_clique(chain)
    assert is_exact and members.tolist() == [0, 1]


def test_a_lone_vertex_is_a_clique_of_one_and_no_vertex_is_none():
    assert largest_clique(np.zeros((1, 1), bool))[0].tolist() == [0]
    assert largest_clique(np.zeros((5, 5), bool))[0].tolist() == [0]
    members, is_exact = largest_clique(np.zeros((0, 0), bool))
    assert is_exact and members.shape == (0,)


@given(graphs, st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_its_size_does_not_depend_on_the_order_of_the_vertices(edges, seed):
    order = np.random.default_rng(seed).permutation(len(edges))
    members = largest_clique(edges[np.ix_(order, order)])[0]
    assert len(members) == len(largest_clique(edges)[0])
    assert is_clique(edges, order[members])


@given(st.integers(2, 14), st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_raising_the_edge_threshold_never_shrinks_it(n, seed, one, other):
    distances = distances_of(n, seed)
    strict, loose = (len(largest_clique(distances <= threshold)[0]) for threshold in sorted((one, other)))
    assert strict <= loose


def shown(n: int, seed: int) -> np.ndarray:
    """n generations of one prompt: about half are its image, more or less closely."""
    rng = np.random.default_rng(seed)
    image, other = rng.random((8, 8, 3)), rng.random((n, 8, 8, 3))
    share = np.where(rng.random(n) < 0.5, rng.uniform(0, 0.25, n), 1)[:, None, None, None]
    return ((1 - share) * image + share * other).astype(np.float32)


@given(st.integers(3, 16), st.integers(0, 10_000), st.floats(0, 0.4), st.floats(0, 0.4))
@settings(max_examples=60, deadline=None)
def test_raising_the_edge_threshold_never_removes_a_flag(n, seed, one, other):
    tiled = pixels.pairwise_tiled_l2(shown(n, seed))
    strict, loose = (len(largest_clique(tiled < edge)[0]) for edge in sorted((one, other)))
    for size in range(2, n + 1):
        assert not strict >= size or loose >= size


@given(st.integers(3, 16), st.integers(1, 15), st.integers(0, 10_000), st.floats(0, 0.4))
@settings(max_examples=60, deadline=None)
def test_adding_generations_never_lowers_the_clique(n, n_first, seed, edge):
    is_edge = pixels.pairwise_tiled_l2(shown(n, seed)) < edge
    first = largest_clique(is_edge[:n_first, :n_first])[0]
    assert len(first) <= len(largest_clique(is_edge)[0]) <= len(first) + max(n - n_first, 0)


@given(st.integers(3, 16), st.integers(0, 10_000), st.floats(0.05, 0.4))
@settings(max_examples=60, deadline=None)
def test_permuting_generations_changes_nothing_but_ties(n, seed, edge):
    pictures, order = shown(n, seed), np.random.default_rng(seed + 1).permutation(n)
    tiled, moved = pixels.pairwise_tiled_l2(pictures), pixels.pairwise_tiled_l2(pictures[order])
    if np.abs(tiled - edge).min() < 1e-6:  # rounding decides an edge
        return
    members, others = largest_clique(tiled < edge)[0], np.sort(order[largest_clique(moved < edge)[0]])
    assert len(members) == len(others) and is_clique(tiled < edge, others)
    as_large = [c for c in nx.find_cliques(nx.from_numpy_array((tiled < edge) & ~np.eye(n, dtype=bool))) if len(c) == len(members)]
    assert members.tolist() in [sorted(c) for c in as_large]
    if len(as_large) == 1:
        assert np.array_equal(members, others)
    rows = np.arange(n)
    means = tiled.sum(axis=1)
    assert means[order[medoid(moved, rows)]] == pytest.approx(means[medoid(tiled, rows)], abs=1e-5)
    if np.diff(np.sort(means))[0] > 1e-4:
        assert order[medoid(moved, rows)] == medoid(tiled, rows)


@given(graphs, st.booleans())
@settings(max_examples=40, deadline=None)
def test_ignores_the_diagonal_and_leaves_its_argument_alone(edges, diagonal):
    reference = largest_clique(edges)[0]
    np.fill_diagonal(edges, diagonal)
    before = edges.copy()
    assert np.array_equal(largest_clique(edges)[0], reference)
    assert np.array_equal(edges, before)


def test_five_hundred_alike_are_one_clique_at_once():
    members, is_exact = largest_clique(np.ones((500, 500), bool), step_limit=1)
    assert is_exact and members.tolist() == list(range(500))


def test_five_hundred_alike_but_for_some_pairs_are_proven_without_enumeration():
    edges = np.ones((500, 500), bool)
    for row in range(0, 100, 2):  # fifty disjoint missing edges: 2 ** 50 maximal cliques
        edges[row, row + 1] = edges[row + 1, row] = False
    members, is_exact = largest_clique(edges)
    assert is_exact and len(members) == 450 and is_clique(edges, members)


def test_a_nearly_full_graph_of_five_hundred_ends_with_a_clique_and_an_honest_flag():
    edges = graph(500, 0.97, 3)
    members, is_exact = largest_clique(edges, step_limit=5_000)
    assert is_clique(edges, members) and len(members) > 80
    assert not is_exact


def test_a_reached_step_limit_still_finds_the_planted_clique_but_does_not_claim_it():
    edges = graph(120, 0.5, 4)
    members, is_exact = largest_clique(edges, step_limit=1)
    size = len(largest_clique(edges, step_limit=10**9)[0])
    assert not is_exact
    assert is_clique(edges, members) and size - 2 <= len(members) <= size


def test_a_matrix_that_is_not_symmetric_or_not_square_is_an_error():
    lopsided = np.zeros((3, 3), bool)
    lopsided[0, 1] = True
    for wrong in (lopsided, np.zeros((2, 3), bool), np.zeros(4, bool)):
        with pytest.raises(ValueError, match="not a symmetric square matrix"):
            largest_clique(wrong)


@given(st.integers(2, 10), st.integers(0, 1000))
@settings(deadline=None)
def test_mean_distance_is_the_mean_over_the_pairs_of_members_only(n, seed):
    distances = distances_of(n + 3, seed)
    members = np.random.default_rng(seed).choice(n + 3, n, replace=False)
    reference = np.mean([distances[a, b] for a, b in combinations(members, 2)])
    assert clique_mean_distance(distances, members) == pytest.approx(reference)


@given(st.integers(2, 10), st.integers(0, 1000), st.floats(0.1, 10))
@settings(deadline=None)
def test_mean_distance_and_medoid_of_all_are_those_of_scipys_condensed_matrix_and_have_no_scale(n, seed, scale):
    distances, everyone = distances_of(n, seed), np.arange(n)
    assert clique_mean_distance(distances, everyone) == pytest.approx(squareform(distances, checks=False).mean())
    assert clique_mean_distance(scale * distances, everyone[::-1]) == pytest.approx(scale * clique_mean_distance(distances, everyone))
    assert medoid(scale * distances, everyone) == medoid(distances, everyone) == medoid(distances, everyone[::-1])


def test_mean_distance_of_fewer_than_two_is_not_a_number():
    assert np.isnan(clique_mean_distance(np.zeros((3, 3)), np.array([1])))
    assert np.isnan(clique_mean_distance(np.zeros((3, 3)), np.array([], int)))


@given(st.integers(2, 10), st.integers(0, 1000))
@settings(deadline=None)
def test_medoid_has_the_smallest_mean_distance_to_the_other_members(n, seed):
    distances = distances_of(n + 3, seed)
    members = np.random.default_rng(seed).choice(n + 3, n, replace=False)
    means = {a: np.mean([distances[a, b] for b in members if b != a]) for a in members.tolist()}
    assert medoid(distances, members) in means
    assert means[medoid(distances, members)] == pytest.approx(min(means.values()))


def test_medoid_ignores_the_diagonal_and_takes_the_first_among_equals():
    distances = np.ones((4, 4))
    distances[0, 0] = 9
    assert medoid(distances, np.array([3, 2, 0])) == 0


def test_a_lone_member_of_several_rows_is_no_choice():
    distances = np.abs(np.arange(5)[:, None] - np.arange(5)[None]).astype(float)
    assert medoid(distances, np.array([0])) == 2
    assert medoid(distances[:1, :1], np.array([0])) == 0


def test_medoid_of_nobody_is_an_error():
    with pytest.raises(ValueError, match="no members"):
        medoid(np.zeros((3, 3)), np.array([], int))
