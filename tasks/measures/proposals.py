"""Which pairs deserve a look at their pixels: neighbours by descriptor."""

import numpy as np

from tasks.measures import neighbours


def proposals(queries: np.ndarray, references: np.ndarray, floor: float, enough: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[p, 2] rows (of the query, of the reference; in order) and [p] float32 similarity of what a query proposes.

    queries [m, d] and references [n, d] of unit length. Every reference at or above `enough`, however many, and of the k nearest
    those at or above `floor`: on pictures that all look alike to a descriptor the right one is among the first, not above any cut.
    Rows proposed in one block of references are `first` among those proposed in all. Raises ValueError as `nearest` does.
    """
    pairs, similarity = neighbours.tile_pairs(queries, references, enough, k)
    if floor < enough and len(queries) and len(references):
        _, columns = neighbours.nearest(references, queries, k)
        near = np.stack([np.repeat(np.arange(len(queries)), columns.shape[1]), columns.ravel()], axis=1)
        cosine = neighbours.similarities(queries, references, near)
        is_low = (cosine >= floor) & (cosine < enough)
        pairs, similarity = np.concatenate([pairs, near[is_low]]), np.concatenate([similarity, cosine[is_low]])
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        pairs, similarity = pairs[order], similarity[order]
    return pairs, similarity


def first(pairs: np.ndarray, similarity: np.ndarray, enough: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    """[q, 2] pairs (a < b, each once, in order) and [q] their similarity, of pairs that rows propose to each other.

    pairs [p, 2] (of the row that proposes, of the proposed one) over all blocks; kept are those at or above `enough`, and the first k of
    each row that proposes. A row does not propose itself.
    """
    own = pairs[:, 0] == pairs[:, 1]
    pairs, similarity = pairs[~own], similarity[~own]
    order = np.lexsort((pairs[:, 1], -similarity, pairs[:, 0]))
    starts = np.searchsorted(pairs[order, 0], pairs[order, 0])
    rank = np.empty(len(pairs), np.int64)
    rank[order] = np.arange(len(pairs)) - starts
    is_kept = (similarity >= enough) | (rank < k)
    once, rows = np.unique(np.sort(pairs[is_kept], axis=1), axis=0, return_index=True)
    return once, similarity[is_kept][rows]
