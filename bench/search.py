"""Eidetic's exact search against bare faiss (IndexFlatIP) on the same vectors, in pairs in one run; five minutes on two cores.

    python -m bench.search [--sizes 2000 20000 200000] [--queries 2000] [--width 512] [--pairs 7]

Eidetic's side is what an audit does with descriptors: references and queries checked for unit length, members and held-out images
searched alike for the k nearest of each, and their cosines taken once more from the vectors. faiss's side is one index of all and
one search for 2k neighbours: no check and no splits. What faiss finds among the first k, Eidetic finds too.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import faiss

DEFAULT = faiss.cvar.distance_compute_blas_threshold  # before Eidetic sets its own

import numpy as np  # noqa: E402

from tasks.measures import neighbours  # noqa: E402

K = 5  # matches.k of params.yaml
FEW = 16  # queries whose neighbours are gathered at once: their vectors stay in the cache
OURS = faiss.cvar.distance_compute_blas_threshold


def unit(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    """[n, width] float32 random directions."""
    rows = rng.standard_normal((n, width), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def bare(references: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """[m, 2 K] rows that faiss finds, with its own settings."""
    faiss.cvar.distance_compute_blas_threshold = DEFAULT
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(references)
    return np.asarray(index.search(queries, 2 * K)[1])


def audited(references: np.ndarray, queries: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[m, 2 K] rows that Eidetic finds, members first, and their cosines."""
    faiss.cvar.distance_compute_blas_threshold = OURS
    of_split = [np.flatnonzero(is_member), np.flatnonzero(~is_member)]
    found = np.concatenate([rows[neighbours.nearest(references[rows], queries, K)[1]] for rows in of_split], axis=1)
    starts = range(0, len(queries), FEW)
    return found, np.concatenate([np.vecdot(queries[i:i + FEW, None], references[found[i:i + FEW]]) for i in starts])


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(references: np.ndarray, queries: np.ndarray, is_member: np.ndarray, n_pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of faiss and of Eidetic, pair by pair, each first in every second pair; raises AssertionError where Eidetic misses what faiss finds."""
    ours, theirs = audited(references, queries, is_member)[0], bare(references, queries)  # warm, and compared
    assert (theirs[:, :K, None] == ours[:, None, :]).any(axis=2).mean() > 0.9999  # all but ties in the last digit
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(n_pairs):
        for side in (0, 1) if pair % 2 else (1, 0):
            seconds[side].append(timed(lambda: audited(references, queries, is_member)) if side else timed(lambda: bare(references, queries)))
    return seconds


def main() -> None:
    """Print a row per number of references."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    for name, default in (("queries", 2000), ("width", 512), ("pairs", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} threads, {asked.queries:,} queries of {asked.width} dimensions\n")
    print("| references | faiss, s | Eidetic, s | Eidetic / faiss, median of pairs | range |\n|---|---|---|---|---|")
    for size in asked.sizes:
        references, queries = unit(rng, size, asked.width), unit(rng, asked.queries, asked.width)
        theirs, ours = ratios(references, queries, rng.random(size) < 0.9, asked.pairs)
        quotient = [b / a for a, b in zip(theirs, ours, strict=True)]
        print(f"| {size:,} | {statistics.median(theirs):.3f} | {statistics.median(ours):.3f} | {statistics.median(quotient):.2f} | "
              f"{min(quotient):.2f} to {max(quotient):.2f} |", flush=True)


if __name__ == "__main__":
    main()
