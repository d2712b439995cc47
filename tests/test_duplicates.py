"""Planted copies are counted, siblings and templates are not merged, canaries are found."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _pictures, duplicates

Maker = Callable[..., np.ndarray]
SETTINGS = {"n_neighbours": 4, "min_similarity": 0.5, "max_l2": 0.06, "template_l2": 0.1}
ROOT = Path(__file__).resolve().parents[1]


def described(pictures: np.ndarray) -> np.ndarray:
    """A stand-in for a descriptor: the picture at 8 px, centred, of unit length."""
    small = np.stack([_pictures.resized(np.rint(p * 255).astype(np.uint8), 8) for p in pictures]).reshape(len(pictures), -1).astype(np.float32)
    small -= small.mean(axis=1, keepdims=True)
    return small / np.linalg.norm(small, axis=1, keepdims=True)


def library(pictures: list[np.ndarray], splits: list[str]) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    table = pa.table({"image_id": pa.array(range(1, len(pictures) + 1), pa.int64()), "split": splits,
                      "sha256": [f"{i:064d}" for i in range(len(pictures))], "pixel_digest": [_pictures.pixel_digest(p) for p in pictures]})
    floats = np.stack([_pictures.resized(p, 32) for p in pictures]).astype(np.float32) / 255
    return table, described(floats), floats


def counted(pictures: list[np.ndarray], splits: list[str]) -> list[dict]:
    return duplicates.duplicates(*library(pictures, splits), SETTINGS)[0].to_pylist()


def test_counts_the_planted_copies_exact_and_altered(picture: Maker, rng: np.random.Generator) -> None:
    original = picture(0, 64)
    copies = [original, original, *(_pictures.altered(original, t, rng) for t in duplicates.TRANSFORMS)]
    rows = counted(copies + [picture(i, 64) for i in range(1, 9)], ["member"] * 14)
    assert [r["n_copies"] for r in rows[:6]] == [6] * 6
    assert len({r["cluster_id"] for r in rows[:6]}) == 1
    assert [r["n_copies"] for r in rows[6:]] == [1] * 8


def test_cluster_sizes_over_the_centres_sum_to_all_images(picture: Maker) -> None:
    rows = counted([picture(i // 3, 64) for i in range(12)], ["member"] * 12)
    assert sum(r["cluster_size"] for r in rows if r["cluster_id"] == r["image_id"]) == 12


def test_a_copy_in_the_held_out_set_is_leaked_and_no_copy_counts_it(picture: Maker) -> None:
    rows = counted([picture(0, 64), picture(0, 64), picture(1, 64), picture(2, 64)], ["member", "held_out", "held_out", "member"])
    assert [r["is_leaked"] for r in rows] == [False, True, False, False]
    assert [r["n_copies"] for r in rows] == [1, 1, 0, 1]


def test_a_held_out_print_of_a_members_template_is_leaked_but_not_merged(picture: Maker) -> None:
    sibling = picture(0, 32).copy()
    sibling[8:24, 8:24] = picture(5, 32)[8:24, 8:24]
    rows = counted([picture(0, 32), sibling, picture(1, 32)], ["member", "held_out", "member"])
    assert rows[1]["is_leaked"] and rows[0]["cluster_id"] != rows[1]["cluster_id"]


def test_pairs_say_what_joined_them(picture: Maker) -> None:
    table, vectors, floats = library([picture(0, 64), picture(0, 64), picture(1, 64)], ["member"] * 3)
    table = table.set_column(2, "sha256", pa.array(["f" * 64, "f" * 64, "e" * 64]))
    pairs = duplicates.duplicates(table, vectors, floats, SETTINGS)[1].to_pylist()
    assert [(p["image_id_a"], p["image_id_b"], p["method"], p["is_copy"]) for p in pairs if p["is_copy"]] == [(1, 2, "file", True)]


def test_nearest_other_is_the_distance_to_another_cluster(picture: Maker) -> None:
    rows = counted([picture(0), picture(0), picture(1)], ["member"] * 3)
    expected = np.sqrt(np.mean((picture(0) / 255 - picture(1) / 255) ** 2))
    assert rows[0]["nearest_other_l2"] == pytest.approx(expected, abs=1e-4)
    assert counted([picture(0)], ["member"])[0]["nearest_other_l2"] is None


def test_canaries_are_found_and_strangers_are_not(picture: Maker, rng: np.random.Generator) -> None:
    shown = [picture(i, 64) for i in range(6)]
    table, vectors, floats = library(shown, ["member"] * 6)
    sources = np.arange(6)
    copies = [_pictures.altered(p, "cropped_4pct", rng) for p in shown]
    small = np.stack([_pictures.resized(p, 32) for p in copies]).astype(np.float32) / 255
    strangers = np.stack([picture(i + 50) for i in range(6)]).astype(np.float32) / 255
    first = duplicates.representatives(table)[0]
    altered = {"cropped_4pct": (described(small), small), "other": (described(strangers), strangers)}
    found = duplicates.canaries(vectors, floats, first, sources, altered, SETTINGS)
    assert dict(zip(found.column("transform").to_pylist(), found.column("n_found").to_pylist(), strict=True)) == {"cropped_4pct": 6, "other": 0}


def test_duplicates_still_finds_exactly_the_rows_that_v2_was_trained_on(audited: Path) -> None:
    """kept.csv was written once from what `duplicates` found: the centre of each cluster of members, or its first member."""
    keys = dict(zip(*(pq.read_table(audited / "data/images/images.parquet").column(c).to_pylist() for c in ("image_id", "key")), strict=True))
    first: dict[int, int] = {}
    for row in pq.read_table(audited / "data/duplicates/duplicates.parquet").to_pylist():
        if row["split"] == "member" and (row["cluster_id"] not in first or row["image_id"] == row["cluster_id"]):
            first[row["cluster_id"]] = row["image_id"]
    kept = (ROOT / "example" / "kept.csv").read_text().split()[1:]
    assert sorted(keys[i] for i in first.values()) == kept


def test_the_planted_clusters_of_the_example_are_counted(audited: Path) -> None:
    planted = {r["key"]: r for r in pq.read_table(ROOT / "example" / "planted.parquet").to_pylist()}
    keys = dict(zip(*(pq.read_table(audited / "data/images/images.parquet").column(c).to_pylist() for c in ("image_id", "key")), strict=True))
    clusters: dict[str, set[int]] = {}
    sizes: dict[str, int] = {}
    for row in pq.read_table(audited / "data/duplicates/duplicates.parquet").to_pylist():
        truth = planted.get(keys[row["image_id"]])
        if truth and truth["kind"] == "duplicated":
            clusters.setdefault(truth["cluster"], set()).add(row["cluster_id"])
            sizes[truth["cluster"]] = row["cluster_size"] if row["image_id"] == row["cluster_id"] else sizes.get(truth["cluster"], 0)
    assert len(clusters) == 70
    assert sum(len(c) == 1 for c in clusters.values()) >= 68  # a copy lost would hide its image behind its own twin
    assert all(sizes[name] == truth for name, truth in {r["cluster"]: r["n_copies"] for r in planted.values() if r["kind"] == "duplicated"}.items()
               if len(clusters[name]) == 1 and sizes[name])
