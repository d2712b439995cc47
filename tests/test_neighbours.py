"""Nearest rows and similar pairs against brute force over all cosines and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from tasks.measures.neighbours import nearest, similar_pairs, similarities, tile_pairs

seeds = st.integers(0, 10_000)
quick = settings(deadline=None, max_examples=60)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def directions(n: int, d: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def around(centre: np.ndarray, n: int, spread: float, seed: int) -> np.ndarray:
    return unit(centre + np.random.default_rng(seed).normal(0, spread, (n, len(centre))))


def pairs_by_brute_force(vectors: np.ndarray, bound: float) -> dict[tuple[int, int], float]:
    cosine = vectors.astype(float) @ vectors.astype(float).T
    return {(a, b): cosine[a, b] for a in range(len(vectors)) for b in range(a + 1, len(vectors)) if cosine[a, b] >= bound}


def bound_between(vectors: np.ndarray, quantile: float) -> float:
    """A bound in the widest gap near the quantile of the cosines, so that rounding decides no pair."""
    cosine = np.sort((vectors.astype(float) @ vectors.astype(float).T)[np.triu_indices(len(vectors), 1)])
    start = min(int(quantile * len(cosine)), max(len(cosine) - 8, 0))
    window = cosine[start : start + 8]
    gap = int(np.diff(window).argmax())
    return float(window[gap : gap + 2].mean())


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 60), seeds)
@quick
def test_nearest_are_the_largest_cosines_best_first(n, m, k, seed):
    references, queries = directions(n, 8, seed), directions(m, 8, seed + 1)
    similarity, rows = nearest(references, queries, k)
    cosine = queries.astype(float) @ references.astype(float).T
    assert similarity.shape == rows.shape == (m, min(n, k))
    np.testing.assert_allclose(similarity, -np.sort(-cosine, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosine, rows, axis=1), similarity, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_nearest_agrees_with_scikit_learn():
    references, queries = directions(200, 16, 1), directions(30, 16, 2)
    distance, reference = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(references).kneighbors(queries)
    similarity, rows = nearest(references, queries, 7)
    assert np.array_equal(rows, reference)
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-6)


def test_a_row_is_its_own_nearest_and_a_planted_copy_the_second():
    references = directions(50, 16, 3)
    references[40] = around(references[7], 1, 0.01, 4)[0]
    similarity, rows = nearest(references, references[[7]], 2)
    assert rows.tolist() == [[7, 40]] and similarity[0, 0] == pytest.approx(1) and similarity[0, 1] > 0.99


def test_half_precision_descriptors_are_good_enough_and_others_are_an_error():
    vectors = directions(20, 64, 5)
    assert nearest(vectors.astype(np.float16), vectors, 1)[1].ravel().tolist() == list(range(20))
    with pytest.raises(ValueError, match="references must be of unit length"):
        nearest(2 * vectors, vectors, 1)
    with pytest.raises(ValueError, match="queries must be of unit length"):
        nearest(vectors, np.vstack([vectors, np.zeros((1, 64), np.float32)]), 1)


def test_a_vector_that_is_not_a_number_is_an_error_and_no_neighbour_of_all():
    vectors = directions(5, 8, 11)
    vectors[3, 2] = np.nan
    for arguments in ((vectors, vectors[:1], 1), (vectors[:1], vectors, 1)):
        with pytest.raises(ValueError, match="unit length"):
            nearest(*arguments)


def test_without_references_nothing_is_near_and_without_queries_nothing_is_asked():
    queries, none = directions(3, 8, 12), np.zeros((0, 8), np.float32)
    for k in (0, 5):
        similarity, rows = nearest(none, queries, k)
        assert similarity.shape == rows.shape == (3, 0) and rows.dtype == np.int64
    assert nearest(queries, none, 2)[1].shape == (0, 2)
    assert nearest(none, none, 2)[1].shape == (0, 0)


def test_no_neighbours_wanted_or_vectors_of_unlike_width_are_an_error():
    for references, k in ((directions(4, 8, 1), 0), (directions(4, 8, 1), -1), (directions(4, 6, 1), 2)):
        with pytest.raises(ValueError, match="ask for at least 1, of one width"):
            nearest(references, directions(2, 8, 2), k)
    with pytest.raises(ValueError, match="one vector a row"):
        nearest(directions(4, 8, 1), directions(1, 8, 2)[0], 1)


@given(st.integers(1, 40), st.integers(1, 300), st.integers(1, 9), seeds)
@quick
def test_queries_searched_in_blocks_find_what_they_find_together(n, m, k, seed):
    references, queries = directions(n, 16, seed), directions(m, 16, seed + 1)
    cosine = queries.astype(float) @ references.astype(float).T
    blocks = [nearest(references, queries[start : start + 64], k) for start in range(0, m, 64)]
    for similarity, rows in (nearest(references, queries, k), (np.concatenate(part) for part in zip(*blocks, strict=True))):
        np.testing.assert_allclose(similarity, -np.sort(-cosine, axis=1)[:, :k], atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(cosine, rows, axis=1), similarity, atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 9), seeds)
@quick
def test_more_references_never_lower_a_similarity_and_their_order_does_not_count(n, m, k, seed):
    references, queries = directions(n + 5, 8, seed), directions(m, 8, seed + 1)
    few, all_of_them = nearest(references[:n], queries, k)[0], nearest(references, queries, k)[0]
    assert (all_of_them[:, : few.shape[1]] >= few - 1e-6).all()
    order = np.random.default_rng(seed).permutation(n + 5)
    np.testing.assert_allclose(nearest(references[order], queries, k)[0], all_of_them, atol=1e-6)


@given(st.integers(2, 20), st.integers(1, 5), seeds)
@quick
def test_similarity_is_symmetric_and_does_not_turn_with_the_space(n, k, seed):
    vectors = directions(n, 6, seed)
    similarity, rows = nearest(vectors, vectors, n)
    square = np.empty((n, n))
    np.put_along_axis(square, rows, similarity, axis=1)
    np.testing.assert_allclose(square, square.T, atol=1e-6)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    np.testing.assert_allclose(nearest(unit(vectors @ turn), unit(vectors @ turn), k)[0], similarity[:, :k], atol=2e-6)


def test_a_handful_of_queries_takes_no_longer_than_many():
    import faiss

    assert faiss.cvar.distance_compute_blas_threshold == 0  # faiss 1.15 would leave BLAS out for 4 to 249 queries, at 18 times the time


@given(st.integers(3, 40), st.integers(1, 6), st.floats(0, 1), seeds)
@quick
def test_similar_pairs_are_those_of_brute_force_in_order_whatever_k(n, k, quantile, seed):
    vectors = np.vstack([directions(n, 6, seed), around(directions(1, 6, seed)[0], 4, 0.1, seed)])
    bound = bound_between(vectors, quantile)
    reference = pairs_by_brute_force(vectors, bound)
    pairs, similarity = similar_pairs(vectors, bound, k)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(reference)
    np.testing.assert_allclose(similarity, [reference[pair] for pair in sorted(reference)], atol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 33, 64])
def test_a_group_larger_than_k_is_found_whole(size):
    vectors = np.vstack([directions(100, 32, 6), around(directions(1, 32, 7)[0], size, 0.01, 8), directions(20, 32, 9)])
    pairs, similarity = similar_pairs(vectors, 0.9, 4)
    assert [tuple(pair) for pair in pairs.tolist()] == [(100 + a, 100 + b) for a in range(size) for b in range(a + 1, size)]
    assert (similarity > 0.9).all()


def test_more_equal_vectors_than_k_are_all_pairs_of_them():
    vectors = np.repeat(directions(2, 16, 10), 20, axis=0)
    pairs, _ = similar_pairs(vectors, 0.99, 3)
    assert len(pairs) == 2 * 190
    assert (pairs[:, 0] // 20 == pairs[:, 1] // 20).all()


@given(st.integers(3, 25), st.floats(0, 1), st.floats(0, 1), seeds)
@quick
def test_a_higher_bound_never_adds_a_pair(n, one, other, seed):
    vectors = directions(n, 4, seed)
    loose, strict = (bound_between(vectors, q) for q in sorted((one, other)))
    kept, all_pairs = ({tuple(pair) for pair in similar_pairs(vectors, bound, 3)[0].tolist()} for bound in (strict, loose))
    assert kept <= all_pairs


@given(st.integers(3, 25), seeds)
@quick
def test_similar_pairs_do_not_depend_on_the_order_of_the_vectors(n, seed):
    vectors, order = directions(n, 4, seed), np.random.default_rng(seed).permutation(n)
    bound = bound_between(vectors, 0.6)
    renamed = {tuple(sorted(order[pair].tolist())) for pair in similar_pairs(vectors[order], bound, 2)[0]}
    assert renamed == {tuple(pair) for pair in similar_pairs(vectors, bound, 2)[0].tolist()}


def test_no_vectors_and_a_lone_vector_have_no_pairs():
    for n in (0, 1):
        pairs, similarity = similar_pairs(directions(n, 4, 0), 0.5, 3)
        assert pairs.shape == (0, 2) and similarity.shape == (0,)


def test_orthogonal_vectors_have_no_pairs():
    assert len(similar_pairs(np.eye(12, dtype=np.float32), 0.5, 2)[0]) == 0


def self_join(vectors: np.ndarray, cuts: list[int], bound: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and similarity by blocks: those within each, and those of each with every later one."""
    ends = [0, *cuts, len(vectors)]
    blocks = [(start, vectors[start:stop]) for start, stop in zip(ends, ends[1:], strict=False)]
    found = [(a, a, *similar_pairs(block, bound, k)) for a, block in blocks]
    found += [(a, b, *tile_pairs(one, other, bound, k)) for i, (a, one) in enumerate(blocks) for b, other in blocks[i + 1:]]
    pairs = np.concatenate([pairs + [a, b] for a, b, pairs, _ in found])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], np.concatenate([similarity for *_, similarity in found])[order]


@given(st.integers(3, 60), st.integers(1, 6), st.floats(0, 1), st.lists(st.integers(0, 60), max_size=5), seeds)
@quick
def test_a_self_join_in_tiles_is_that_of_all_rows_to_the_byte(n, k, quantile, cuts, seed):
    vectors = np.vstack([directions(n, 6, seed), around(directions(1, 6, seed)[0], 8, 0.1, seed)]).astype(np.float16)
    cosine = (vectors.astype(float) @ vectors.T.astype(float))[np.triu_indices(len(vectors), 1)]
    bound = float(np.float32(np.quantile(cosine, quantile)))  # a pair at the very bound: rounding could decide it
    pairs, similarity = similar_pairs(vectors, bound, k)
    tiled, of_tiles = self_join(vectors, sorted(min(cut, n) for cut in cuts), bound, k)
    assert np.array_equal(pairs, tiled) and similarity.tobytes() == of_tiles.tobytes()
    assert (similarity.astype(float) >= bound).all() and len(pairs) >= (cosine > bound + 1e-6).sum()


def test_pairs_are_the_same_bytes_with_one_thread_and_with_two():
    import faiss

    vectors = np.vstack([directions(400, 128, 1), around(directions(1, 128, 2)[0], 200, 0.09, 3)]).astype(np.float16)
    before, made = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2):
            faiss.omp_set_num_threads(threads)
            made.append(similar_pairs(vectors, 0.45, 16))
    finally:
        faiss.omp_set_num_threads(before)
    assert 1000 < len(made[0][0]) < 19_900 and all(one.tobytes() == other.tobytes() for one, other in zip(*made, strict=True))


@given(st.integers(1, 700), seeds)
@quick
def test_similarities_of_half_precision_rows_are_exact_in_any_order_of_the_sum(d, seed):
    from fractions import Fraction

    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(4, d)) * 10.0 ** rng.integers(-4, 1, (4, d))).astype(np.float16)
    pairs = np.array([[0, 1], [2, 3], [1, 1]])
    exact = [float(sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(vectors[a], vectors[b], strict=True))) for a, b in pairs]
    order = rng.permutation(d)
    for columns in (vectors, np.ascontiguousarray(vectors[:, order])):
        assert similarities(columns, columns, pairs).tolist() == np.array(exact, np.float32).tolist()


def test_tiles_without_queries_or_references_have_no_pairs():
    some, none = directions(3, 4, 0), np.zeros((0, 4), np.float32)
    for queries, references in ((some, none), (none, some), (none, none)):
        pairs, similarity = tile_pairs(queries, references, 0.5, 3)
        assert pairs.shape == (0, 2) and similarity.shape == (0,)
