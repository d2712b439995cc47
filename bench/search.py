"""Eidetic's exact search against bare faiss (IndexFlatIP) on the same vectors, in pairs in one run; five minutes on two cores.

    python -m bench.search [--sizes 2000 20000 200000] [--queries 2000] [--width 512] [--pairs 7]

Eidetic's side is what `matches` does with descriptors: references checked for unit length, generations in blocks of 256, 8k
candidates among members and held-out images, the k nearest of each split, and their cosines taken once more from the vectors.
faiss's side is one index and one search for as many neighbours: no check, no blocks, no splits. Both find the same rows.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import faiss

DEFAULT = faiss.cvar.distance_compute_blas_threshold  # before Eidetic sets its own

import numpy as np  # noqa: E402

from tasks.measures import neighbours  # noqa: E402

BLOCK, K = 256, 5  # of tasks/matches.py and of params.yaml
OURS = faiss.cvar.distance_compute_blas_threshold


def unit(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    """[n, width] float32 random directions."""
    rows = rng.standard_normal((n, width), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def bare(references: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """[m, 8 K] rows that faiss finds, with its own settings."""
    faiss.cvar.distance_compute_blas_threshold = DEFAULT
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(references)
    return np.asarray(index.search(queries, min(8 * K, len(references)))[1])


def audited(references: np.ndarray, queries: np.ndarray, is_member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[m, 8 K] rows that Eidetic finds, and [m, 2, K] cosines of the nearest of each split."""
    faiss.cvar.distance_compute_blas_threshold = OURS
    index = neighbours.Index(references)
    found, cosines = [], []
    for start in range(0, len(queries), BLOCK):
        block = queries[start:start + BLOCK]
        _, rows = neighbours.nearest(index, block, 8 * K)
        of_split = [np.take_along_axis(rows, np.argsort(~allowed[rows], axis=1, kind="stable")[:, :K], axis=1) for allowed in (is_member, ~is_member)]
        cosines.append(np.einsum("md,mskd->msk", block, references[np.stack(of_split, axis=1)]))
        found.append(rows)
    return np.concatenate(found), np.concatenate(cosines)


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(references: np.ndarray, queries: np.ndarray, is_member: np.ndarray, n_pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of faiss and of Eidetic, pair by pair, in turn first; raises AssertionError where they do not find the same."""
    ours, theirs = audited(references, queries, is_member)[0], bare(references, queries)  # warm, and compared
    assert (np.sort(ours, axis=1) == np.sort(theirs, axis=1)).mean() > 0.9999  # but for ties in the last digit
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
