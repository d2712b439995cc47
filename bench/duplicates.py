"""Near-duplicates at scale: time, memory and what is found, against a planted truth, exact search and bare faiss.

    python -m bench.duplicates descriptors [--runs 10000:exact 100000:exact 100000:ivf 1000000:ivf] [--width 512] [--closest 0.34]
    python -m bench.duplicates simulation [--scale 1] [--seeds 0 1]
    python -m bench.duplicates emoji [--seeds 0 1 2]
    python -m bench.duplicates pictures [--sizes 2000 10000] [--peers imagededup=PYTHON pdq=PYTHON cleanvision=PYTHON immaculate=PYTHON]

`descriptors` searches planted descriptors (tests/descriptor_worlds.py), each size in a process of its own, and draws bench/duplicates.svg.
Ours is the whole search: candidates, more neighbours where 32 were not enough, exact cosines; bare faiss is index.search(queries, 32) on
the same index with the same number of lists, block by block in turns. Recall is judged on rows that had no part in choosing the lists.
`simulation` chooses the threshold of star clusters on each seed and judges it on the others.
`emoji` counts planted copies among emoji, which all look alike to a descriptor, beside the descriptor alone at the cut that is best in hindsight.
`pictures` counts planted copies of pictures by Eidetic's stages, and by other tools, each by an interpreter that has it (bench/_peers.py).
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench import _copies, _descriptors, _scaling
from tasks.measures import clusters, neighbours
from tests import descriptor_worlds, pair_quality

GRID = np.round(np.arange(0.92, 0.9701, 0.0025), 4).tolist()


def total(found: dict[str, Any]) -> float:
    """Seconds of all steps."""
    return float(sum(found["seconds"].values()))


def slope(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The power of n by which the seconds grow from one size to another."""
    return math.log(total(other) / total(one)) / math.log(other["n"] / one["n"])


def report(every: list[dict[str, Any]]) -> str:
    """Three tables and the slopes."""
    rows = ["| rows | index | lists per query | train, s | add, s | choose, s | search, score, s | all, s | peak GB | ours / bare: clock, processor |",
            "|---|" + "---|" * 9]
    for f in every:
        steps = [f"{f['seconds'].get(step, 0):.1f}" for step in ("train", "add", "probes", "search")]
        last = [f"{total(f):.0f}", f"{f['peak_gb']:.2f}", f"{f['ratio'][0]:.2f}, {f['ratio'][1]:.2f} |"]
        rows.append(" | ".join([f"| {f['n']:,}", f["key"], str(f["n_probe"] or "–"), *steps, *last]))
    rows += ["", "| rows | index | pairs | of exact search's pairs, found (95 %) | of the planted, found | of the found, planted | code error, at most |",
             "|---|" + "---|" * 6]
    for f in every:
        recall, low, high = f["exact_recall"]
        exact = f"{f['exact'][0]:,} of {f['exact'][1]:,}: {recall:.2%} ({low:.2%} to {high:.2%})"
        rows.append(f"| {f['n']:,} | {f['key']} | {f['n_pairs']:,} | {exact} | {f['planted_recall']:.2%} | {f['planted_precision']:.2%} | {f['error']:.4f} |")
    rows += ["", "| rows | index | " + " | ".join(f"{low} to {low + 0.1:.1f}" for low in _descriptors.BANDS) + " |", "|---|" + "---|" * 6]
    rows += [f"| {f['n']:,} | {f['key']} | " + " | ".join(f"{hit:,} of {n:,}" for hit, n in f["bands"]) + " |" for f in every]
    for kind in ("exact", "ivf"):
        mine = [f for f in every if f["kind"] == kind]
        rows += [f"\n{kind}: seconds grow with n^{slope(a, b):.2f} from {a['n']:,} to {b['n']:,}" for a, b in zip(mine, mine[1:], strict=False)]
    return "\n".join(rows)


def descriptors(asked: argparse.Namespace) -> None:
    """Measure each run, print the tables, draw the plot."""
    print(f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} threads, {asked.width} dimensions, floor {_descriptors.FLOOR}\n", flush=True)
    every = []
    for run in asked.runs:
        n, kind = run.split(":")
        every.append(_descriptors.measured(int(n), kind, asked.width, asked.closest))
        print(f"<!-- {every[-1]} -->", flush=True)
    print(report(every))
    ways = {kind: [f for f in every if f["kind"] == kind] for kind in ("exact", "ivf") if any(f["kind"] == kind for f in every)}
    panels = {"seconds": {kind: [(f["n"], total(f)) for f in found] for kind, found in ways.items()},
              "peak memory, GB": {kind: [(f["n"], f["peak_gb"]) for f in found] for kind, found in ways.items()}}
    Path(__file__).with_name("duplicates.svg").write_text(_scaling.svg(panels))


def simulation(asked: argparse.Namespace) -> None:
    """Print precision and recall of clusters at the threshold of each other seed: plain stars, stars of shared neighbours, components."""
    worlds = []
    for seed in asked.seeds:
        group, start = (world := descriptor_worlds.chains_and_templates(asked.scale, seed)).group, time.perf_counter()
        worlds.append((seed, group, *neighbours.similar_pairs(world.vectors, GRID[0], 64)))
        print(f"<!-- seed {seed}: {len(group):,} rows, {len(worlds[-1][2]):,} pairs from {GRID[0]} in {time.perf_counter() - start:.0f} s -->", flush=True)
    print("| | chosen on seed | threshold | judged on seed | pair precision | pair recall |\n|---|---|---|---|---|---|")
    for chosen_on, group, pairs, similarity in worlds:
        threshold = pair_quality.best_threshold(group, pairs, similarity, GRID, 0.97).threshold
        for judged_on, there, *found in worlds:
            near = found[0][found[1] >= threshold]
            plain = clusters.star_centres(len(there), near, np.argsort(-np.bincount(near.ravel(), minlength=len(there)), kind="stable"))
            ways = {"stars less links of chains": pair_quality.stars(len(there), *found, threshold), "stars": plain,
                    "components": clusters.components(len(there), near)}
            for name, cluster in ways.items() if judged_on != chosen_on else ():
                q = pair_quality.quality(cluster, there, threshold)
                print(f"| {name} | {chosen_on} | {threshold} | {judged_on} | {q.precision:.3f} | {q.recall:.3f} |", flush=True)


def pictures(asked: argparse.Namespace) -> None:
    """Print the table of every size."""
    table = []
    for n in asked.sizes:
        table += _copies.measured(n, dict(peer.split("=", 1) for peer in asked.peers))
        print(f"<!-- {table[-1 - len(asked.peers):]} -->", flush=True)
    print(_copies.report(table))


def emoji(asked: argparse.Namespace) -> None:
    """Print the table of every seed."""
    table = [row for seed in asked.seeds for row in _copies.of_emoji(seed)]
    print(_copies.report(table))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("descriptors")
    one.add_argument("--runs", nargs="+", default=["10000:exact", "100000:exact", "100000:ivf", "1000000:ivf"])
    one.add_argument("--width", type=int, default=512)
    one.add_argument("--closest", type=float, default=0.34, help="mean cosine of strangers in the closest topic; 0.42: 5 an image reach the floor")
    one.set_defaults(part=descriptors)
    other = parts.add_parser("simulation")
    other.add_argument("--scale", type=float, default=1)
    other.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    other.set_defaults(part=simulation)
    last = parts.add_parser("pictures")
    last.add_argument("--sizes", type=int, nargs="+", default=[2000, 10_000])
    last.add_argument("--peers", nargs="*", default=[])
    last.set_defaults(part=pictures)
    flat = parts.add_parser("emoji")
    flat.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flat.set_defaults(part=emoji)
    asked = parser.parse_args()
    asked.part(asked)


if __name__ == "__main__":
    main()
