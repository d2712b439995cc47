"""Nearest neighbours and similar pairs by cosine, exactly (faiss)."""

import faiss
import numpy as np


def nearest(references: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[m, k] cosine similarity (higher is closer) and [m, k] row of the reference, best first; k is cut to the references.

    references [n, d] and queries [m, d] float32 of unit length. Raises ValueError where they are not.
    """
    for name, rows in (("references", references), ("queries", queries)):
        if len(rows) and np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 2e-3:
            raise ValueError(f"{name} must be of unit length for a cosine; divide each row by its norm")
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(np.ascontiguousarray(references, np.float32))
    similarity, rows = index.search(np.ascontiguousarray(queries, np.float32), min(k, len(references)))
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
