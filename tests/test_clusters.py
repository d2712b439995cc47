"""Stars against a twin written out and against components, which chain; counts of copies and sizes by hand."""

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from tasks.measures import clusters
from tasks.measures.clusters import components, copies_among, n_copies, sizes, star_centres


@st.composite
def worlds(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """n, pairs a < b in order, weights and an order of assignment."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n = draw(st.integers(1, 15))
    edges = np.argwhere(np.triu(rng.random((n, n)) < draw(st.floats(0, 0.6)), 1))
    return n, edges.reshape(-1, 2), rng.integers(0, 4, n), rng.permutation(n)


CHAIN = np.array([[row, row + 1] for row in range(8)])


@given(worlds())
@settings(deadline=None)
def test_copies_are_the_weights_of_the_image_and_its_direct_neighbours(world):
    n, pairs, weight, _ = world
    adjacency = np.eye(n, dtype=int)
    adjacency[pairs[:, 0], pairs[:, 1]] = adjacency[pairs[:, 1], pairs[:, 0]] = 1
    before = weight.copy()
    assert np.array_equal(n_copies(n, pairs, weight), adjacency @ weight)
    assert np.array_equal(weight, before)


def test_copies_are_degree_plus_one_with_multiplicity_and_do_not_count_held_out_images():
    pairs = np.array([[0, 1], [0, 2], [2, 3]])
    assert n_copies(4, pairs, np.array([1, 1, 1, 1])).tolist() == [3, 2, 3, 2]
    assert n_copies(4, pairs, np.array([1, 5, 0, 1])).tolist() == [6, 6, 2, 1]


@given(worlds())
@settings(deadline=None)
def test_stars_are_those_of_a_twin_that_takes_centres_from_a_list(world):
    n, pairs, _, order = world
    near = {row: {row} for row in range(n)}
    for a, b in pairs.tolist():
        near[a].add(b)
        near[b].add(a)
    reference, left = {}, order.tolist()
    while left:
        centre = left[0]
        reference |= {row: centre for row in left if row in near[centre]}
        left = [row for row in left if row not in near[centre]]
    assert star_centres(n, pairs, order).tolist() == [reference[row] for row in range(n)]


@given(worlds(), st.integers(0, 1000))
@settings(deadline=None)
def test_stars_are_within_one_hop_whole_and_independent_of_the_order_of_pairs(world, seed):
    n, pairs, _, order = world
    centre = star_centres(n, pairs, order)
    linked = {tuple(pair) for pair in pairs.tolist()} | {tuple(pair[::-1]) for pair in pairs.tolist()}
    assert all(a == b or (a, b) in linked for a, b in enumerate(centre.tolist()))
    assert np.array_equal(centre[centre], centre)
    assert not any((a, b) in linked for a in set(centre.tolist()) for b in set(centre.tolist()))
    shuffled = np.random.default_rng(seed).permutation(pairs)
    assert np.array_equal(star_centres(n, shuffled, order), centre)
    assert np.array_equal(star_centres(n, pairs[:, ::-1], order), centre)


@given(worlds(), st.integers(0, 1000))
@settings(deadline=None)
def test_stars_do_not_depend_on_the_names_of_the_images(world, seed):
    n, pairs, _, order = world
    name = np.random.default_rng(seed).permutation(n)
    assert np.array_equal(star_centres(n, name[pairs], name[order])[name], name[star_centres(n, pairs, order)])


def test_stars_do_not_chain_where_components_do():
    assert len(np.unique(components(9, CHAIN))) == 1
    centre = star_centres(9, CHAIN, np.arange(9))
    assert centre.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert sizes(centre, np.ones(9)).max() == 2


def test_two_families_joined_by_one_bridge_stay_two_when_the_densest_come_first():
    left, right = [(0, row) for row in range(1, 6)], [(6, row) for row in range(7, 12)]
    pairs = np.array([*left, (5, 7), *right])
    order = np.argsort(-n_copies(12, pairs, np.ones(12, int)), kind="stable")
    assert len(np.unique(components(12, pairs))) == 1
    assert star_centres(12, pairs, order).tolist() == [0] * 6 + [6] * 6


@given(worlds())
@settings(deadline=None)
def test_components_are_those_of_networkx_and_stars_never_cross_them(world):
    n, pairs, _, order = world
    graph = nx.Graph(pairs.tolist())
    graph.add_nodes_from(range(n))
    reference = np.empty(n, int)
    for label, rows in enumerate(nx.connected_components(graph)):
        reference[list(rows)] = label
    labels = components(n, pairs)
    assert adjusted_rand_score(labels, reference) == 1
    assert len(np.unique(labels)) == nx.number_connected_components(graph)
    assert np.array_equal(labels[star_centres(n, pairs, order)], labels)


@given(worlds())
@settings(deadline=None)
def test_sizes_are_the_summed_weights_of_each_group(world):
    n, pairs, weight, order = world
    centre = star_centres(n, pairs, order)
    found = sizes(centre, weight)
    assert found.tolist() == [weight[centre == label].sum() for label in centre]
    assert found[np.unique(centre)].sum() == weight.sum()


def test_without_pairs_every_image_is_alone():
    none = np.zeros((0, 2), int)
    assert star_centres(3, none, np.array([2, 0, 1])).tolist() == [0, 1, 2]
    assert len(np.unique(components(3, none))) == 3
    assert n_copies(3, none, np.array([1, 4, 0])).tolist() == [1, 4, 0]
    assert sizes(np.array([-7, 3, -7]), np.array([1, 4, 2])).tolist() == [3, 4, 3]


def test_copies_are_those_that_the_release_was_trained_on() -> None:
    digests, pairs = ["x", "x", "y", "z"], np.array([[0, 1], [0, 2]])  # two files of x, y a copy of x, z alone
    assert clusters.copies_among(digests, pairs, np.array([True] * 4)).tolist() == [3, 3, 3, 1]
    assert clusters.copies_among(digests, pairs, np.array([False, True, False, True])).tolist() == [1, 1, 1, 1]
    assert clusters.copies_among(digests, pairs, np.array([False, False, True, False])).tolist() == [1, 1, 1, 0]


@given(worlds(), st.integers(1, 15))
@settings(deadline=None)
def test_copies_among_counts_the_members_of_one_digest_or_confirmed_as_copies(world, n_digests):
    n, pairs, weight, order = world
    digests, is_member = [f"{row % n_digests}" for row in order.tolist()], weight > 0
    linked = {frozenset((digests[a], digests[b])) for a, b in pairs.tolist()}
    alike = np.array([[a == b or frozenset((a, b)) in linked for b in digests] for a in digests])
    assert copies_among(digests, pairs, is_member).tolist() == (alike @ is_member.astype(int)).tolist()


def test_copies_among_changes_with_the_members_and_not_with_who_is_asked():
    digests, pairs = ["a", "a", "b", "c"], np.array([[0, 1], [1, 2]])
    assert copies_among(digests, pairs, np.array([True, True, True, True])).tolist() == [3, 3, 3, 1]
    assert copies_among(digests, pairs, np.array([True, False, False, False])).tolist() == [1, 1, 1, 0]


def test_no_images_have_no_copies_and_no_groups():
    none, empty = np.zeros((0, 2), int), np.zeros(0, int)
    assert copies_among([], none, np.zeros(0, bool)).shape == (0,)
    assert all(len(f) == 0 for f in (n_copies(0, none, empty), star_centres(0, none, empty), components(0, none), sizes(empty, empty)))


def test_copies_among_without_pairs_are_those_with_the_same_pixels():
    assert copies_among(["a", "b", "a"], np.zeros((0, 2), int), np.array([True, True, False])).tolist() == [1, 1, 1]


@given(worlds(), st.integers(0, 1000))
@settings(deadline=None)
def test_copies_among_do_not_depend_on_the_order_of_images_and_grow_with_each_member(world, seed):
    n, pairs, weight, order = world
    rng = np.random.default_rng(seed)
    digests, is_member, name = [f"{row % 4}" for row in order.tolist()], weight > 0, rng.permutation(n)
    found = copies_among(digests, pairs, is_member)
    moved = np.empty(n, object)
    moved[name] = digests
    members = np.empty(n, bool)
    members[name] = is_member
    assert copies_among(moved.tolist(), name[pairs], members)[name].tolist() == found.tolist()
    assert (copies_among(digests, pairs, is_member | (rng.random(n) < 0.5)) >= found).all()


@given(worlds(), st.integers(0, 1000))
@settings(deadline=None)
def test_stars_of_confirmed_pairs_are_those_of_all_pairs_compared_and_each_pair_is_asked_about_once(world, seed):
    n, pairs, _, order = world
    is_copy = {tuple(pair): bool(np.random.default_rng([seed, *pair]).random() < 0.6) for pair in pairs.tolist()}
    asked = []

    def confirmed(some: np.ndarray) -> np.ndarray:
        asked.extend(map(tuple, some.tolist()))
        return np.array([is_copy[tuple(pair)] for pair in some.tolist()], bool)

    kept = np.array([pair for pair in pairs.tolist() if is_copy[tuple(pair)]], int).reshape(-1, 2)
    assert clusters.confirmed_stars(n, pairs, order, confirmed).tolist() == star_centres(n, kept, order).tolist()
    assert len(asked) == len(set(asked))


def test_a_large_group_is_confirmed_with_as_many_questions_as_it_has_images():
    pairs = np.argwhere(np.triu(np.ones((50, 50), bool), 1))
    asked = []
    centre = clusters.confirmed_stars(50, pairs, np.arange(50), lambda some: [asked.append(len(some)), np.ones(len(some), bool)][1])
    assert centre.tolist() == [0] * 50 and sum(asked) == 49


@given(st.integers(2, 12), st.floats(0.1, 0.9), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_overlap_is_the_jaccard_index_of_closed_neighbourhoods(n, density, seed):
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    pairs = pairs[np.random.default_rng(seed).random(len(pairs)) < density]
    near = [{row} | {b if a == row else a for a, b in pairs.tolist() if row in (a, b)} for row in range(n)]
    np.testing.assert_allclose(clusters.overlap(n, pairs), [len(near[a] & near[b]) / len(near[a] | near[b]) for a, b in pairs.tolist()])


def test_links_of_a_chain_are_told_and_groups_and_originals_with_unlike_copies_are_not():
    chain, group, fan, path = [[i, i + 1] for i in range(9)], [[10, 11], [10, 12], [11, 12], [13, 14]], [[15, 16], [15, 17], [15, 18]], [[19, 20], [20, 21]]
    pairs = np.array(chain + group + fan + path)
    links = clusters.drift_links(22, pairs)
    assert links.tolist() == [False] + [True] * 7 + [False] * (1 + len(group) + len(fan) + len(path))  # the ends of a chain share their neighbour
    assert clusters.drift_links(3, np.zeros((0, 2), int)).shape == (0,)
