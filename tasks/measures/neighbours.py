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
    """[p, 2] rows (a < b, each pair once, in order) and [p] similarity of all pairs at or above min_similarity.

    vectors [n, d] float32 of unit length. By k nearest neighbours, where k doubles for the rows whose k-th neighbour is still
    at or above the bound: exact whatever the largest group is, and no range search (a trap on quantised indexes).
    """
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    rows = np.arange(len(vectors))
    while len(rows):
        similarity, columns = nearest(vectors, vectors[rows], k)
        full = (similarity[:, -1] >= min_similarity) & (similarity.shape[1] < len(vectors))
        done = ~full
        close = (similarity >= min_similarity) & done[:, None]
        found.append((np.repeat(rows, close.sum(axis=1)), columns[close], similarity[close]))
        rows, k = rows[full], 2 * k
    a, b, s = (np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.zeros(0, int),) * 3
    pairs = np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)[a != b]
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    return pairs, s[a != b][first]


def _unit(name: str, rows: np.ndarray) -> np.ndarray:
    """The rows [n, d] as float32, row by row in memory; raises ValueError unless each is of unit length."""
    if rows.ndim != 2:
        raise ValueError(f"{name} {rows.shape} are not [n, d]; pass one vector a row")
    plain = np.ascontiguousarray(rows, np.float32)
    squared = np.einsum("nd,nd->n", plain, plain)  # without the array of squares that norm makes: a thirtieth of its time
    if not np.all(np.abs(squared - 1) <= 4e-3):  # 2e-3 of the length; written so that NaN fails, too
        raise ValueError(f"{name} must be of unit length for a cosine; divide each row by its norm")
    return plain
