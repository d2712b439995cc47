"""Proposals against all cosines, and the same whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures.proposals import first, proposals


def world(seed: int, n: int) -> np.ndarray:
    """[n, 16] float16 vectors of unit length in loose groups."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 16)) + 2 * rng.normal(size=(4, 16))[rng.integers(0, 4, n)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def expected(vectors: np.ndarray, floor: float, enough: float, k: int) -> set[tuple[int, int]]:
    cosines = (vectors.astype(float) @ vectors.astype(float).T).astype(np.float32)
    found = set()
    for row in range(len(vectors)):
        others = [b for b in np.lexsort((np.arange(len(vectors)), -cosines[row])).tolist() if b != row]
        found |= {tuple(sorted((row, b))) for rank, b in enumerate(others) if cosines[row, b] >= enough or (rank < k and cosines[row, b] >= floor)}
    return found


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 6), st.integers(1, 4), st.floats(-0.5, 0.6))
@settings(deadline=None, max_examples=60)
def test_rows_propose_all_that_are_near_and_their_first_k_whatever_the_blocks(seed: int, n: int, k: int, n_blocks: int, floor: float) -> None:
    vectors, enough = world(seed, n), 0.7
    found, similarity = [], []
    edges = np.linspace(0, n, n_blocks + 1).astype(int)
    blocks = list(zip(edges[:-1], edges[1:], strict=True))
    for a in blocks:
        for b in blocks:
            pairs, scores = proposals(vectors[slice(*a)], vectors[slice(*b)], floor, enough, k + 1)  # itself is among its nearest
            found.append(pairs + [a[0], b[0]])
            similarity.append(scores)
    pairs, scores = first(np.concatenate(found), np.concatenate(similarity), enough, k)
    assert {tuple(pair) for pair in pairs.tolist()} == expected(vectors, floor, enough, k)
    assert scores == pytest.approx([vectors[a].astype(float) @ vectors[b].astype(float) for a, b in pairs], abs=1e-6)


def test_nothing_is_proposed_among_nothing() -> None:
    none = np.zeros((0, 2), np.int64)
    assert len(first(none, np.zeros(0, np.float32), 0.5, 3)[0]) == 0
    assert len(proposals(world(0, 0).reshape(0, 16), world(0, 3), 0.0, 0.5, 3)[0]) == 0
