"""Nearest neighbours and similar pairs by cosine, exactly (faiss)."""

import faiss
import numpy as np

# faiss 1.15 takes BLAS from 128,000 / d queries on; below, 4 to 249 queries of 512 dimensions took up to 18 times as long
faiss.cvar.distance_compute_blas_threshold = 0


def nearest(references: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[m, k] cosine similarity (higher is closer) and [m, k] row of the reference, best first; k is cut to the references.

    references [n, d] and queries [m, d] float32 of unit length; without references both are [m, 0]. Exact: every cosine is
    taken, and references are not copied. All queries at once are fastest: 256 at a time take a tenth longer, on a busy machine
    several times. Raises ValueError where a row is not of unit length, and among references where the widths differ or k is below 1.
    """
    vectors, wanted = _unit("references", references), _unit("queries", queries)
    if not len(vectors):
        return np.zeros((len(wanted), 0), np.float32), np.zeros((len(wanted), 0), np.int64)
    if k < 1 or vectors.shape[1] != wanted.shape[1]:
        raise ValueError(f"no {k} nearest of references {vectors.shape} to queries {wanted.shape}; ask for at least 1, of one width")
    similarity, rows = faiss.knn(wanted, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return similarity, rows


def similar_pairs(vectors: np.ndarray, min_similarity: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[p, 2] rows (a < b, each pair once, in order) and [p] float32 similarity of all pairs at or above min_similarity.

    vectors [n, d] float16 or float32 of unit length, n at most some 150,000 (beyond, `indexes`). Exact whatever the largest group
    is, and the same bytes whatever the threads: `tile_pairs` of the rows with themselves. Raises ValueError as `nearest` does.
    """
    pairs, similarity = tile_pairs(vectors, vectors, min_similarity, k)
    once = pairs[:, 0] < pairs[:, 1]
    return pairs[once], similarity[once]


def tile_pairs(queries: np.ndarray, references: np.ndarray, floor: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[p, 2] rows (of the query, of the reference; in order) and [p] float32 similarity of all pairs of two blocks at or above floor.

    queries [m, d] and references [n, d] float16 or float32 of unit length. By k nearest neighbours, where k doubles for the rows
    whose k-th neighbour is still near the floor (range search is a trap on quantised indexes); what that finds with a slack is
    scored anew by `similarities`, so that neither threads nor the cut of the blocks decide what is a pair, or a byte of it. A
    self-join in blocks is `similar_pairs` of each and this of each with every later one. Raises ValueError as `nearest` does.
    """
    wanted = _unit("queries", queries)
    vectors = wanted if references is queries else _unit("references", references)
    rows, found = np.arange(len(wanted)), [np.zeros((0, 2), np.int64)]
    enough = floor - vectors.shape[1] * 2.0**-23  # twice what the sum of d products in single precision can be off (Higham 2002, 3.1)
    while len(rows) and len(vectors):
        similarity, columns = nearest(vectors, wanted[rows], k)
        is_full = (similarity[:, -1] >= enough) & (similarity.shape[1] < len(vectors))
        is_near = (similarity >= enough) & ~is_full[:, None]
        found.append(np.stack([np.repeat(rows, is_near.sum(axis=1)), columns[is_near]], axis=1))
        rows, k = rows[is_full], 2 * k
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    similarity = similarities(queries, references, pairs)
    is_pair = similarity.astype(np.float64) >= floor
    return pairs[is_pair], similarity[is_pair]


def row_pairs(vectors: np.ndarray, rows: np.ndarray, floor: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[p, 2] rows (one of rows [m], any other) and [p] float32 similarity of all pairs at or above floor of these rows with all of vectors.

    vectors [n, d] float16 or float32 of unit length, may be memory-mapped: 65,536 rows are read at a time. A pair of two of the rows
    stands there from both sides. Raises ValueError as `nearest` does.
    """
    pairs, similarity = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(vectors), 65_536):
        tile, score = tile_pairs(vectors[rows], vectors[start:start + 65_536], floor, k)
        ends = np.stack([rows[tile[:, 0]], start + tile[:, 1]], axis=1)
        pairs.append(ends[ends[:, 0] != ends[:, 1]])
        similarity.append(score[ends[:, 0] != ends[:, 1]])
    return np.concatenate(pairs), np.concatenate(similarity)


def similarities(queries: np.ndarray, references: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """[p] float32 cosine of each pair of rows [p, 2] (of queries [m, d], of references [n, d]; both of unit length, arrays or memory-mapped).

    Summed in double precision, one row at a time. Of float16 rows every product is a multiple of 2^-48 and no partial sum exceeds
    1 by much: 53 bits hold them all, so that the sum is exact, the same in every order, on every machine, with any threads.
    """
    out = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 512):  # 2 MB a side at 512 dimensions: it stays in the cache
        a, b = (side[rows].astype(np.float64) for side, rows in zip((queries, references), pairs[start:start + 512].T, strict=True))
        out[start:start + 512] = np.vecdot(a, b)
    return out


def _unit(name: str, rows: np.ndarray) -> np.ndarray:
    """The rows [n, d] as float32, row by row in memory; raises ValueError unless each is of unit length."""
    if rows.ndim != 2:
        raise ValueError(f"{name} {rows.shape} are not [n, d]; pass one vector a row")
    plain = np.ascontiguousarray(rows, np.float32)
    squared = np.einsum("nd,nd->n", plain, plain)  # without the array of squares that norm makes: a thirtieth of its time
    if not np.all(np.abs(squared - 1) <= 4e-3):  # 2e-3 of the length; written so that NaN fails, too
        raise ValueError(f"{name} must be of unit length for a cosine; divide each row by its norm")
    return plain
