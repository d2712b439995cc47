"""Near pairs among more descriptors than an exact search can compare: inverted lists (faiss) propose, exact cosines decide.

The lists are found the same way with any number of threads and any cut of the queries into blocks. BLAS adds up in another order
there, which is harmless where every sum is exact: queries rounded to multiples of 2^-12 and centroids to multiples of 2^-11
have products that are multiples of 2^-23 and sums below 2, which single precision holds. The rounding moves a vector of 512 dimensions
by 0.002, and only the choice of lists feels it.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned, search_preassigned
from scipy.sparse import csr_array

from tasks.measures.neighbours import row_pairs, similarities

EXACT_ROWS = 150_000  # all cosines of 150,000 rows of 512 dimensions: 3 to 4 minutes on two cores; of a million, hours
ONE_MACHINE_ROWS = 10_000_000  # beyond, k-means with 4 sqrt(n) centroids takes longer than the search that it serves
TRAINED_PER_LIST = 64  # faiss asks for 39 to 256
ROUNDS = 10  # of k-means, faiss's own default
BLOCK = 65_536  # rows held in single precision at once: 134 MB at 512 dimensions
SLACK = 0.02  # what 8-bit codes may be off; tests/test_indexes.py and bench/duplicates.py measure it
GPU_NEIGHBOURS = 2048  # the most that faiss returns on a GPU
FEWEST_PAIRS = 200  # for a recall that is known to a few percent


@dataclass(frozen=True)
class Plan:
    """How n rows are searched: kind, faiss factory string, lists, training rows and bytes of the index (of the vectors, where exact)."""

    kind: Literal["exact", "ivf", "ivf_on_disk"]
    key: str
    n_lists: int
    n_train: int
    n_bytes: int


@dataclass(frozen=True)
class Probes:
    """Lists to look into per query, and what that finds: n_found of the n_exact pairs that an exact search of n_sampled rows found."""

    n_probe: int
    n_found: int
    n_exact: int
    n_sampled: int


def index_plan(n: int, d: int, memory_bytes: int) -> Plan:
    """The plan for n descriptors of d dimensions on a machine with that much memory to spare (autofaiss's rule for the lists, fewer rules).

    Exact up to 150,000 rows; 4 sqrt(n) lists to 10 million; 65,536 lists found through a graph beyond; on disk where the index, or
    what it takes to train it, would not fit. Raises ValueError where n or d is below 1, or memory holds not even the fewest training rows.
    """
    if n < 1 or d < 1:
        raise ValueError(f"no index of {n} rows of {d} dimensions; both are at least 1")
    if n <= EXACT_ROWS:
        return Plan("exact", "Flat", 0, 0, 4 * n * d)
    is_large = n > ONE_MACHINE_ROWS
    n_lists = 65_536 if is_large else 2 ** round(math.log2(4 * math.sqrt(n)))
    n_bytes = n * (d + 8) + n_lists * (4 * d + (400 if is_large else 0))  # codes and ids; centroids and their graph
    fits = (memory_bytes - 4 * n_lists * d) // (8 * d)  # in single precision, and as much again while they are summed
    n_train = min(n, TRAINED_PER_LIST * n_lists, fits)
    if n_train < min(n, 10 * n_lists):
        raise ValueError(f"{memory_bytes:,} bytes do not hold the rows to train {n_lists:,} lists of {d} dimensions; "
                         f"give at least {4 * n_lists * d + 80 * n_lists * d:,}")
    key = f"IVF{n_lists}{'_HNSW32' if is_large else ''},SQ8"
    return Plan("ivf" if n_bytes <= memory_bytes else "ivf_on_disk", key, n_lists, n_train, n_bytes)


def require_searchable(key: str, mode: Literal["nearest", "range"]) -> None:
    """Raise ValueError where an index of this faiss key gives wrong results in this mode.

    Fast-scan codes ("...fs") with a range search find nothing, or everything (faiss pull request 4247, knowhere pull request 1116).
    """
    if mode == "range" and re.search(r"fs[r]?(_\d+)?(,|\)|$)", key):
        raise ValueError(f"{key}: a range search of fast-scan codes loses pairs without saying so; search the nearest and apply the floor to them")


def rounded(vectors: np.ndarray, bits: int = 12) -> np.ndarray:
    """[n, d] float32 multiples of 2^-bits nearest to the vectors."""
    made = np.empty(vectors.shape, np.float32)
    for start in range(0, len(made), 1024):  # 2 MB at 512 dimensions: three passes in the cache
        block = made[start:start + 1024]
        np.multiply(vectors[start:start + 1024], np.float32(2**bits), out=block)
        np.rint(block, out=block)
        block *= np.float32(2.0**-bits)
    return made


def centroids(rows: np.ndarray, n_lists: int, seed: int) -> np.ndarray:
    """[n_lists, d] float32 unit centroids of spherical k-means, multiples of 2^-11; rows [n, d] float32 from `rounded`.

    The same with any number of threads (faiss's own rounds nothing). A centroid without rows takes the row that is worst
    represented. Dhillon and Modha 2001. Raises ValueError with fewer rows than lists.
    """
    if len(rows) < n_lists:
        raise ValueError(f"{len(rows)} rows cannot train {n_lists} lists; give at least as many")
    rng = np.random.default_rng(seed)
    made = rounded(rows[np.sort(rng.choice(len(rows), n_lists, replace=False))], 11)
    for _ in range(ROUNDS):
        similarity, nearest_list = (found[:, 0] for found in faiss.knn(rows, made, 1, metric=faiss.METRIC_INNER_PRODUCT))
        of_list = csr_array((np.ones(len(rows), np.float32), nearest_list, np.arange(len(rows) + 1)), shape=(len(rows), n_lists))
        sums = np.asarray(of_list.T @ rows)
        empty = np.flatnonzero(np.bincount(nearest_list, minlength=n_lists) == 0)
        sums[empty] = rows[np.argsort(similarity, kind="stable")[: len(empty)]]
        made = rounded(sums / np.maximum(np.linalg.norm(sums.astype(np.float64), axis=1, keepdims=True), 1e-9), 11)
    return made


def trained_index(plan: Plan, vectors: np.ndarray, seed: int) -> faiss.IndexIVF:
    """An empty index of the plan's kind, its lists and codes trained on plan.n_train rows of vectors [n, d] (float16, may be memory-mapped).

    Which rows is the seed's choice alone, not their content's. Byte for byte the same with any number of threads.
    Raises ValueError for an exact plan, which needs no index.
    """
    if plan.kind == "exact":
        raise ValueError("an exact plan has no index; search with neighbours.similar_pairs or tile_pairs")
    require_searchable(plan.key, "range")  # a floor is a range, also where the nearest are asked for it
    chosen = np.sort(np.random.default_rng(seed).choice(len(vectors), plan.n_train, replace=False))
    rows = rounded(vectors[chosen])
    index = cast(faiss.IndexIVFScalarQuantizer, faiss.index_factory(rows.shape[1], plan.key, faiss.METRIC_INNER_PRODUCT))
    index.by_residual = False  # a code then says the same of a vector in whichever list it is
    index.sq.rangestat_arg = 0.25  # room beyond the least and greatest value of the training rows: what exceeds it is cut off
    found = centroids(rows, plan.n_lists, seed)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # threads would grow another graph of the centroids each time
    try:
        index.quantizer.add(found)
    finally:
        faiss.omp_set_num_threads(threads)
    index.train(rows)
    return index


def add_rows(index: faiss.IndexIVF, vectors: np.ndarray, start: int, stop: int) -> None:
    """Add rows start to stop of vectors [n, d] (float16, may be memory-mapped) under their row numbers, a block at a time."""
    for first in range(start, stop, BLOCK):
        ids = np.arange(first, min(first + BLOCK, stop))
        rows = np.ascontiguousarray(vectors[first:first + len(ids)], np.float32)
        lists = np.ascontiguousarray(index.quantizer.search(rounded(rows), 1)[1][:, 0])
        add_preassigned(index, rows, lists, ids)


def on_device(index: faiss.IndexIVF) -> faiss.IndexIVF:
    """The index on the first GPU, or itself where this faiss has none. Not tested: no GPU was at hand."""
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        return cast(faiss.IndexIVF, faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index))
    return index


def candidate_pairs(index: faiss.IndexIVF, vectors: np.ndarray, rows: np.ndarray, floor: float, k: int, n_probe: int) -> tuple[np.ndarray, np.ndarray]:
    """[p, 2] rows (a < b, each pair once, in order) and [p] float32 similarity of pairs at or above floor of these rows with any row.

    index holds all of vectors [n, d] (float16, unit length, may be memory-mapped) under their row numbers; rows [m] are the queries.
    Pairs are those that n_probe lists per query show, where k doubles for the rows whose k-th neighbour is still near the floor; their
    similarity is exact (`similarities`), so no pair is wrong, but one whose rows never share lists is missed: `probes` says how
    many. From every row as a query the union has each pair that either of its rows finds. Neither threads nor blocks alter a byte.
    """
    wanted = np.ascontiguousarray(vectors[rows], np.float32)
    left, found = np.arange(len(rows)), [np.zeros((0, 2), np.int64)]
    while len(left):
        if k > _most(index):
            found.append(row_pairs(vectors, rows[left], floor, k)[0])
            break
        similarity, columns = _searched(index, wanted if len(left) == len(wanted) else wanted[left], k, n_probe)
        is_full = similarity[:, -1] >= floor - SLACK
        is_near = (similarity >= floor - SLACK) & ~is_full[:, None]
        found.append(np.stack([np.repeat(rows[left], is_near.sum(axis=1)), columns[is_near]], axis=1))
        left, k = left[is_full], 2 * k
    pairs = unique_pairs(np.concatenate(found), len(vectors))
    exact = similarities(vectors, vectors, pairs)
    is_pair = exact.astype(np.float64) >= floor
    return pairs[is_pair], exact[is_pair]


def unique_pairs(pairs: np.ndarray, n: int) -> np.ndarray:
    """[q, 2] the pairs [p, 2] of n rows with the smaller row first, each once and in order, none of a row with itself."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    return np.stack(np.divmod(np.unique((low * n + high)[low < high]), n), axis=1)


def probes(index: faiss.IndexIVF, vectors: np.ndarray, sample_rows: np.ndarray, floor: float, target: float = 0.995) -> Probes:
    """The fewest lists per query (8, 16, 32, ...) that find at least the target share of the sampled rows' pairs at or above floor.

    index and vectors as in `candidate_pairs`; sample_rows [m] in random order: 2,000 at a time are compared with all rows exactly until
    200 pairs are there or none is left (see n_exact). A pair counts as found when either of its rows finds it, as in a self-join.
    The pairs of one row share its lists, so an interval that takes them as independent is somewhat too narrow.
    """
    exact, n_sampled = np.zeros((0, 2), np.int64), 0
    while n_sampled < len(sample_rows) and len(exact) < FEWEST_PAIRS:
        some = sample_rows[n_sampled:n_sampled + 2000]
        exact, n_sampled = np.concatenate([exact, row_pairs(vectors, some, floor, 16)[0]]), n_sampled + len(some)
    exact = unique_pairs(exact, len(vectors))
    queries, n_lists, n_probe = np.unique(exact), index.nlist, 8
    while True:
        n_probe = min(n_probe, n_lists)
        found = candidate_pairs(index, vectors, queries, floor, 16, n_probe)[0]
        n_found = int(np.isin(exact @ [len(vectors), 1], found @ [len(vectors), 1]).sum())
        if n_found >= target * len(exact) or n_probe == n_lists:
            return Probes(n_probe, n_found, len(exact), n_sampled)
        n_probe *= 2


def _searched(index: faiss.IndexIVF, wanted: np.ndarray, k: int, n_probe: int) -> tuple[np.ndarray, np.ndarray]:
    """[m, k] approximate similarity and [m, k] row, -1 beyond what the lists hold."""
    index.nprobe = n_probe
    if not isinstance(index, faiss.IndexIVF):  # on a GPU; its sums may choose another list now and then
        return index.search(wanted, k)
    index.parallel_mode = 3  # queries over threads: by default that is left to index.search, and lists chosen beforehand are searched by one
    similarity, lists = index.quantizer.search(rounded(wanted), n_probe)
    found, columns = search_preassigned(index, wanted, k, lists, similarity)
    return found, columns


def _most(index: faiss.IndexIVF) -> int:
    return index.ntotal * 2 if isinstance(index, faiss.IndexIVF) else GPU_NEIGHBOURS
