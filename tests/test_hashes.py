"""Close hashes against a count of bits over all pairs, by either index."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures import hashes


def world(seed: int, n: int) -> np.ndarray:
    """[n, 32] random hashes and near copies of them."""
    rng = np.random.default_rng(seed)
    bits = rng.random((n, 256)) < 0.5
    for row in range(n // 2, n):
        bits[row] = bits[rng.integers(0, n // 2 or 1)]
        bits[row, rng.choice(256, rng.integers(0, 60), replace=False)] ^= True
    return np.packbits(bits, axis=1)


def brute(rows: np.ndarray, max_distance: int) -> list[tuple[int, int, int]]:
    bits = np.unpackbits(rows, axis=1).astype(int)
    return [(a, b, d) for a in range(len(rows)) for b in range(a + 1, len(rows)) if (d := int((bits[a] != bits[b]).sum())) <= max_distance]


@given(st.integers(0, 1000), st.integers(0, 40), st.integers(0, 31), st.booleans())
@settings(deadline=None, max_examples=40)
def test_close_pairs_are_those_of_a_count_of_bits_by_either_index(seed: int, n: int, max_distance: int, is_large: bool) -> None:
    before, hashes.EXACT_ROWS = hashes.EXACT_ROWS, 0 if is_large else 150_000
    try:
        pairs, distance = hashes.close_pairs(world(seed, n), max_distance)
    finally:
        hashes.EXACT_ROWS = before
    assert [(*pair, d) for pair, d in zip(pairs.tolist(), distance.tolist(), strict=True)] == brute(world(seed, n), max_distance)


def test_what_the_tables_could_miss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "EXACT_ROWS", 0)
    with pytest.raises(ValueError, match="a distance of 31 at most, not 32"):
        hashes.close_pairs(world(0, 4), 32)


def test_hashes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="not \\[n, 32\\] uint8"):
        hashes.close_pairs(np.zeros((2, 8), np.uint8), 31)
