"""Descriptors that a training set is given as: counted against their metadata, taken as they are, never unpickled."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _clip_embeddings, _files, _tables, _training_sets, image_embeddings
from tasks._settings import UserError
from tests.tiny_sets import imaged


def put(root: Path, part: str, vectors: np.ndarray, metadata: dict[str, list[Any]]) -> None:
    for folder in ("img_emb", "metadata"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    np.save(root / "img_emb" / f"img_emb_{part}.npy", vectors)
    pq.write_table(pa.table(metadata), root / "metadata" / f"metadata_{part}.parquet")


def unlike(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float16)


def test_rows_have_what_the_metadata_have_and_no_pixels(in_folder: Path) -> None:
    vectors = unlike(4)
    vectors[2], vectors[3] = 0, np.nan
    put(in_folder / "set", "0000", vectors, {"image_path": ["a", "b", "c", "d"], "TEXT": ["x", None, "z", "z"], "URL": list("uvwx"),
                                             "WIDTH": [640.0, None, 3, 4], "HEIGHT": [480, None, 3, 4], "sha256": ["A" * 64, "short", None, None]})
    put(in_folder / "set", "0001", unlike(2, seed=1), {"url": ["http://e", None]})
    rows = {r["key"]: r for r in imaged("clip_embeddings", "set")}
    assert {k: (r["caption"], r["url"], r["width_px"], r["height_px"], r["sha256"], r["status"], r["reason"]) for k, r in rows.items()} == {
        "a": ("x", "u", 640, 480, "a" * 64, "ok", None), "b": (None, "v", None, None, None, "ok", "caption missing"),
        "c": ("z", "w", 3, 3, None, "error", "its descriptor is all zeros"), "d": ("z", "x", 4, 4, None, "error", "its descriptor is not finite"),
        "http://e": (None, "http://e", None, None, None, "ok", "caption missing"),
        "img_emb/img_emb_0001.npy#1": (None, None, None, None, None, "ok", "caption missing")}
    assert {(r["pixel_digest"], r["pdq"], r["pdq_quality"], r["complexity_bytes"], r["is_degenerate"]) for r in rows.values()} == {(None,) * 5}
    with pytest.raises(UserError, match="holds descriptors without pictures"):
        _training_sets.Reader().pixels(rows["a"])
    image_embeddings.main()
    metadata, made = _tables.descriptors("image_embeddings")
    assert metadata.column("image_path").to_pylist() == [r["key"] for r in sorted(rows.values(), key=lambda r: r["image_id"]) if r["status"] == "ok"]
    whole = dict(zip(metadata.column("image_path").to_pylist(), made, strict=True))
    for key, vector in (("a", vectors[0]), ("b", vectors[1]), ("http://e", unlike(2, seed=1)[0])):
        unit = vector.astype(np.float32) / np.linalg.norm(vector.astype(np.float32))
        assert np.allclose(whole[key], unit, atol=1e-3)
    said = metadata.column("descriptor")[0].as_py()
    assert said.startswith("given: ") and said.endswith(", 16 numbers") and set(metadata.column("descriptor").to_pylist()) == {said}


def test_a_partition_whose_files_do_not_match_is_named_with_both_counts(in_folder: Path) -> None:
    put(in_folder / "set", "0000", unlike(2), {"image_path": ["a", "b"]})
    put(in_folder / "set", "0001", unlike(3), {"image_path": ["c", "d"]})
    with pytest.raises(UserError, match="partition 0001 has 3 descriptors for 2 metadata rows"):
        imaged("clip_embeddings", "set")
    put(in_folder / "set", "0001", unlike(2, 8), {"image_path": ["c", "d"]})
    with pytest.raises(UserError, match="partition 0001 has 8 numbers a descriptor, the first 16"):
        imaged("clip_embeddings", "set")
    (in_folder / "set" / "metadata" / "metadata_0001.parquet").unlink()
    with pytest.raises(UserError, match="partition 0001 has no metadata/metadata_0001.parquet"):
        imaged("clip_embeddings", "set")


def test_a_pickled_array_is_never_loaded(in_folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return exec, ("open('ran', 'w')",)

    put(in_folder / "set", "0", np.array([[Bomb(), 1], [1, 2]], object), {"image_path": ["a", "b"]})
    with pytest.raises(UserError, match="pickled ones are never loaded"):
        imaged("clip_embeddings", "set")
    with pytest.raises(UserError, match="not readable as an array"):
        _clip_embeddings.descriptors("set", "img_emb/img_emb_0.npy")
    assert not Path("ran").exists()


def test_a_partition_that_comes_leaves_the_pieces_of_the_others(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(in_folder / "set", "0000", unlike(2), {"image_path": ["a", "b"]})
    before = {r["key"]: r for r in imaged("clip_embeddings", "set")}
    put(in_folder / "set", "0001", unlike(2), {"image_path": ["c", "d"]})
    after = {r["key"]: r for r in imaged("clip_embeddings", "set")}
    assert "images: 2 pieces, 1 kept from before, 1 to make" in capsys.readouterr().out and {k: after[k] for k in before} == before and len(after) == 4


def test_descriptors_stay_where_they_are(in_folder: Path) -> None:
    put(in_folder / "set", "0", unlike(2), {"image_path": ["a", "b"]})
    made = _clip_embeddings.descriptors("set", "img_emb/img_emb_0.npy")
    assert isinstance(made.base, np.memmap) or isinstance(made, np.memmap)
    assert not _files.is_remote("set")
