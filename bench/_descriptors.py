"""The search for near pairs of descriptors, measured at one size in a process of its own: seconds by step, memory, what is found."""

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from tasks.measures import indexes, neighbours, rates
from tests import descriptor_worlds

FLOOR, K, MEMORY, N_JUDGES = 0.5, 32, 12 * 2**30, 2000
BANDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def measured(n: int, kind: str, width: int, closest: float) -> dict[str, Any]:
    """All that is measured of n descriptors searched as `kind` ("exact", "ivf"), in a new process on files that another one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        for step in ("write", "search"):
            code = f"from bench import _descriptors; _descriptors.{step}({folder!r}, {n}, {kind!r}, {width}, {closest})"
            done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
        made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return made


def write(folder: str, n: int, kind: str, width: int, closest: float) -> None:
    """The planted world as two files."""
    vectors = np.lib.format.open_memmap(f"{folder}/vectors.npy", mode="w+", dtype=np.float16, shape=(n, width))
    np.save(f"{folder}/group.npy", descriptor_worlds.clustered(n, 0, width, vectors, closest).group)


def search(folder: str, n: int, kind: str, width: int, closest: float) -> None:
    """Search and print what was measured as JSON; what only the bench needs comes after the peak of memory is taken."""
    vectors, group = np.load(f"{folder}/vectors.npy", mmap_mode="r"), np.load(f"{folder}/group.npy")
    found = _exact(vectors) if kind == "exact" else _by_lists(vectors, Path(folder))
    pairs, similarity = found.pop("pairs"), found.pop("similarity")
    found |= _judged(vectors, group, pairs)
    print(json.dumps({"n": n, "kind": kind, "n_pairs": len(pairs), "least": float(similarity.min(initial=1)), **found}))


def _exact(vectors: np.ndarray) -> dict[str, Any]:
    start = _clocks()
    pairs, similarity = neighbours.similar_pairs(vectors, FLOOR, K)
    ours = _clocks() - start
    memory = _peak_gb()
    plain = np.asarray(vectors, np.float32)
    start = _clocks()
    index = faiss.IndexFlatIP(plain.shape[1])
    index.add(plain)
    index.search(plain, K)
    bare = _clocks() - start
    return {"pairs": pairs, "similarity": similarity, "seconds": {"search": ours[0]}, "ratio": (ours / bare).tolist(), "peak_gb": memory,
            "n_probe": None, "key": "Flat", "error": 0.0}


def _by_lists(vectors: np.ndarray, folder: Path) -> dict[str, Any]:
    n, seconds, last = len(vectors), {}, time.perf_counter()

    def lap(step: str) -> None:
        nonlocal last
        seconds[step], last = round(time.perf_counter() - last, 2), time.perf_counter()

    plan = indexes.index_plan(n, vectors.shape[1], MEMORY)
    if plan.kind == "exact":  # to see the slope below the size where lists begin to pay
        n_lists = 2 ** round(math.log2(4 * math.sqrt(n)))
        plan = indexes.Plan("ivf", f"IVF{n_lists},SQ8", n_lists, min(n, indexes.TRAINED_PER_LIST * n_lists), 0)
    index = indexes.trained_index(plan, vectors, 0)
    lap("train")
    indexes.add_rows(index, vectors, 0, n)
    lap("add")
    chosen = indexes.probes(index, vectors, np.random.default_rng(1).permutation(n)[:20_000], FLOOR)
    lap("probes")
    blocks, sides = [], np.zeros((2, 2))
    for number, start in enumerate(range(0, n, indexes.BLOCK)):
        made, both = _side_by_side(index, vectors, np.arange(start, min(start + indexes.BLOCK, n)), chosen.n_probe, number % 2 == 0)
        blocks.append(made)
        sides += both
    start = _clocks()
    pairs, first = np.unique(np.concatenate([pairs @ [n, 1] for pairs, _ in blocks]), return_index=True)
    sides[0] += _clocks() - start
    seconds["search"] = round(sides[0, 0], 2)
    memory = _peak_gb()
    some = np.asarray(vectors[:20_000], np.float32)
    error = float(np.linalg.norm(index.sa_decode(index.sa_encode(some)) - some, axis=1).max())
    return {"pairs": np.stack(np.divmod(pairs, n), axis=1), "similarity": np.concatenate([similarity for _, similarity in blocks])[first],
            "seconds": seconds, "ratio": (sides[0] / sides[1]).tolist(), "peak_gb": memory, "n_probe": chosen.n_probe,
            "key": plan.key, "error": error, "probes": [chosen.n_found, chosen.n_exact, chosen.n_sampled]}


def _side_by_side(index: faiss.IndexIVF, vectors: np.ndarray, rows: np.ndarray, n_probe: int, is_first: bool) -> tuple[Any, np.ndarray]:
    """Pairs of a block, and the clocks of ours and of bare faiss [2, 2] on the same queries, each first in every second block."""
    queries, clocks, made = np.asarray(vectors[rows], np.float32), np.zeros((2, 2)), None
    index.nprobe = n_probe
    for side in (0, 1) if is_first else (1, 0):
        start = _clocks()
        if side:
            index.parallel_mode = 0  # as faiss comes
            index.search(queries, K)
        else:
            made = indexes.candidate_pairs(index, vectors, rows, FLOOR, K, n_probe)
        clocks[side] = _clocks() - start
    return made, clocks


def _judged(vectors: np.ndarray, group: np.ndarray, pairs: np.ndarray) -> dict[str, Any]:
    """Against what was planted, and against the exact search of rows that had no part in choosing the probes."""
    n, keys = len(vectors), pairs @ [len(vectors), 1]
    planted = descriptor_worlds.planted_pairs(group)
    right = np.isin(planted @ [n, 1], keys, assume_unique=True)
    exact = indexes.unique_pairs(neighbours.row_pairs(vectors, np.random.default_rng(2).permutation(n)[:N_JUDGES], FLOOR, K)[0], n)
    hit = np.isin(exact @ [n, 1], keys)
    cosine = neighbours.similarities(vectors, vectors, exact)
    bands = [(int(hit[of].sum()), int(of.sum())) for of in ((cosine >= low) & (cosine < low + 0.1) for low in BANDS)]
    low, high = rates.clopper_pearson(int(hit.sum()), len(hit))
    return {"n_planted": len(planted), "planted_precision": float(right.sum() / max(len(pairs), 1)), "planted_recall": float(right.mean()),
            "exact": [int(hit.sum()), len(hit)], "exact_recall": [float(hit.mean()), low, high], "bands": bands}


def _clocks() -> np.ndarray:
    """Seconds of the wall clock and of the processors: on a machine that others use, only the second compares."""
    return np.array([time.perf_counter(), time.process_time()])


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
