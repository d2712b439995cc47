"""Descriptors are of unit length, row-aligned with their metadata, and made once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks import _embedders, _tables, image_embeddings
from tasks._settings import UserError

Maker = Callable[..., np.ndarray]


def model(digest: str = "d" * 64) -> _embedders.Embedder:
    return _embedders.Embedder("mean_colour", digest, 8, lambda batch: batch.reshape(len(batch), -1)[:, :16].astype(np.float32) + 1)


def test_descriptors_are_row_aligned_with_their_ids_whatever_the_order_of_reading() -> None:
    images = pa.table({"image_id": pa.array([30, 10, 20], pa.int64()), "key": ["c", "a", "b"], "caption": ["x", None, "y"]})
    basis = {30: [1, 0, 0], 10: [0, 1, 0], 20: [0, 0, 1]}
    made, vectors = image_embeddings.image_embeddings(images, lambda rows: np.array([basis[i] for i in rows.column("image_id").to_pylist()], np.float32), "d")
    assert made.column("image_id").to_pylist() == [10, 20, 30]
    assert vectors.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_the_clip_retrieval_layout_is_written_and_read_back(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embedders, "ROWS", 2)
    images = pa.table({"image_id": pa.array([1, 2, 3], pa.int64()), "key": ["a", "b", "c"], "caption": ["x", "y", "z"]})
    made, vectors = image_embeddings.image_embeddings(images, lambda rows: np.eye(3, dtype=np.float32)[: rows.num_rows], "d")
    _embedders.write(made, vectors, image_embeddings.CHECKS, "image_embeddings")
    folder = in_folder / "data" / "image_embeddings"
    assert sorted(p.name for p in (folder / "img_emb").iterdir()) == ["img_emb_0.npy", "img_emb_1.npy"]
    assert sorted(p.name for p in (folder / "metadata").iterdir() if p.stem != "checks") == ["metadata_0.parquet", "metadata_1.parquet"]
    metadata, read = _tables.descriptors("image_embeddings")
    assert metadata.column("image_id").to_pylist() == [1, 2, 3] and np.allclose(read, np.eye(3))


def test_a_partition_whose_files_do_not_match_is_named(in_folder: Path) -> None:
    folder = in_folder / "data" / "image_embeddings"
    _tables.put_array(np.eye(3, dtype=np.float16), folder / "img_emb" / "img_emb_0.npy")
    _tables.put(pa.table({"image_id": [1, 2]}), folder / "metadata" / "metadata_0.parquet")
    with pytest.raises(UserError, match="partition 0 has 3 descriptors for 2 metadata rows"):
        _tables.descriptors("image_embeddings")
