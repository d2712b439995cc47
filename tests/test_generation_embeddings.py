"""Generations are described as the training set was, or not at all."""

import numpy as np
import pyarrow as pa
import pytest

from tasks import generation_embeddings
from tasks._settings import UserError


def test_descriptors_are_in_order_of_generation_id() -> None:
    rows = pa.table({"generation_id": pa.array([5, 2], pa.int64()), "release": ["v1"] * 2, "shard": ["pictures_00000.parquet"] * 2, "position": [0, 1]})
    made, vectors = generation_embeddings.generation_embeddings(rows, lambda r: np.array([[1, 0], [0, 1]], np.float32), "d")
    assert made.column("generation_id").to_pylist() == [2, 5] and vectors.tolist() == [[0, 1], [1, 0]]
    assert made.column("image_path").to_pylist() == ["pictures_00000.parquet#1", "pictures_00000.parquet#0"]


def test_descriptors_of_another_model_or_preprocessing_are_refused() -> None:
    assert all(generation_embeddings.require_same("sscd, 32 px", theirs) is None for theirs in (["sscd, 32 px"], []))  # none to compare with: any will do
    with pytest.raises(UserError, match="described by 'sscd, 32 px'"):
        generation_embeddings.require_same("sscd, 64 px", ["sscd, 32 px"])
