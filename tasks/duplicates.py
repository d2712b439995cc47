"""How many copies of each image the training set holds. One row per training or held-out image.

Exact copies are collapsed first (file digest, then pixels); pairs of the rest are proposed by descriptors and confirmed on
aligned pixels. Beside the table: `pairs`, the scored edges, and `canaries`, known copies searched in the same run.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _embedders, _pictures, _settings, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures import alignment, clusters, distances, neighbours, rates, templates

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "The image"),
        column("split", pa.string(), "member or held_out"),
        column("cluster_id", pa.int64(), "image_id of the centre of its star: the image it is a copy of"),
        column("n_copies", pa.int32(), "Copies in the training set: members among its direct neighbours and itself, with multiplicity"),
        column("cluster_size", pa.int32(), "Images in its star"),
        column("n_neighbours", pa.int32(), "Images confirmed as its copies"),
        column("component_size", pa.int32(), "Images in its connected component; larger than cluster_size where pairs chain"),
        column("min_similarity", pa.float32(), "Smallest descriptor similarity to its centre within its cluster", nullable=True),
        column("nearest_other_l2", pa.float32(), "l2 to the nearest picture of another cluster, seen or unseen; NULL where there is none", nullable=True),
        column("is_chained", pa.bool_(), "Component much larger than the star: its count is doubtful"),
        column("is_leaked", pa.bool_(), "Held-out image that shares cluster or template with a member: no control"),
    ],
)
PAIRS = schema(
    ["image_id_a", "image_id_b", "method"],
    [
        column("image_id_a", pa.int64(), "One image of the pair, the smaller id"),
        column("image_id_b", pa.int64(), "The other"),
        column("method", pa.string(), "What joined them: file, pixels or descriptor"),
        column("similarity", pa.float32(), "Cosine of their descriptors; 1 for file and pixels"),
        column("l2", pa.float32(), "l2 of their pixels after alignment; 0 for file and pixels"),
        column("is_copy", pa.bool_(), "Whether the pair counts as copies"),
    ],
)
CANARIES = schema(
    ["transform"],
    [
        column("transform", pa.string(), "How known copies of random training images were altered"),
        column("n_planted", pa.int32(), "Copies searched"),
        column("n_found", pa.int32(), "Copies confirmed as copies of their source"),
        column("recall", pa.float32(), "n_found / n_planted"),
        column("recall_low", pa.float32(), "Lower end of its 95 % Clopper-Pearson interval"),
        column("recall_high", pa.float32(), "Upper end of its 95 % Clopper-Pearson interval"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "cluster_size", "min_value": 1}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b",
     "kwargs": {"column_A": "component_size", "column_B": "cluster_size", "or_equal": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "min_similarity", "min_value": -1, "max_value": 1.01}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "nearest_other_l2", "min_value": 0, "max_value": 1}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "is_chained", "max_value": 0.1}},
]
PAIR_CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "image_id_b", "column_B": "image_id_a"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "similarity", "min_value": -1, "max_value": 1.01}},
]
CANARY_CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "recall", "min_value": 0.5, "max_value": 1}},  # below: not to be trusted
]
CHAINED = 5  # a component this many times its star
ALIGNABLE_L2 = 0.25  # no crop of 6 % moves a picture of the example further than 0.2
TRANSFORMS = ("reencoded", "half_size", "cropped_4pct", "brighter_10pct")


def representatives(images: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """[n] row of the first image with the same pixels, and [n] whether the very file (not only its pixels) is that row's."""
    first: dict[str, int] = {}
    rows = np.array([first.setdefault(d, i) for i, d in enumerate(images.column("pixel_digest").to_pylist())], np.int64)
    files = np.array(images.column("sha256").to_pylist())
    return rows, files == files[rows]


def copies(pictures: np.ndarray, pairs: np.ndarray, max_l2: float) -> np.ndarray:
    """[p] l2 of each pair after alignment; of pairs far apart in plain pixels the plain l2, they are not aligned at all.

    pictures [n, h, w, 3] float32 in [0, 1]; pairs [p, 2] rows.
    """
    l2 = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 4096):
        a, b = pairs[start:start + 4096].T
        l2[start:start + 4096] = np.sqrt(np.square(pictures[a] - pictures[b]).mean(axis=(1, 2, 3)))
    near = l2 <= ALIGNABLE_L2
    l2[near] = alignment.aligned_l2(pictures, pairs[near], max_l2)
    return l2


def nearest_other(pictures: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """[n] l2 of each picture to the nearest centre of another cluster (nan where there is none); cluster [n] = row of the centre."""
    centres = np.unique(cluster)
    flat = pictures.reshape(len(pictures), -1)
    out = np.full(len(pictures), np.nan, np.float32)
    for start in range(0, len(pictures), 1024):
        l2 = distances.pairwise_l2(flat[start:start + 1024], flat[centres])
        l2[cluster[start:start + 1024, None] == centres[None, :]] = np.inf
        best = l2.min(axis=1)
        out[start:start + 1024] = np.where(np.isinf(best), np.nan, best)
    return out


def shares_template(pictures: np.ndarray, pairs: np.ndarray, edge_l2: float) -> np.ndarray:
    """[p] whether at least half of the tiles agree and are not flat: the same layout with another print."""
    out = np.zeros(len(pairs), bool)
    for i, pair in enumerate(pairs):
        tiles = distances.pairwise_tiles(pictures[pair])
        out[i] = templates.template_edges(tiles, templates.tile_std(pictures[pair]), edge_l2)[0, 1]
    return out


def duplicates(images: pa.Table, vectors: np.ndarray, pictures: np.ndarray, settings: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    """The table and its pairs, of good images in order of image_id with their descriptors and pictures at confirm_px."""
    first, is_file = representatives(images)
    unique = np.unique(first)
    proposed, similarity = neighbours.similar_pairs(vectors[unique], settings["min_similarity"], settings["n_neighbours"])
    proposed = unique[proposed]
    l2 = copies(pictures, proposed, settings["max_l2"])
    is_copy = l2 <= settings["max_l2"]
    edges = proposed[is_copy]
    is_member = np.array(images.column("split").to_pylist()) == "member"
    exact = np.stack([first, np.arange(len(first))], axis=1)[first != np.arange(len(first))]
    ids = images.column("image_id").to_numpy()
    table = _counted(images, first, edges, is_member, vectors)
    leaked = _leaked(proposed, is_copy | shares_template(pictures, proposed, settings["template_l2"]), exact, is_member)
    centre = np.searchsorted(ids, table["cluster_id"])
    made = _tables.table({**table, "nearest_other_l2": nearest_other(pictures, centre), "is_leaked": leaked}, SCHEMA)
    methods = ["descriptor"] * len(proposed) + ["file" if is_file[b] else "pixels" for b in exact[:, 1]]
    measures = (np.concatenate([similarity, np.ones(len(exact))]), np.concatenate([l2, np.zeros(len(exact))]))
    return made, _pairs(ids[np.concatenate([proposed, exact])], methods, *measures, settings["max_l2"])


def _counted(images: pa.Table, first: np.ndarray, edges: np.ndarray, is_member: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
    n, ids = len(first), images.column("image_id").to_numpy()
    weight = np.bincount(first, minlength=n)
    members = np.bincount(first, weights=is_member, minlength=n).astype(np.int64)
    degree = clusters.n_copies(n, edges, weight)
    order = np.lexsort((ids, -degree))
    centre = clusters.star_centres(n, edges, order[first[order] == order])[first]
    component = clusters.components(n, edges)[first]
    similarity = np.einsum("nd,nd->n", vectors[first], vectors[centre])
    smallest = np.full(n, np.inf)
    np.minimum.at(smallest, centre, similarity)
    size, whole = clusters.sizes(centre, np.ones(n)), clusters.sizes(component, np.ones(n))
    return {"image_id": ids, "split": images.column("split"), "cluster_id": ids[centre], "n_copies": clusters.n_copies(n, edges, members)[first],
            "cluster_size": size, "n_neighbours": degree[first] - 1, "component_size": whole, "min_similarity": np.round(smallest[centre], 4),
            "is_chained": whole > CHAINED * size}


def _leaked(proposed: np.ndarray, is_linked: np.ndarray, exact: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """[n] held-out images linked to a member, directly or over an identical picture."""
    links = np.concatenate([proposed[is_linked], exact])
    touched = is_member.copy()
    for _ in range(2):  # a link between two representatives, then one to those with the same pixels
        np.logical_or.at(touched, links[:, 0], is_member[links[:, 1]] | (touched[links[:, 1]] & np.isin(links[:, 1], exact)))
        np.logical_or.at(touched, links[:, 1], is_member[links[:, 0]] | (touched[links[:, 0]] & np.isin(links[:, 0], exact)))
    return touched & ~is_member


def _pairs(ids: np.ndarray, methods: list[str], similarity: np.ndarray, l2: np.ndarray, max_l2: float) -> pa.Table:
    """The edges [p, 2] of image_ids with what joined them."""
    return _tables.table({"image_id_a": ids.min(axis=1), "image_id_b": ids.max(axis=1), "method": methods, "similarity": np.round(similarity, 4), "l2": l2,
                          "is_copy": l2 <= max_l2}, PAIRS)


def canaries(vectors: np.ndarray, pictures: np.ndarray, first: np.ndarray, sources: np.ndarray,
             altered: dict[str, tuple[np.ndarray, np.ndarray]], settings: dict[str, Any]) -> pa.Table:
    """Recall of known copies by transform: altered maps each to (descriptors [c, d], pictures [c, h, w, 3]) of copies of the sources.

    A canary is found when the search proposes its source (or a picture with the same pixels) and the pixels confirm it.
    """
    rows = []
    for transform, (queries, shown) in altered.items():
        similarity, columns = neighbours.nearest(vectors, queries, settings["n_neighbours"])
        proposed = ((first[columns] == first[sources][:, None]) & (similarity >= settings["min_similarity"])).any(axis=1)
        both = np.concatenate([pictures[sources], shown])
        l2 = copies(both, np.stack([np.arange(len(sources)), len(sources) + np.arange(len(sources))], axis=1), settings["max_l2"])
        n_found = int((proposed & (l2 <= settings["max_l2"])).sum())
        low, high = rates.clopper_pearson(n_found, len(sources))
        rows.append({"transform": transform, "n_planted": len(sources), "n_found": n_found, "recall": n_found / max(len(sources), 1),
                     "recall_low": low, "recall_high": high})
    return _tables.table(rows, CANARIES)


def main() -> None:
    """Count, search the canaries in the same way, write data/duplicates."""
    settings = _settings.settings("duplicates")
    embedding = _settings.settings("image_embeddings")
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    metadata, vectors = _tables.descriptors("image_embeddings")
    images = _tables.read("images").filter(pc.field("status") == "ok")
    reader = _pictures.Reader()
    rows = images.to_pylist()
    pictures = reader.reduced(rows, settings["confirm_px"])
    made, pairs = duplicates(images, vectors, pictures, settings)
    rng = np.random.default_rng(settings["seed"])
    sources = _canary_sources(rows, settings["n_canaries"], rng)
    model = _embedders.embedder(embedding["descriptor"], embedding["path"], _settings.settings("compute")["device"])
    altered = {}
    for transform in TRANSFORMS:
        shown = [_pictures.altered(reader.pixels(rows[i]), transform, rng) for i in sources]
        small = np.stack([_pictures.resized(p, settings["confirm_px"]) for p in shown]) / np.float32(255)
        altered[transform] = (model.descriptors(shown, size_px), small)
    found = canaries(vectors, pictures, representatives(images)[0], sources, altered, settings)
    _report(made, found)
    _tables.write(pairs, PAIR_CHECKS, "duplicates", side="pairs")
    _tables.write(found, CANARY_CHECKS, "duplicates", side="canaries")
    _tables.write(made, CHECKS, "duplicates")


def _canary_sources(rows: list[dict[str, Any]], n: int, rng: np.random.Generator) -> np.ndarray:
    members = [i for i, row in enumerate(rows) if row["split"] == "member" and not row["is_degenerate"]]
    return np.sort(rng.choice(members, min(n, len(members)), replace=False))


def _report(made: pa.Table, found: pa.Table) -> None:
    n_copied = pc.sum(pc.greater(made.column("n_copies"), 1)).as_py()
    recall = ", ".join(f"{r['transform']} {r['recall']:.0%}" for r in found.to_pylist())
    print(f"duplicates: {made.num_rows} images in {len(set(made.column('cluster_id').to_pylist()))} clusters, {n_copied} with copies; "
          f"canaries found: {recall}")


if __name__ == "__main__":
    _stage.run(main)
