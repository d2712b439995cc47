"""Descriptors are of unit length, row-aligned with their metadata, and made once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks import _embedders, _tables, image_embeddings, images, inputs
from tasks._settings import UserError
from tests.tiny_sets import as_folder, encoded, imaged, put_params, shown

Maker = Callable[..., np.ndarray]


def model(digest: str = "d" * 64) -> _embedders.Embedder:
    return _embedders.Embedder("mean_colour", digest, 8, lambda batch: batch.reshape(len(batch), -1)[:, :16].astype(np.float32) + 1)


def test_descriptors_are_row_aligned_with_their_ids_whatever_the_order_of_reading(in_folder: Path) -> None:
    images = pa.table({"image_id": pa.array([30, 10, 20], pa.int64()), "key": ["c", "a", "b"], "caption": ["x", None, "y"]})
    places = image_embeddings.ranks(images.column("image_id").to_numpy())
    norms, vectors = image_embeddings._scattered(iter([np.array([[3, 0, 0]], np.float16), np.eye(3, dtype=np.float16)[1:]]), places)
    assert norms.tolist() == [3, 1, 1] and vectors.tolist() == [[0, 1, 0], [0, 0, 1], [3, 0, 0]]
    made = image_embeddings.image_embeddings(images, norms, "d")
    assert made.column("image_id").to_pylist() == [10, 20, 30] and made.column("norm").to_pylist() == [1, 1, 3]
    assert list((in_folder / "work" / "image_embeddings").iterdir()) == [], "what is held on disk meanwhile has no name"


def test_the_clip_retrieval_layout_is_written_and_read_back(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embedders, "ROWS", 2)
    images = pa.table({"image_id": pa.array([1, 2, 3], pa.int64()), "key": ["a", "b", "c"], "caption": ["x", "y", "z"]})
    made = image_embeddings.image_embeddings(images, np.ones(3, np.float32), "d")
    _embedders.write(made, np.eye(3, dtype=np.float16), image_embeddings.CHECKS, "image_embeddings")
    folder = in_folder / "data" / "image_embeddings"
    assert sorted(p.name for p in (folder / "img_emb").iterdir()) == ["img_emb_0.npy", "img_emb_1.npy"]
    assert sorted(p.name for p in (folder / "metadata").iterdir() if p.stem != "checks") == ["metadata_0.parquet", "metadata_1.parquet"]
    metadata, read = _tables.descriptors("image_embeddings")
    assert metadata.column("image_id").to_pylist() == [1, 2, 3] and np.allclose(read, np.eye(3))


def test_a_picture_that_is_there_many_times_is_described_once_and_a_descriptor_does_not_depend_on_its_companions(
        in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_shown = []

    def embed(batch: np.ndarray) -> np.ndarray:
        n_shown.append(len(np.unique(batch.reshape(len(batch), -1), axis=0)))
        assert len(batch) == _embedders.BATCH
        return batch.reshape(len(batch), -1)[:, :16].astype(np.float32) + 1

    image_embeddings._model.cache_clear()
    monkeypatch.setattr(_embedders, "embedder", lambda *_: _embedders.Embedder("first_row", "d" * 64, 8, embed))
    copies = [(f"{i:02d}.png", encoded(shown(i % 3)), "x", None) for i in range(20)]
    as_folder(in_folder / "set", copies)
    rows = {r["image_id"]: r["key"] for r in imaged("image_folder", "set")}
    image_embeddings.main()
    metadata, vectors = _tables.descriptors("image_embeddings")
    by_key = {rows[i]: v for i, v in zip(metadata.column("image_id").to_pylist(), vectors, strict=True)}
    assert sum(n_shown) == 3 and all((by_key[f"{i:02d}.png"] == by_key[f"{i % 3:02d}.png"]).all() for i in range(20))
    assert len({v.tobytes() for v in by_key.values()}) == 3


def test_an_audit_without_a_training_set_has_no_descriptors(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embedders, "embedder", lambda *_: model())
    put_params("image_folder", "set")
    for side in ("members", "held_out"):
        _tables.put(inputs.SCHEMA.empty_table(), _tables.path("inputs", side=side))
    _tables.put(_tables.table([{"size_px": 32}], inputs.RESOLUTION), _tables.path("inputs", side="resolution"))
    images.main()
    image_embeddings.main()
    assert [part.num_rows for part in _tables.metadata("image_embeddings")] == [0]


def test_a_partition_whose_files_do_not_match_is_named(in_folder: Path) -> None:
    folder = in_folder / "data" / "image_embeddings"
    _tables.put_array(np.eye(3, dtype=np.float16), folder / "img_emb" / "img_emb_0.npy")
    _tables.put(pa.table({"image_id": [1, 2]}), folder / "metadata" / "metadata_0.parquet")
    with pytest.raises(UserError, match="partition 0 has 3 descriptors for 2 metadata rows"):
        _tables.descriptors("image_embeddings")
