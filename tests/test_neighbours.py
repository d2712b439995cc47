"""Nearest neighbours and similar pairs against brute force, also where a group is larger than k."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures import neighbours


def unit(rng: np.random.Generator, n: int, d: int = 16) -> np.ndarray:
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_is_the_order_of_the_cosines(rng: np.random.Generator) -> None:
    references, queries = unit(rng, 50), unit(rng, 7)
    similarity, rows = neighbours.nearest(references, queries, 5)
    cosines = queries @ references.T
    assert (rows == np.argsort(-cosines, axis=1)[:, :5]).all()
    assert np.allclose(similarity, np.sort(cosines, axis=1)[:, ::-1][:, :5], atol=1e-6)


def test_more_neighbours_than_references_are_all_of_them(rng: np.random.Generator) -> None:
    similarity, rows = neighbours.nearest(unit(rng, 3), unit(rng, 2), 10)
    assert similarity.shape == rows.shape == (2, 3)


def test_vectors_that_are_not_of_unit_length_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="references must be of unit length"):
        neighbours.nearest(2 * unit(rng, 3), unit(rng, 2), 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.2, 0.9), st.integers(1, 8))
def test_pairs_are_those_of_brute_force_whatever_k_starts_with(seed: int, bound: float, k: int) -> None:
    vectors = unit(np.random.default_rng(seed), 30, 4)
    pairs, similarity = neighbours.similar_pairs(vectors, bound, k)
    cosines = vectors @ vectors.T
    # a pair on the very bound may fall either way by rounding
    sure = {(a, b) for a in range(30) for b in range(a + 1, 30) if cosines[a, b] >= bound + 1e-5}
    found = {tuple(p) for p in pairs.tolist()}
    assert sure <= found and all(cosines[a, b] >= bound - 1e-5 for a, b in found)
    assert np.allclose(similarity, [cosines[a, b] for a, b in pairs.tolist()], atol=1e-5)
    assert pairs.tolist() == sorted(pairs.tolist())


def test_a_group_larger_than_k_is_found_whole(rng: np.random.Generator) -> None:
    vectors = np.concatenate([np.repeat(unit(rng, 1), 40, axis=0), unit(rng, 10)])
    pairs, _ = neighbours.similar_pairs(vectors, 0.99, 4)
    assert len(pairs) >= 40 * 39 // 2
