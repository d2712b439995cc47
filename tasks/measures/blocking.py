"""Which pictures a blocklist stops: where its thresholds lie, which copies stand for the others, and what a policy leaves to be extracted."""

import numpy as np

ROOM = 0.025  # of similarity above the most similar calibrating picture: new prompts come nearer (bench/README.md, "Remedies")
HASH_SHARE = 0.875  # of the bits in which the nearest calibrating picture differs
HASH_BITS = 256


def spread(vectors: np.ndarray, n: int) -> np.ndarray:
    """[<= n] rows of unit vectors [m, d] that stand for all: the most central, then always the one least like those chosen.

    Farthest-first traversal (Gonzalez 1985): no choice of n rows has a worst-represented vector less than half as far away. In order
    of choice; all rows, in that order, where there are no more than n. Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"{n} rows stand for nothing; choose at least 1")
    if not len(vectors):
        return np.zeros(0, np.int64)
    chosen = [int(np.argmax(vectors @ vectors.sum(axis=0)))]
    likeness = vectors @ vectors[chosen[0]]
    likeness[chosen[0]] = np.inf
    while len(chosen) < min(n, len(vectors)):
        chosen.append(int(np.argmin(likeness)))
        likeness = np.maximum(likeness, vectors @ vectors[chosen[-1]])
        likeness[chosen[-1]] = np.inf
    return np.array(chosen, np.int64)


def similarity_threshold(ordinary: np.ndarray, least: float) -> float:
    """Similarity from which a picture is blocked, in [least, 1 + ROOM]: ROOM above the largest of the ordinary pictures [n], but not below `least`.

    The chance that a further ordinary picture, alike in distribution and independent, passes the largest of n is 1 / (n + 1) at most
    (rank argument); pictures of one prompt are not independent, so the rate is measured on prompts that set nothing. `least` without any.
    """
    return float(max(least, ordinary.max() + ROOM)) if len(ordinary) else float(least)


def hash_threshold(ordinary: np.ndarray, most: int) -> int:
    """Bits in which hashes may differ for a picture to be blocked, in [0, most]: HASH_SHARE of the fewest of ordinary pictures [n]; `most` without any."""
    return int(min(most, np.floor(HASH_SHARE * ordinary.min()))) if len(ordinary) else int(most)


def hash_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, m] int32 bits in which hashes a [n, 32] and b [m, 32] uint8 differ."""
    x, y = (np.unpackbits(h, axis=1).astype(np.float32) for h in (a, b))
    return np.asarray(np.rint(x.sum(axis=1)[:, None] + y.sum(axis=1)[None] - 2 * x @ y.T), np.int32)


def is_blocked(similarity: np.ndarray, distance: np.ndarray, threshold: np.ndarray, near: float, hash_distance: np.ndarray) -> np.ndarray:
    """[n, e] bool: which entries block which pictures.

    An entry blocks a picture whose descriptor is as similar as its threshold [e], and one that is at least near and whose hash differs in no
    more than hash_distance [e] bits (-1: its hash says nothing). similarity [n, e] in [-1, 1], distance [n, e] in bits (HASH_BITS + 1: no hash).
    """
    return np.asarray((similarity >= threshold) | ((similarity >= near) & (distance <= hash_distance)))


def expected_extracted(n_clusters: np.ndarray, rate: np.ndarray) -> float:
    """Clusters expected to come back: the sum over bins of copies of their clusters [b] times the rate of the bin [b] in [0, 1].

    Raises ValueError for counts below 0 and for rates outside [0, 1]; nan, where a bin with clusters has no rate, makes the sum nan.
    """
    known = rate[np.isfinite(rate)]
    if (n_clusters < 0).any() or (known < 0).any() or (known > 1).any():
        raise ValueError("clusters are counted from 0, and rates lie in [0, 1]")
    return float(np.where(n_clusters > 0, n_clusters * rate, 0.0).sum())
