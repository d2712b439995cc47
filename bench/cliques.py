"""Do tiled distances and cliques cost much more than the matrix products they need? 500 pictures of 512 x 512, a minute or two on two cores.

    python -m bench.cliques [--pictures 500] [--side 512] [--pairs 7]

The bare side is numpy's product of each of the 16 tiles with itself, in float64, which distances down to 0 need; the tiles lie there as
float64 already, so that their conversion is on Eidetic's side alone. Both are timed in turns. Then Eidetic's distances are held
against a plain loop and its cliques against networkx, and the cases that are hard for a clique are timed.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import networkx as nx
import numpy as np

from tasks.measures import cliques, distances

EDGE_L2 = 0.1  # generations.edge_l2 of params.yaml


def pictures_of(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """[n, side, side, 3] float32: random pictures, of which 40 are noisy copies of the first and two are the second once more."""
    made = rng.random((n, side, side, 3), dtype=np.float32)
    for i in range(1, 41):
        made[i] = np.clip(made[0] + rng.uniform(-0.1, 0.1, made[0].shape), 0, 1)
    made[-1] = made[-2] = made[41]
    return made


def bare(pictures: np.ndarray) -> float:
    """Seconds of the 16 products alone."""
    seconds = 0.0
    for rows, columns in distances.tile_slices(*pictures.shape[1:3], 4):
        flat = pictures[:, rows, columns].reshape(len(pictures), -1).astype(np.float64)
        seconds += timed(lambda flat=flat: flat @ flat.T)
    return seconds


def audited(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tiled distances [n, n] and the largest clique, as `generations` asks for them."""
    tiled = distances.pairwise_tiled_l2(pictures)
    return tiled, cliques.largest_clique(tiled < EDGE_L2)[0]


def twin(a: np.ndarray, b: np.ndarray) -> float:
    """Tiled l2 of two pictures by a plain loop over the tiles, in float64."""
    squares = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    return max(float(np.sqrt(tile.mean())) for band in np.array_split(squares, 4, axis=0) for tile in np.array_split(band, 4, axis=1))


def apart(pictures: np.ndarray, tiled: np.ndarray, rng: np.random.Generator, n_pairs: int = 300) -> float:
    """Largest difference to the twin over random pairs, all pairs of the first 20 pictures and the exact copies."""
    n = len(pictures)
    pairs = [*map(tuple, rng.integers(0, n, (n_pairs, 2)).tolist()), *((i, j) for i in range(20) for j in range(i)), (n - 1, n - 2), (n - 1, 41)]
    return max(abs(float(tiled[i, j]) - twin(pictures[i], pictures[j])) for i, j in pairs)


def graphs(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """The hard cases: [n, n] bool of edges by name."""
    upper = np.triu(rng.random((n, n)), 1)
    draw = upper + upper.T
    alike = np.ones((n, n), bool)
    blocks = np.equal.outer(np.arange(n) % 3, np.arange(n) % 3)
    return {"all alike": alike, "all alike but 1 % of the pairs": draw >= 0.01, "three groups and 5 % chance edges": blocks | (draw < 0.05),
            "a tenth of the pairs by chance": draw < 0.1, "half of the pairs by chance": draw < 0.5, "nine in ten by chance": draw < 0.9}


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio, the agreement, the memory and the hard cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pictures", 500), ("side", 512), ("pairs", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked, rng = parser.parse_args(), np.random.default_rng(0)
    pictures = pictures_of(rng, asked.pictures, asked.side)
    tiled, members = audited(pictures)
    bare(pictures)
    theirs, ours = [], []
    for pair in range(asked.pairs):
        for is_ours in (pair % 2 == 0, pair % 2 == 1):
            (ours if is_ours else theirs).append(timed(lambda: audited(pictures)) if is_ours else bare(pictures))
    print(f"products {statistics.median(theirs):.2f} s ({min(theirs):.2f} to {max(theirs):.2f}), Eidetic {statistics.median(ours):.2f} s "
          f"({min(ours):.2f} to {max(ours):.2f}); ratio of medians {statistics.median(ours) / statistics.median(theirs):.2f}, {asked.pairs} pairs")
    print("products, s:", *(f"{s:.2f}" for s in theirs), "\nEidetic, s: ", *(f"{s:.2f}" for s in ours))
    print(f"largest difference to a plain loop {apart(pictures, tiled, rng):.1e}; copies at {tiled[-1, -2]:g} and {tiled[-1, 41]:g}; "
          f"clique of {len(members)}, networkx {max(map(len, nx.find_cliques(nx.Graph(np.argwhere(np.triu(tiled < EDGE_L2, 1)).tolist()))))}")
    tracemalloc.start()
    audited(pictures)
    print(f"memory beside the pictures ({pictures.nbytes / 1e9:.2f} GB): {tracemalloc.get_traced_memory()[1] / 1e9:.2f} GB\n")
    print("| pairs that agree | clique | proven | seconds |\n|---|---|---|---|")
    for name, edges in graphs(rng, asked.pictures).items():
        start = time.perf_counter()
        found, is_exact = cliques.largest_clique(edges)
        print(f"| {name} | {len(found)} | {'yes' if is_exact else 'no'} | {time.perf_counter() - start:.2f} |", flush=True)


if __name__ == "__main__":
    main()
