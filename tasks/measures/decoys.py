"""What a search of the training set finds beside what the same search finds among pictures that were never seen."""

from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom


class Hits(NamedTuple):
    """Prompts with a hit in a library of a given size."""

    expected: float  # mean over all libraries of that size
    low: float  # 2.5th percentile of the drawn libraries
    high: float  # 97.5th percentile


def hits_at_size(hits: np.ndarray, n_clusters: int, size: int, n_draws: int = 100, seed: int = 0) -> Hits:
    """Prompts that would still have a hit, had the library of n_clusters been cut at random to `size` of them.

    hits [h, 2] int: prompt and cluster of each hit (a generation of the prompt is a copy of the cluster by the verdict's rule);
    repeated rows count once, prompts without a hit have none. In [0, number of prompts with a hit], and just that number at the
    full size. The expectation is exact: a prompt that hits u clusters loses them all with the hypergeometric chance of drawing
    none of u; low and high are percentiles over n_draws libraries (one cluster serves many prompts, so that their number varies
    more than a sum of independent ones). Raises ValueError for sizes outside the library or hits outside it.
    """
    pairs = np.unique(np.asarray(hits, np.int64).reshape(-1, 2), axis=0)
    prompts, prompt, n_hit = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    clusters, cluster = np.unique(pairs[:, 1], return_inverse=True)
    if not (0 <= size <= n_clusters and len(clusters) <= n_clusters):
        raise ValueError(f"{size} of {n_clusters} clusters, {len(clusters)} of them hit; pass the number of all clusters that were searched")
    expected = float((1 - hypergeom.pmf(0, n_clusters, n_hit, size)).sum())
    rng, counts = np.random.default_rng(seed), np.zeros(n_draws)
    for draw in range(n_draws):
        # a random library, as far as hits can tell: how many of the hit clusters are in it, then which
        is_drawn = rng.permutation(len(clusters)) < rng.hypergeometric(len(clusters), n_clusters - len(clusters), size)
        has_hit = np.zeros(len(prompts), bool)
        has_hit[prompt[is_drawn[cluster]]] = True
        counts[draw] = has_hit.sum()
    low, high = np.quantile(counts, [0.025, 0.975])
    return Hits(expected, float(low), float(high))


def against_decoys(member_hits: np.ndarray, decoy_hits: np.ndarray, n_members: int, n_decoys: int, seed: int = 0) -> tuple[Hits, Hits, int]:
    """Hits among training clusters and among clusters never seen (decoys), both at the size of the smaller library; and that size.

    member_hits, decoy_hits [h, 2] as in hits_at_size; n_members, n_decoys = clusters of each kind that were searched, alike. A
    larger library is hit more often by chance alone: at equal size a model that saw neither hits both alike, and decoys / members
    estimates the false share of what the search finds. As target and decoy searches in proteomics (Elias & Gygi 2007). Raises
    ValueError without a cluster on either side, and as hits_at_size does.
    """
    size = min(n_members, n_decoys)
    if size < 1:
        raise ValueError(f"{n_members} training clusters and {n_decoys} decoys; without one of each there is nothing to compare")
    return hits_at_size(member_hits, n_members, size, seed=seed), hits_at_size(decoy_hits, n_decoys, size, seed=seed), size
