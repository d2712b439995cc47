"""Which pictures a blocklist stops: how like an entry a picture is, where thresholds lie, which copies stand for others, what a policy leaves."""

import numpy as np

from tasks.measures import distances

ROOM = 0.02  # of likeness above the likest calibrating picture: new prompts come nearer (bench/README.md, "Remedies")
HASH_BITS = 256
COLOUR_WEIGHT, HASH_WEIGHT = 2.0, 0.5  # of likeness lost per unit of layout distance, and per share of the hash's bits
LAYOUT_TILES = 4  # a side: enlarged, 8 tiles a side would themselves be copies of half of the example's images by the audit's rule, 4 of none


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
    nearest = vectors @ vectors[chosen[0]]
    nearest[chosen[0]] = np.inf
    while len(chosen) < min(n, len(vectors)):
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
        nearest[chosen[-1]] = np.inf
    return np.array(chosen, np.int64)


def layout(picture: np.ndarray) -> np.ndarray:
    """[48] uint8 colour layout: mean red, green, blue of each of 4 x 4 tiles, row by row (cf. MPEG-7's colour layout, Kasutani and Yamada 2001).

    picture [h, w, 3] uint8; sides that do not divide are cut as np.array_split does. The root mean square difference of two pictures of one size
    whose sides divide is at least that of their layouts (up to rounding), so that a copy within l2 0.15 has a layout within 0.15.
    Raises ValueError for a picture of fewer than 4 px a side.
    """
    height, width = picture.shape[:2]
    if min(height, width) < LAYOUT_TILES:
        raise ValueError(f"a picture of {width} x {height} px has no {LAYOUT_TILES} x {LAYOUT_TILES} tiles")
    cuts = distances.tile_slices(height, width, LAYOUT_TILES)
    tops, lefts = [rows.start for rows, _ in cuts[::LAYOUT_TILES]], [columns.start for _, columns in cuts[:LAYOUT_TILES]]
    sums = np.add.reduceat(np.add.reduceat(picture, tops, axis=0, dtype=np.int64), lefts, axis=1).reshape(-1, 3)
    n = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in cuts]
    return np.asarray(np.rint(sums / np.array(n)[:, None]), np.uint8).ravel()


def layout_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, m] float32 root mean square difference of layouts a [n, k] and b [m, k] uint8, in [0, 1]."""
    return distances.pairwise_l2(a / np.float32(255), b / np.float32(255))


def likeness(similarity: np.ndarray, layout_distance: np.ndarray, n_bits: np.ndarray) -> np.ndarray:
    """How like an entry a picture is, in [-3.5, 1], higher is closer and never above the similarity.

    Similarity of descriptors in [-1, 1], less COLOUR_WEIGHT times the layouts' distance in [0, 1], less HASH_WEIGHT times the share of bits
    in which the hashes differ, n_bits in [0, HASH_BITS] (half of them for a hash that says too little: what chance gives). A copy-detection
    descriptor is made to ignore colours (SSCD, Pizzi et al. 2022); what is verbatim by its pixels has the colours and the outlines too.
    """
    return np.asarray(similarity - COLOUR_WEIGHT * layout_distance - HASH_WEIGHT * (n_bits / HASH_BITS))


def likeness_threshold(ordinary: np.ndarray, least: float) -> float:
    """Likeness from which a picture is blocked, in [least, 1 + ROOM]: ROOM above the largest of the ordinary pictures [n], but not below `least`.

    The chance that a further ordinary picture, alike in distribution and independent, passes the largest of n is 1 / (n + 1) at most
    (rank argument); pictures of one prompt are not independent, so the rate is measured on prompts that set nothing. `least` without any.
    """
    return float(max(least, ordinary.max() + ROOM)) if len(ordinary) else float(least)


def hash_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, m] int32 bits in which hashes a [n, 32] and b [m, 32] uint8 differ."""
    x, y = (np.unpackbits(h, axis=1).astype(np.float32) for h in (a, b))
    return np.asarray(np.rint(x.sum(axis=1)[:, None] + y.sum(axis=1)[None] - 2 * x @ y.T), np.int32)


def told_bits(n_bits: np.ndarray, clear_a: np.ndarray, clear_b: np.ndarray) -> np.ndarray:
    """[n, m] int32 bits in which hashes differ, half of all where either says too little: clear_a [n], clear_b [m] bool say which do not."""
    return np.where(clear_a[:, None] & clear_b[None], n_bits, HASH_BITS // 2)


def expected_extracted(n_clusters: np.ndarray, rate: np.ndarray) -> float:
    """Clusters expected to come back: the sum over bins of copies of their clusters [b] times the rate of the bin [b] in [0, 1].

    Raises ValueError for counts below 0 and for rates outside [0, 1]; nan, where a bin with clusters has no rate, makes the sum nan.
    """
    known = rate[np.isfinite(rate)]
    if (n_clusters < 0).any() or (known < 0).any() or (known > 1).any():
        raise ValueError("clusters are counted from 0, and rates lie in [0, 1]")
    return float(np.where(n_clusters > 0, n_clusters * rate, 0.0).sum())
