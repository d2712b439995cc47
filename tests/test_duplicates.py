"""Planted copies are counted, siblings and templates are not merged, canaries are found, and none of it hangs on names or order."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks import _canaries, duplicates
from tests import planted_copies, tiny_sets
from tests.conftest import ROOT, rows_of

Maker = Callable[..., np.ndarray]
FEW = {"n_canaries": 8, "n_natural": 16}


def edges(pairs: list[tuple[int, int]], *, is_copy: bool = True, is_template: bool = False) -> duplicates.Edges:
    n, rows = len(pairs), np.array(pairs, np.int64).reshape(-1, 2)
    return duplicates.Edges(["descriptor"] * n, rows, np.full(n, 0.9), np.zeros(n), np.zeros(n), np.full(n, is_copy), np.full(n, is_template))


def images(splits: str, digests: str = "") -> pa.Table:
    """A table of images, m(ember) or h(eld out), with digests told by letters, each its own where none is given."""
    n = len(splits)
    told = list(digests) or [chr(97 + i) for i in range(n)]
    return pa.table({"image_id": pa.array(range(100, 100 + n), pa.int64()), "split": [{"m": "member", "h": "held_out"}[s] for s in splits],
                     "pixel_digest": told, "sha256": [f"{i}" for i in range(n)]})


def counted(table: pa.Table, found: duplicates.Edges, rep: list[int] | None = None) -> list[dict[str, Any]]:
    n = table.num_rows
    vectors = np.eye(n, dtype=np.float32)
    made = duplicates.duplicates(table, np.array(rep or range(n)), found, vectors, table.column("pixel_digest").to_pylist())
    return pa.table({name: made[name] for name in made}).to_pylist()


def test_copies_are_counted_with_the_multiplicity_that_the_steps_before_have_carried() -> None:
    rows = counted(images("mmmmm"), edges([(0, 3)]), rep=[0, 0, 0, 3, 4])
    assert [r["n_copies"] for r in rows] == [4, 4, 4, 4, 1]
    assert [r["cluster_id"] for r in rows] == [100, 100, 100, 100, 104]
    assert [r["cluster_size"] for r in rows] == [4, 4, 4, 4, 1] and [r["n_neighbours"] for r in rows] == [3, 3, 3, 3, 0]


def test_held_out_copies_are_not_counted_and_leak() -> None:
    rows = counted(images("mhhm"), edges([(0, 1)]))
    assert [r["n_copies"] for r in rows] == [1, 1, 0, 1]
    assert [r["is_leaked"] for r in rows] == [False, True, False, False]


def test_another_print_of_one_layout_is_no_copy_but_a_family_and_a_leak() -> None:
    rows = counted(images("mhm"), edges([(0, 1)], is_copy=False, is_template=True))
    assert len({r["cluster_id"] for r in rows}) == 3 and [r["n_copies"] for r in rows] == [1, 0, 1]
    assert rows[0]["template_id"] == rows[1]["template_id"] != rows[2]["template_id"]
    assert [r["template_size"] for r in rows] == [2, 2, 1] and [r["is_leaked"] for r in rows] == [False, True, False]


def test_a_chain_is_marked_and_not_counted_as_one() -> None:
    rows = counted(images("m" * 20), edges([(i, i + 1) for i in range(19)]))
    assert all(r["is_chained"] and r["component_size"] == 20 and r["cluster_size"] <= 3 for r in rows)
    assert sum(r["cluster_size"] for r in rows if r["cluster_id"] == r["image_id"]) == 20


def test_groups_do_not_hang_on_ids_or_order(rng: np.random.Generator) -> None:
    pairs = np.argwhere(np.triu(rng.random((16, 16)) < 0.2, 1))
    plain, order = images("m" * 16), rng.permutation(16)
    moved = plain.take(order).set_column(0, "image_id", pa.array(rng.permutation(1000)[:16]))
    place = np.argsort(order)
    groups = []
    for table, found in ((plain, pairs), (moved, np.sort(place[pairs], axis=1))):
        rows = counted(table, edges([tuple(p) for p in found.tolist()]))
        names = table.column("pixel_digest").to_pylist()
        name_of = {r["image_id"]: name for r, name in zip(rows, names, strict=True)}
        groups.append({name: (name_of[r["cluster_id"]], r["n_copies"], r["cluster_size"]) for r, name in zip(rows, names, strict=True)})
    assert groups[0] == groups[1]


def test_exact_copies_say_whether_the_file_or_only_its_pixels_are_the_same() -> None:
    table = images("mmmm", "xxxy").set_column(3, "sha256", pa.array(["f", "f", "g", "h"]))
    rep, found = duplicates.representatives(table, table.column("pixel_digest").to_pylist())
    assert rep.tolist() == [0, 0, 0, 3] and found.method == ["file", "pixels"] and found.rows.tolist() == [[0, 1], [0, 2]]


# ---- whole stages, on sets of files ----


def project(folder: Path, members: dict[str, str], held_out: dict[str, str] | None = None, **settings: Any) -> Path:
    """A folder with params.yaml for these sets."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["training_set"], params["releases"] = {"members": members, "held_out": held_out}, {}
    params["duplicates"] |= settings
    params["image_embeddings"]["descriptor"] = "sscd_distilled"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def run(folder: Path, *stages: str, **variables: str) -> str:
    """What the stages print, run one after the other."""
    said = ""
    for stage in stages or ("inputs", "images", "image_embeddings", "duplicates"):
        done = subprocess.run([sys.executable, "-m", f"tasks.{stage}"], cwd=folder, text=True, capture_output=True, timeout=600, check=False,
                              env=os.environ | {"PYTHONPATH": str(ROOT)} | variables)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        said += done.stdout
    return said


def groups_by_key(folder: Path) -> dict[str, set[str]]:
    keys = {r["image_id"]: r["key"] for r in rows_of(folder, "images")}
    made: dict[int, set[str]] = {}
    for row in rows_of(folder, "duplicates"):
        made.setdefault(row["cluster_id"], set()).add(keys[row["image_id"]])
    return {key: group for group in made.values() for key in group}


def copies_by_key(folder: Path) -> set[tuple[str, str]]:
    """Pairs that count as copies, each step's at the multiplicity carried: images of one representative, or of two that a descriptor edge joins."""
    keys = {r["image_id"]: r["key"] for r in rows_of(folder, "images")}
    of = {r["image_id"]: r["representative_id"] for r in rows_of(folder, "duplicates")}
    joined = {(a, a) for a in of.values()}
    for row in rows_of(folder, "duplicates", side="pairs"):
        if row["is_copy"] and row["method"] == "descriptor":
            joined |= {(row["image_id_a"], row["image_id_b"]), (row["image_id_b"], row["image_id_a"])}
    stood_for: dict[int, list[str]] = {}
    for image_id, representative in of.items():
        stood_for.setdefault(representative, []).append(keys[image_id])
    return {(a, b) for one, other in joined for a in stood_for[one] for b in stood_for[other] if a < b}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for noun in ("images", "image_embeddings", "duplicates")
            for p in sorted((folder / "data" / noun).rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[planted_copies.Planted]]:
    """The issue's set: 1,800 emoji, one per family, 20 copies of each of ten alterations; thresholds are set on the stage's own canaries."""
    rows = planted_copies.planted(seed=11)
    folder = project(tmp_path_factory.mktemp("emoji"), {"format": "parquet", "path": "set"})
    planted_copies.as_parquet(rows, folder / "set" / "emoji.parquet")
    run(folder)
    return folder, rows


def test_planted_copies_of_emoji_are_found_and_their_siblings_are_not(emoji: tuple[Path, list[planted_copies.Planted]]) -> None:
    folder, rows = emoji
    groups = groups_by_key(folder)
    clustered = {(a, b) for a, group in groups.items() for b in group if a < b}
    for name, found in (("clusters", clustered), ("pairs", copies_by_key(folder))):
        precision, recall = planted_copies.precision_and_recall(rows, found, set(planted_copies.PROMISED))
        beside = {a: round(planted_copies.precision_and_recall(rows, found, {a})[1], 2) for a in planted_copies.BESIDE}
        print(f"{name}: precision {precision:.3f}, recall {recall:.3f}; beside, recall of all pairs: {beside}")
        assert precision >= 0.97 and recall >= 0.95


def test_canaries_of_the_set_say_what_is_found_and_what_is_not(emoji: tuple[Path, list[planted_copies.Planted]]) -> None:
    folder, _ = emoji
    canaries = {r["transform"]: r for r in rows_of(folder, "duplicates", side="canaries")}
    assert set(canaries) == set(_canaries.ALTERATIONS) and all(r["n_planted"] == 64 for r in canaries.values())
    assert all(canaries[name]["recall"] >= 0.9 and canaries[name]["is_promised"] for name in _canaries.COPIES)
    assert canaries["watermarked"]["recall"] < 0.5 and not canaries["watermarked"]["is_promised"]
    assert all(r["recall_low"] <= r["recall"] <= r["recall_high"] for r in canaries.values())


def test_cluster_sizes_over_the_centres_sum_to_the_good_rows(emoji: tuple[Path, list[planted_copies.Planted]]) -> None:
    rows = rows_of(emoji[0], "duplicates")
    assert sum(r["cluster_size"] for r in rows if r["cluster_id"] == r["image_id"]) == len(rows) == 2000
    assert {r["name"] for r in rows_of(emoji[0], "duplicates", side="thresholds")} == {"tile_difference", "l2", "similarity"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[planted_copies.Planted]]:
    """300 emoji and 40 altered copies in three shards, counted once."""
    rows = planted_copies.planted(seed=3, n=300, n_copies=4)
    folder = project(tmp_path_factory.mktemp("small"), {"format": "parquet", "path": "set"}, **FEW)
    for shard in range(3):
        planted_copies.as_parquet(rows[shard::4], folder / "set" / f"{shard}.parquet")
    run(folder)
    return folder, rows


@pytest.mark.parametrize("how", ["one thread", "again", "after a kill", "on two Dask workers"])
def test_the_same_input_gives_the_same_bytes(small: tuple[Path, list[planted_copies.Planted]], tmp_path: Path, how: str) -> None:
    folder, _ = small
    copy = project(tmp_path / "copy", {"format": "parquet", "path": str(folder / "set")}, **FEW)
    if how == "again":
        shutil.copytree(folder / "work", copy / "work")
        run(copy)
    elif how == "one thread":
        run(copy, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    elif how == "after a kill":
        run(copy, "inputs", "images", "image_embeddings")
        process = subprocess.Popen([sys.executable, "-m", "tasks.duplicates"], cwd=copy, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list((copy / "work" / "duplicates").glob("*.parquet"))) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (copy / "data" / "duplicates" / "duplicates.parquet").exists()
        run(copy, "duplicates")
    else:
        params = yaml.safe_load((copy / "params.yaml").read_text())
        params["compute"]["dask"] = "local:2"
        (copy / "params.yaml").write_text(yaml.safe_dump(params))
        run(copy)
    assert bytes_of(copy) == bytes_of(folder)
    assert not list((copy / "work" / "duplicates").glob("*.tmp"))


def described(folder: Path) -> dict[str, np.ndarray]:
    """Descriptor of each picture by half of its digest."""
    digests = {r["image_id"]: r["pixel_digest"][:32] for r in rows_of(folder, "images")}
    where = folder / "data" / "image_embeddings"
    ids = pq.read_table(where / "metadata" / "metadata_0.parquet")["image_id"].to_pylist()
    return {digests[i]: row for i, row in zip(ids, np.load(where / "img_emb" / "img_emb_0.npy").astype(np.float64), strict=True)}


def test_a_new_shard_is_all_that_is_decoded_described_and_compared(small: tuple[Path, list[planted_copies.Planted]], tmp_path: Path) -> None:
    folder, rows = small
    more = project(tmp_path / "more", {"format": "parquet", "path": "set"}, **FEW)
    shutil.copytree(folder / "set", more / "set")
    shutil.copytree(folder / "work", more / "work")
    planted_copies.as_parquet(rows[3::4], more / "set" / "3.parquet")
    said = run(more)
    n_before = len(list((folder / "work" / "image_embeddings").glob("*.parquet")))
    assert "images: 4 pieces, 3 kept from before, 1 to make" in said
    assert f"image_embeddings: {n_before + 1} pieces, {n_before} kept from before, 1 to make" in said
    n_shown = sum("pixels" in pq.read_schema(path).names for path in (folder / "work" / "duplicates").glob("*.parquet"))
    assert re.search(rf"duplicates: \d+ pieces of thumbnails, {n_shown} kept from before, [12] to make", said)
    new = {r["pixel_digest"][:32] for r in rows_of(more, "images")} - {r["pixel_digest"][:32] for r in rows_of(folder, "images")}
    compared = {path.name: pq.read_table(path)["pair"].to_pylist() for path in (more / "work" / "duplicates").glob("compared-*.parquet")}
    before = {name for name in compared if (folder / "work" / "duplicates" / name).exists()}
    aligned = [pair.hex() for name in compared.keys() - before for pair in compared[name]]
    assert before and aligned and not {pair.hex() for name in before for pair in compared[name]} & set(aligned), "no pair is aligned twice"
    descriptor = described(more)
    floor = next(r["value"] for r in rows_of(folder, "duplicates", side="thresholds") if r["name"] == "similarity")
    of_old = [(pair[:32], pair[32:]) for pair in aligned if pair[:32] not in new and pair[32:] not in new]
    assert all(descriptor[a] @ descriptor[b] < floor + 1e-6 for a, b in of_old), "they are below what was looked at before: eight canaries move it"
    fresh = project(tmp_path / "fresh", {"format": "parquet", "path": str(more / "set")}, **FEW)
    run(fresh)
    assert bytes_of(more) == bytes_of(fresh)


def in_formats(folder: Path, rows: list[planted_copies.Planted]) -> dict[str, dict[str, str]]:
    """params.yaml's entry of the set as a folder of pictures, as Parquet and as img2dataset's tars."""
    samples = [(row.name, row.data, row.caption, f"http://a.example/{row.name}") for row in rows]
    for form, write in tiny_sets.WRITERS.items():
        write(folder / form, samples)
    return {form: {"format": form, "path": str(folder / form)} for form in tiny_sets.WRITERS}


def test_the_same_set_in_three_formats_has_the_same_clusters_and_counts(tmp_path: Path) -> None:
    rows = planted_copies.planted(seed=5, n=200, n_copies=4)
    rows.append(planted_copies.Planted("again.png", rows[1].data, rows[1].caption, rows[1].family, ""))
    told = []
    for name, spec in in_formats(tmp_path / "sets", rows).items():
        folder = project(tmp_path / name, spec, **FEW)
        run(folder)
        sha = {r["image_id"]: r["sha256"] for r in rows_of(folder, "images")}
        groups: dict[int, list[str]] = {}
        for row in rows_of(folder, "duplicates"):
            groups.setdefault(row["cluster_id"], []).append(sha[row["image_id"]])
        counts = sorted((sha[r["image_id"]], r["n_copies"], r["cluster_size"], sha[r["cluster_id"]], r["template_size"]) for r in rows_of(folder, "duplicates"))
        told.append((sorted(sorted(group) for group in groups.values()), counts))
    assert told[0] == told[1] == told[2]


def test_given_descriptors_are_counted_without_pictures(tmp_path: Path, rng: np.random.Generator) -> None:
    base = rng.normal(size=(40, 32))
    base[20:25] = base[0] + 0.01 * rng.normal(size=(5, 32))  # near copies
    base[30] = base[1]  # the very same
    vectors = (base / np.linalg.norm(base, axis=1, keepdims=True)).astype(np.float16)
    for part, rows in enumerate((slice(0, 20), slice(20, 40))):
        (tmp_path / "set" / "img_emb").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / "img_emb" / f"img_emb_{part}.npy", vectors[rows])
        metadata = {"image_path": [f"{i}.jpg" for i in range(40)[rows]], "caption": [f"caption {i}" for i in range(40)[rows]]}
        (tmp_path / "set" / "metadata").mkdir(exist_ok=True)
        pq.write_table(pa.table(metadata), tmp_path / "set" / "metadata" / f"metadata_{part}.parquet")
    folder = project(tmp_path / "given", {"format": "clip_embeddings", "path": str(tmp_path / "set")})
    run(folder)
    groups = groups_by_key(folder)
    assert len(groups) == 40 and sorted(len(group) for group in {frozenset(g) for g in groups.values()}) == [1] * 32 + [2, 6]
    assert all(r["nearest_other_l2"] is None for r in rows_of(folder, "duplicates"))
    assert not rows_of(folder, "duplicates", side="canaries")


def test_each_picture_that_the_second_release_was_trained_on_stands_for_one_cluster(audited: Path) -> None:
    """kept.csv was written once from what `duplicates` found. Since then three pairs of skin tones are told apart: they have no row there."""
    keys = {r["key"]: r["image_id"] for r in rows_of(audited, "images") if r["split"] == "member"}
    cluster_of = {r["image_id"]: r["cluster_id"] for r in rows_of(audited, "duplicates") if r["split"] == "member"}
    kept = [cluster_of[keys[key]] for key in (ROOT / "example" / "kept.csv").read_text().split()[1:]]
    assert len(set(kept)) == len(kept)
    missing = set(cluster_of.values()) - set(kept)
    captions = {r["image_id"]: r["caption"] for r in rows_of(audited, "images")}
    assert len(missing) == 3 and all("skin tone" in captions[cluster_id] for cluster_id in missing)


def test_the_planted_clusters_of_the_example_are_counted(audited: Path) -> None:
    planted = {r["key"]: r for r in pq.read_table(ROOT / "example" / "planted.parquet").to_pylist()}
    keys = {r["image_id"]: r["key"] for r in rows_of(audited, "images")}
    clusters: dict[str, set[int]] = {}
    n_copies: dict[str, set[int]] = {}
    for row in rows_of(audited, "duplicates"):
        truth = planted.get(keys[row["image_id"]])
        if truth and truth["kind"] == "duplicated":
            clusters.setdefault(truth["cluster"], set()).add(row["cluster_id"])
            n_copies.setdefault(truth["cluster"], set()).add(row["n_copies"])
    assert len(clusters) == 70 and all(len(found) == 1 for found in clusters.values())
    assert n_copies == {r["cluster"]: {r["n_copies"]} for r in planted.values() if r["kind"] == "duplicated"}
