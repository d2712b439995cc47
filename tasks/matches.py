"""What each generation looks like among all pictures, seen and unseen. One row per generation, split and rank.

Descriptors propose, pixels decide: candidates are the nearest by descriptor, the nearest by pixels and the prompt's own cluster,
whatever the index said. Members and held-out images are searched alike. Where the training set has no pictures there is no row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _library, _pictures, _settings, _shards, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures import distances, neighbours

SCHEMA = schema(
    ["generation_id", "split", "rank"],
    [
        column("generation_id", pa.int64(), "The generation"),
        column("release", pa.string(), "Release under audit"),
        column("prompt_id", pa.int64(), "Its prompt"),
        column("split", pa.string(), "member or held_out: both are searched alike"),
        column("rank", pa.int32(), "0 is the nearest in pixels among the candidates of its split"),
        column("image_id", pa.int64(), "The image"),
        column("cluster_id", pa.int64(), "Its cluster"),
        column("similarity", pa.float32(), "Cosine of copy-detection descriptors, higher is closer"),
        column("l2", pa.float32(), "Root mean square pixel difference at the audit's resolution"),
        column("tiled_l2", pa.float32(), "Largest l2 over 4 x 4 tiles"),
        column("adaptive_l2", pa.float32(), "l2 over half the mean l2 to the 50 nearest training clusters; published, not the judge; NULL without one",
               nullable=True),
        column("margin", pa.float32(), "l2 to the image's cluster over l2 to the nearest other picture; NULL without another picture", nullable=True),
        column("is_own_cluster", pa.bool_(), "Whether it is the image whose caption was the prompt, or a copy of it"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "split", "value_set": ["member", "held_out"]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "l2", "min_value": 0, "max_value": 1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "similarity", "min_value": -1.01, "max_value": 1.01}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "tiled_l2", "column_B": "l2", "or_equal": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "margin", "min_value": 0}},
]
BLOCK = 256  # generations compared with the library at once
ROWS = 1 << 16  # descriptors of the library searched at once: a split of it is copied for that


@dataclass(frozen=True)
class Library:
    """All pictures that can be compared, row-aligned: what generations are compared with."""

    image_id: np.ndarray  # [n] int64
    cluster: np.ndarray  # [n] row of `clusters`
    clusters: np.ndarray  # [c] cluster_id
    is_member: np.ndarray  # [n] bool
    is_blank: np.ndarray  # [n] bool: nothing is a copy of such a picture, but it is another picture for the margin of the rest
    vectors: np.ndarray  # [n, d] float32 of unit length
    pictures: _library.Pictures

    @property
    def has_member(self) -> np.ndarray:
        """[c] whether the cluster holds a training image."""
        out = np.zeros(len(self.clusters), bool)
        out[self.cluster[self.is_member]] = True
        return out


def by_cluster(l2: np.ndarray, cluster: np.ndarray, n_clusters: int) -> np.ndarray:
    """[g, c] l2 of each generation to the nearest picture of each cluster, of l2 [g, n] to all pictures."""
    out = np.full((n_clusters, len(l2)), np.inf, np.float32)
    np.minimum.at(out, cluster, l2.T)
    return out.T


def margins(nearest: np.ndarray) -> np.ndarray:
    """[g, c] margin of each generation to each cluster, of [g, c] l2 to the nearest picture of each; nan with one cluster only."""
    if nearest.shape[1] < 2:
        return np.full(nearest.shape, np.nan)
    two = np.partition(nearest, 1, axis=1)[:, :2]
    other = np.where(nearest == two[:, :1], two[:, 1:2], two[:, :1])
    return distances.margin(nearest, other)


def similar_rows(library: Library, vectors: np.ndarray, k: int) -> np.ndarray:
    """[g, <= 2k] rows of the library: the k nearest by descriptor to each of the vectors [g, d] in either split.

    Each split is searched by itself: among all pictures at once the smaller one is crowded out. Of rows with the same descriptor the
    first stands for all: which of them a search returns hangs on its threads.
    """
    of_split = [np.flatnonzero(library.is_member & ~library.is_blank), np.flatnonzero(~library.is_member & ~library.is_blank)]
    return np.concatenate([_similar(library, vectors, k, rows) for rows in of_split], axis=1)


def _first_alike(vectors: np.ndarray) -> np.ndarray:
    """[n] first row with the same descriptor."""
    _, first, group = np.unique(np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.itemsize * vectors.shape[1]))).ravel(),
                                return_index=True, return_inverse=True)
    return np.asarray(first[group])


def _similar(library: Library, vectors: np.ndarray, k: int, rows: np.ndarray) -> np.ndarray:
    """[g, <= k] of the rows given, best first."""
    best, similarity = np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0), np.float32)
    for start in range(0, len(rows), ROWS):
        some = rows[start:start + ROWS]
        found, columns = neighbours.nearest(library.vectors[some], vectors, k)
        columns = _first_alike(library.vectors[some])[columns]
        best, similarity = np.concatenate([best, some[columns]], axis=1), np.concatenate([similarity, found], axis=1)
        if best.shape[1] > k:
            order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
            best, similarity = np.take_along_axis(best, order, axis=1), np.take_along_axis(similarity, order, axis=1)
    return best


def candidates(l2: np.ndarray, similar: np.ndarray, own: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Rows [<= 2k + 1] to report of one generation and split, nearest in pixels first: by descriptor, as many by pixels, and the own cluster."""
    rows, proposed = np.flatnonzero(allowed), similar[allowed[similar]]
    chosen = set(proposed.tolist()) | set(rows[np.argsort(l2[rows], kind="stable")[: len(proposed)]].tolist())
    mine = own[allowed[own]]
    if len(mine):
        chosen.add(int(mine[np.argmin(l2[mine])]))
    ordered = np.array(sorted(chosen), np.int64)
    return ordered[np.argsort(l2[ordered], kind="stable")]


def matches(generations: list[dict[str, Any]], vectors: np.ndarray, pictures: np.ndarray, similar: np.ndarray, own: dict[int, int],
            library: Library) -> list[dict[str, Any]]:
    """Rows of the table for a block of generations with their descriptors [g, d] and pictures [g, s, s, 3].

    similar [g, <= 2k] = rows of the library that are nearest by descriptor in each split; own maps prompts to cluster_id.
    """
    l2 = library.pictures.l2(pictures)
    nearest = by_cluster(l2, library.cluster, len(library.clusters))
    margin = margins(nearest)
    trained = library.has_member
    rows = []
    for g, generation in enumerate(generations):
        own_cluster = own.get(generation["prompt_id"])
        mine = np.flatnonzero(library.clusters[library.cluster] == own_cluster) if own_cluster is not None else np.zeros(0, np.int64)
        for split, allowed in (("member", library.is_member), ("held_out", ~library.is_member)):
            for rank, row in enumerate(candidates(l2[g], similar[g], mine, allowed & ~library.is_blank).tolist()):
                c = library.cluster[row]
                adaptive = distances.adaptive_l2(float(l2[g, row]), nearest[g, trained]) if trained.any() else None
                rows.append({
                    "generation_id": generation["generation_id"], "release": generation["release"], "prompt_id": generation["prompt_id"],
                    "split": split, "rank": rank, "image_id": library.image_id[row], "cluster_id": library.clusters[c],
                    "similarity": round(float(vectors[g] @ library.vectors[row]), 4), "l2": l2[g, row],
                    "tiled_l2": max(float(l2[g, row]), distances.tiled_l2(pictures[g], library.pictures[row])), "adaptive_l2": adaptive,
                    "margin": margin[g, c], "is_own_cluster": bool(library.clusters[c] == own_cluster)})
    return rows


def main(release: str) -> None:
    """Compare every good generation with every picture; write data/matches/<release>."""
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    metadata, vectors = _tables.descriptors("generation_embeddings", release)
    kept = _tables.read("generations", release).filter(pc.field("status") != "not_kept")
    generations = kept.to_pylist()  # row by row with the descriptors, both in order of generation_id
    own = {r["prompt_id"]: r["cluster_id"] for r in _tables.read("prompts").to_pylist() if r["cluster_id"] is not None}
    library = _compared(size_px)
    reader, k = _pictures.GenerationReader(release), _settings.settings("matches")["k"]
    good = [i for i, row in enumerate(generations) if row["status"] == "ok" and len(library.image_id)]
    similar = similar_rows(library, vectors[good], k)
    rows: list[dict[str, Any]] = []
    starts = range(0, len(good), BLOCK)
    for start in _shards.progress(starts, len(starts), f"matches: '{release}', blocks of {BLOCK} generations"):
        block = good[start:start + BLOCK]
        of_block = [generations[i] for i in block]
        rows += matches(of_block, vectors[block], reader.reduced(of_block, size_px), similar[start:start + BLOCK], own, library)
    _tables.write(_tables.table(rows or {name: [] for name in SCHEMA.names}, SCHEMA), CHECKS, "matches", release)


def _compared(size_px: int) -> Library:
    """The library, of rows that `images`, `duplicates` and the descriptors have in one order."""
    images = _tables.read("images").filter(pc.field("status") == "ok")
    shown = _library.comparable(images)
    vectors = _tables.descriptors("image_embeddings")[1] if shown.any() else np.zeros((len(shown), 0), np.float32)
    clusters, cluster = np.unique(_tables.read("duplicates")["cluster_id"].to_numpy()[shown], return_inverse=True)
    images = images.filter(pa.array(shown)).drop_columns(["caption", "url"])
    return Library(images["image_id"].to_numpy(), cluster, clusters, np.array(images["split"].to_pylist()) == "member",
                   images["is_degenerate"].to_numpy(zero_copy_only=False), vectors if shown.all() else vectors[shown],
                   _library.pictures(images.to_pylist(), size_px))


if __name__ == "__main__":
    _stage.run(main)
