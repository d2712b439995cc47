"""Descriptors are of unit length, row-aligned with their metadata, and made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_both_sides_are_brought_to_one_size_before_the_model_sees_them(picture: Maker) -> None:
    large = picture(1, 64)
    from tasks import _pictures

    small = _pictures.resized(large, 16)
    one, two = (model().descriptors([p], 16) for p in (large, small))
    assert np.allclose(one, two) and np.linalg.norm(one) == pytest.approx(1)


def test_the_provenance_names_weights_and_preprocessing() -> None:
    assert model().provenance(32) != model("e" * 64).provenance(32) != model().provenance(64)


@pytest.mark.parametrize("name", ["sscd_distilled", "sscd", "efficientnet_lite0"])
def test_real_descriptors_tell_a_reencoded_copy_from_another_picture(name: str, picture: Maker, rng: np.random.Generator) -> None:
    from tasks import _pictures

    pictures = [picture(1, 64), _pictures.altered(picture(1, 64), "reencoded", rng), picture(2, 64)]
    vectors = _embedders.embedder(name).descriptors(pictures, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_a_torchscript_file_is_taken_by_path(tmp_path: Path, picture: Maker) -> None:
    import torch

    path = tmp_path / "sscd.torchscript.pt"
    torch.jit.script(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())).save(str(path))
    vectors = _embedders.embedder("sscd", str(path)).descriptors([picture(1), picture(1), picture(2)], 32)
    assert vectors.shape == (3, 48) and vectors[0] @ vectors[1] == pytest.approx(1, abs=1e-5) and vectors[0] @ vectors[2] < 0.999


def test_an_unknown_descriptor_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'clip' is not known; use sscd"):
        _embedders.embedder("clip")


def test_a_piece_is_made_once(in_folder: Any) -> None:
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.eye(3, dtype=np.float32)

    for _ in range(2):
        assert _embedders.piece("image_embeddings", "key", make).tolist() == np.eye(3).tolist()
    assert len(made) == 1
