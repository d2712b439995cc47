"""The similarity from which pairs count as copies, chosen on labelled descriptors and judged on others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.measures.clusters import drift_links, star_centres


@dataclass(frozen=True)
class Quality:
    """Pairs of rows in one cluster (n_pairs), those of them that are copies (n_right), and all copies there are (n_copies)."""

    threshold: float
    n_pairs: int
    n_right: int
    n_copies: int

    @property
    def precision(self) -> float:
        """n_right / n_pairs; 1 without pairs."""
        return self.n_right / self.n_pairs if self.n_pairs else 1.0

    @property
    def recall(self) -> float:
        """n_right / n_copies; 1 without copies."""
        return self.n_right / self.n_copies if self.n_copies else 1.0


def stars(n: int, pairs: np.ndarray, similarity: np.ndarray, threshold: float) -> np.ndarray:
    """[n] centre of each row's star as `duplicates` counts descriptors: of pairs [p, 2] at or above the threshold, less the links of drift chains."""
    edges = pairs[similarity.astype(np.float64) >= threshold]
    edges = edges[~drift_links(n, edges)]
    degree = np.bincount(edges.ravel(), minlength=n)
    return star_centres(n, edges, np.lexsort((np.arange(n), -degree)))


def quality(cluster: np.ndarray, group: np.ndarray, threshold: float) -> Quality:
    """How well clusters [n] agree with the true groups [n], counted over pairs of rows (Rand 1971; pair precision and recall)."""
    both = np.unique(cluster, return_inverse=True)[1] * (int(group.max(initial=0)) + 1) + group
    sizes = (np.unique(labels, return_counts=True)[1] for labels in (cluster, group, both))
    n_pairs, n_copies, n_right = (int((size * (size - 1) // 2).sum()) for size in sizes)
    return Quality(threshold, n_pairs, n_right, n_copies)


def best_threshold(group: np.ndarray, pairs: np.ndarray, similarity: np.ndarray, grid: Sequence[float], min_precision: float) -> Quality:
    """Of the thresholds on the grid whose stars have at least this pair precision, the one with the largest recall (the higher of equals).

    group [n] the true group of each row; pairs [p, 2] and similarity [p] float32 all pairs from the lowest threshold up. Judge
    it on descriptors that it was not chosen on. Raises ValueError where no threshold is precise enough, with the best there is.
    """
    found = [quality(stars(len(group), pairs, similarity, threshold), group, threshold) for threshold in grid]
    good = [q for q in found if q.precision >= min_precision]
    if not good:
        best = max(found, key=lambda q: q.precision, default=None)
        raise ValueError(f"no threshold of {list(grid)} reaches a pair precision of {min_precision}; the best is "
                         f"{best.precision:.3f} at {best.threshold}" if best else "the grid has no threshold; give at least one")
    return max(good, key=lambda q: (q.recall, q.threshold))
