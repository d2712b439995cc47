"""How many copies of each image the training set holds. One row per training or held-out image.

In this order, each step on the representatives of the one before: the same file, the same pixels, PDQ hashes, descriptors. The last
two propose, aligned pixels confirm, at a threshold that canaries set for this very training set. Beside the table: `pairs`, the scored
edges, `canaries`, known copies searched in the same run, and `thresholds`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _canaries, _embedders, _search, _settings, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures import clusters, density, hashes, neighbours

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "The image"),
        column("split", pa.string(), "member or held_out"),
        column("cluster_id", pa.int64(), "image_id of the centre of its star: the image it is a copy of"),
        column("representative_id", pa.int64(), "Image that stands for it in the search by descriptors: the same file, pixels or PDQ hash"),
        column("n_copies", pa.int32(), "Copies in the training set: members among its direct neighbours and itself, with multiplicity"),
        column("cluster_size", pa.int32(), "Images in its star"),
        column("n_neighbours", pa.int32(), "Images confirmed as its copies"),
        column("component_size", pa.int32(), "Images in its connected component; larger than cluster_size where pairs chain"),
        column("min_similarity", pa.float32(), "Smallest descriptor similarity to its centre within its cluster; NULL without descriptors", nullable=True),
        column("nearest_other_l2", pa.float32(), "l2 to the nearest picture of another cluster, seen or unseen; NULL where there is none", nullable=True),
        column("is_chained", pa.bool_(), "Component much larger than the star: its count is doubtful"),
        column("is_leaked", pa.bool_(), "Held-out image that shares cluster or template with a member: no control"),
        column("template_id", pa.int64(), "cluster_id of the centre of its template family: the same layout, another print; its own where it has none"),
        column("template_size", pa.int32(), "Clusters in its template family, 1 where it has none"),
    ],
)
PAIRS = schema(
    ["image_id_a", "image_id_b", "method"],
    [
        column("image_id_a", pa.int64(), "One image of the pair, the smaller id"),
        column("image_id_b", pa.int64(), "The other"),
        column("method", pa.string(), "What joined or proposed them: file, pixels, pdq or descriptor"),
        column("similarity", pa.float32(), "Cosine of their descriptors; 1 for file and pixels"),
        column("l2", pa.float32(), "l2 of their pixels after alignment, 0 for file and pixels; NULL without pictures", nullable=True),
        column("tile_difference", pa.float32(), "Largest mean difference of an aligned tile of 8 x 8, or half that in lightness of a quarter of it; "
               "NULL without pictures", nullable=True),
        column("is_copy", pa.bool_(), "Whether the pair counts as copies"),
        column("is_template", pa.bool_(), "Whether the pair is no copy but shares its layout: another print"),
    ],
)
CANARIES = schema(
    ["transform"],
    [
        column("transform", pa.string(), "How known copies of random training images were altered; exact_search: pairs that it finds, and an index"),
        column("is_promised", pa.bool_(), "Altered as far as a copy may be: found, and setting the thresholds; the others are reported only"),
        column("n_planted", pa.int32(), "Copies searched"),
        column("n_proposed", pa.int32(), "Copies whose source hash or descriptor proposes"),
        column("n_found", pa.int32(), "Copies confirmed as copies of their source"),
        column("recall", pa.float32(), "n_found / n_planted"),
        column("recall_low", pa.float32(), "Lower end of its 95 % Clopper-Pearson interval"),
        column("recall_high", pa.float32(), "Upper end of its 95 % Clopper-Pearson interval"),
    ],
)
THRESHOLDS = schema(
    ["name"],
    [
        column("name", pa.string(), "tile_difference, l2: of copies, at most; similarity: of what is looked at, without pictures of copies, at least"),
        column("value", pa.float64(), "The threshold"),
        column("is_calibrated", pa.bool_(), "Set on the canaries of this training set; otherwise by params.yaml"),
        column("canary_share", pa.float64(), "Share of the canaries, altered as far as a copy may be, on its right side; NULL without any", nullable=True),
        column("n_natural", pa.int32(), "Random images whose neighbours were measured"),
        column("natural_rate", pa.float64(), "Their neighbours on its right side, per image: copies, and false pairs; NULL without any", nullable=True),
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
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "method", "value_set": ["file", "pixels", "pdq", "descriptor"]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "similarity", "min_value": -1.01, "max_value": 1.01}},
]
CANARY_CHECKS: list[dict[str, Any]] = [  # below: not to be trusted
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "recall", "min_value": 0.8, "max_value": 1, "row_condition": "is_promised==True",
                                                              "condition_parser": "pandas"}},
]
THRESHOLD_CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "value", "min_value": -1, "max_value": 1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "canary_share", "min_value": 0, "max_value": 1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "natural_rate", "min_value": 0}},
]
CHAINED = 5  # a component this many times its star
FACTS = ("l2", "tile_difference", "is_copy", "is_template")  # of an edge


@dataclass(frozen=True)
class Edges:
    """Pairs [p, 2] of rows of the images that one step looked at, with what it found, each [p]."""

    method: list[str]
    rows: np.ndarray
    similarity: np.ndarray
    l2: np.ndarray
    tile_difference: np.ndarray
    is_copy: np.ndarray
    is_template: np.ndarray


def representatives(images: pa.Table, names: list[str]) -> tuple[np.ndarray, Edges]:
    """[n] row of the first image with the same pixels, and the edges to it: the very same file, or only the pixels."""
    first: dict[str, int] = {}
    rows = np.array([first.setdefault(name, i) for i, name in enumerate(names)], np.int64)
    files = images.column("sha256").to_pylist()
    pairs = np.stack([rows, np.arange(len(rows))], axis=1)[rows != np.arange(len(rows))]
    without = "pixels" if pc.any(pc.is_valid(images.column("pixel_digest"))).as_py() else "descriptor"
    methods = ["file" if files[a] is not None and files[a] == files[b] else without for a, b in pairs.tolist()]
    ones, zeros = np.ones(len(pairs), np.float32), np.zeros(len(pairs), np.float32)
    far = np.where([method == "descriptor" for method in methods], np.float32(np.nan), zeros)  # nothing was seen of these
    return rows, Edges(methods, pairs, ones, far, far, ones.astype(bool), zeros.astype(bool))


def compare(images: _search.Images, marks: _canaries.Marks, settings: dict[str, Any], method: str, pairs: np.ndarray) -> Edges:
    """The edges of pairs [p, 2] of rows, as their aligned pixels say; without pictures as their descriptors do."""
    seen, similarity = images.compared(pairs, settings["template_l2"]), images.similarity(pairs)
    is_copy = marks.is_copy(seen["l2"], seen["tile_difference"]) if images.pictures else similarity >= settings["copy_similarity"]
    is_template = seen["has_same_layout"] & ~is_copy & (similarity >= settings["min_similarity"])
    return Edges([method] * len(pairs), pairs, similarity, seen["l2"], seen["tile_difference"], is_copy, is_template)


def by_hash(bits: np.ndarray, rows: np.ndarray, names: list[str], max_distance: int, look: Callable[[np.ndarray], Edges]) -> tuple[np.ndarray, list[Edges]]:
    """[m] the representatives of rows [m] by PDQ, and the edges that `look` made of pairs of them; bits [m, 32] uint8, names [m].

    Stars in order of close hashes: a picture is compared with centres only, so that a group of thousands costs thousands of looks.
    """
    pairs, _ = hashes.close_pairs(bits, max_distance)
    looked: list[Edges] = []

    def confirmed(asked: np.ndarray) -> np.ndarray:
        looked.append(look(rows[asked]))
        return looked[-1].is_copy

    degree = clusters.n_copies(len(bits), pairs, np.ones(len(bits), np.int64))
    return rows[clusters.confirmed_stars(len(bits), pairs, np.lexsort((np.array(names), -degree)), confirmed)], looked


def duplicates(images: pa.Table, rep: np.ndarray, edges: Edges, vectors: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The columns of the table, less nearest_other_l2, of good images with their representative [n] and the edges between representatives.

    vectors [n, d]; names [n] `names`: ties are broken by them, so that the same pictures under other ids are grouped alike.
    """
    n, ids = len(rep), images.column("image_id").to_numpy()
    is_member = np.array(images.column("split").to_pylist()) == "member"
    weight, members = np.bincount(rep, minlength=n), np.bincount(rep, weights=is_member, minlength=n).astype(np.int64)
    pairs = edges.rows[edges.is_copy]
    degree = clusters.n_copies(n, pairs, weight)
    order = np.lexsort((np.array(names), -degree))
    centre = clusters.star_centres(n, pairs, order[rep[order] == order])[rep]
    component = clusters.components(n, pairs)[rep]
    smallest = np.full(n, np.inf)
    np.minimum.at(smallest, centre, neighbours.similarities(vectors, vectors, np.stack([np.arange(n), centre], axis=1)))
    size, whole = clusters.sizes(centre, np.ones(n)), clusters.sizes(component, np.ones(n))
    family = clusters.families(centre, edges.rows[edges.is_template], names)
    return {"image_id": ids, "split": images.column("split"), "cluster_id": ids[centre], "representative_id": ids[rep],
            "n_copies": clusters.n_copies(n, pairs, members)[rep],
            "cluster_size": size, "n_neighbours": degree[rep] - 1, "component_size": whole, "min_similarity": np.round(smallest[centre], 4),
            "is_chained": whole > CHAINED * size, "is_leaked": clusters.touched(rep, edges.rows[edges.is_copy | edges.is_template], is_member) & ~is_member,
            "template_id": ids[family], "template_size": clusters.sizes(family, centre == np.arange(n))}


def written(ids: np.ndarray, looked: list[Edges], floor: float) -> pa.Table:
    """`pairs`: the edges at or above the floor of similarity, and all copies; image_ids [n]."""
    made: dict[str, Any] = {"method": [method for edges in looked for method in edges.method]}
    ends = ids[np.concatenate([np.zeros((0, 2), np.int64), *(edges.rows for edges in looked)])]
    made |= {"image_id_a": ends.min(axis=1), "image_id_b": ends.max(axis=1)}
    made |= {name: np.concatenate([getattr(edges, name) for edges in looked]) for name in ("similarity", *FACTS)}
    made["similarity"] = np.round(made["similarity"], 4)
    table = _tables.table(made, PAIRS)
    return table.filter(pc.or_(pc.greater_equal(table["similarity"], floor), table["is_copy"]))


def main() -> None:
    """Count, search the canaries in the same way, write data/duplicates."""
    settings, scheduler = _settings.settings("duplicates"), _settings.settings("compute")["dask"]
    metadata, vectors = _tables.descriptors("image_embeddings")
    good = _tables.read("images").filter(pc.field("status") == "ok")
    if not good.num_rows:
        return _nothing()
    by_source = pc.sort_indices(good, [(name, "ascending") for name in ("split", "shard", "position")])
    good, descriptor = good.take(by_source), str(metadata.column("descriptor")[0])
    vectors = vectors[by_source.to_numpy()].astype(np.float16)
    names = [name or _search.digest(vectors[i]) for i, name in enumerate(good.column("pixel_digest").to_pylist())]
    same_pixels, exact = representatives(good, names)
    with _search.scratch("pictures", "descriptors") as (pictures, described):
        first = np.unique(same_pixels)
        has_pictures = good.column("pixel_digest").null_count == 0
        shown = _search.thumbnails(good.take(first).to_pylist(), settings["confirm_px"], scheduler, pictures) if has_pictures else None
        images = _search.Images(vectors, names, first, shown, described, scheduler, descriptor)
        canary, natural, n_natural = _looked_for(images, good, settings)
        marks = _canaries.marks_of(canary, natural, n_natural, settings)
        look = partial(compare, images, marks, settings)
        hashed, bits = _hashed(good, first, settings["pdq_quality"])
        to_centre = np.arange(good.num_rows)
        to_centre[hashed], looked = by_hash(bits, hashed, [names[row] for row in hashed], settings["pdq_distance"], partial(look, "pdq"))
        rep = to_centre[same_pixels]
        pairs, probed = images.proposed(np.unique(rep), marks.floor, marks.enough, settings["n_neighbours"])
        edges = look("descriptor", pairs)
        if not has_pictures:
            edges = replace(edges, is_copy=edges.is_copy & ~_drifts(good.num_rows, edges))
        made = duplicates(good, rep, edges, vectors, names)
        made["nearest_other_l2"] = _nearest_other(images, same_pixels, made["cluster_id"], good.column("image_id").to_numpy())
    found = _rows(_canaries.recall_rows(canary, marks, probed), CANARIES)
    _tables.write(written(good.column("image_id").to_numpy(), [exact, *looked, edges], settings["min_similarity"]), PAIR_CHECKS, "duplicates", side="pairs")
    _tables.write(found, CANARY_CHECKS, "duplicates", side="canaries")
    thresholds = _canaries.threshold_rows(marks, canary, natural, n_natural, settings) if has_pictures else [_named(settings["copy_similarity"])]
    _tables.write(_rows(thresholds, THRESHOLDS), THRESHOLD_CHECKS, "duplicates", side="thresholds")
    table = _tables.table(made, SCHEMA)
    _report(table, found, thresholds)
    _tables.write(table, CHECKS, "duplicates")


def _nothing() -> None:
    """Write the tables of an audit without a training set."""
    for name, columns in (("pairs", PAIRS), ("canaries", CANARIES), ("thresholds", THRESHOLDS), ("duplicates", SCHEMA)):
        _tables.write(_rows([], columns), [], "duplicates", side=name)


def _named(similarity: float) -> dict[str, Any]:
    """The row of thresholds of a set without pictures."""
    return {"name": "similarity", "value": similarity, "is_calibrated": False, "canary_share": None, "n_natural": 0, "natural_rate": None}


def _rows(made: list[dict[str, Any]], columns: pa.Schema) -> pa.Table:
    return _tables.table(made or {name: [] for name in columns.names}, columns)


def _looked_for(images: _search.Images, good: pa.Table, settings: dict[str, Any]) -> tuple[dict[str, _canaries.Seen], _canaries.Seen, int]:
    """What the search sees of canaries, by alteration, and of random images and their neighbours, and how many these are."""
    is_eligible = pc.and_kleene(pc.equal(good["split"], "member"), pc.invert(good["is_degenerate"])).fill_null(False).to_numpy()
    eligible = images.first[is_eligible[images.first]] if images.pictures else images.first[:0]
    sources, others = (_canaries.chosen(images.names, eligible, settings[n], f"{settings['seed']} {n}") for n in ("n_canaries", "n_natural"))
    embedding, size_px = _settings.settings("image_embeddings"), _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    rows = {int(row): good.slice(int(row), 1).to_pylist()[0] for row in sources}
    canary: dict[str, _canaries.Seen] = {}
    if rows:
        model = _embedders.embedder(embedding["descriptor"], embedding["path"], _settings.settings("compute")["device"])
        canary = _canaries.planted(images, rows, settings | {"size_px": size_px}, model)
    return canary, _canaries.natural(images, others, settings), len(others)


def _drifts(n: int, edges: Edges) -> np.ndarray:
    """[p] bool: pairs at the similarity of copies that are links of a drift chain, where no pixels can tell."""
    made = np.zeros(len(edges.rows), bool)
    made[edges.is_copy] = clusters.drift_links(n, edges.rows[edges.is_copy])
    return made


def _hashed(good: pa.Table, first: np.ndarray, quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose PDQ says something, of the first ones, and their hashes [m, 32] uint8."""
    is_clear = pc.fill_null(pc.greater_equal(good["pdq_quality"], quality), False).to_numpy()
    rows = first[is_clear[first]]
    bits = b"".join(bytes.fromhex(text) for text in good["pdq"].take(rows).to_pylist())
    return rows, np.frombuffer(bits, np.uint8).reshape(-1, 32)


def _nearest_other(images: _search.Images, same_pixels: np.ndarray, cluster_id: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if images.pictures is None:
        return np.full(len(ids), np.nan)
    by_id = np.argsort(ids)
    centre = by_id[np.searchsorted(ids, cluster_id[images.first], sorter=by_id)]
    return density.nearest_other(images.shown(), images.at(centre))[images.at(same_pixels)]


def _report(made: pa.Table, found: pa.Table, thresholds: list[dict[str, Any]]) -> None:
    n_copied = pc.sum(pc.greater(made.column("n_copies"), 1)).as_py()
    seen = ", ".join(f"{r['transform']} {r['recall']:.0%}" for r in found.to_pylist())
    print(f"duplicates: {made.num_rows} images in {len(pc.unique(made.column('cluster_id')))} clusters, {n_copied} with copies; copies end at a "
          f"{thresholds[0]['name'].replace('_', ' ')} of {thresholds[0]['value']:.3f}; canaries found: {seen or 'none planted'}")


if __name__ == "__main__":
    _stage.run(main)
