"""How many copies of each image the training set holds. One row per training or held-out image.

Exact copies are collapsed first (file digest, then pixels); pairs of the rest are proposed by descriptors and confirmed on
aligned pixels. Beside the table: `pairs`, the scored edges, and `canaries`, known copies searched in the same run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _embedders, _pictures, _settings, _shards, _tables
from tasks._tables import column, schema
from tasks.measures import alignment, canaries, clusters, distances, neighbours, templates

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
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "recall", "min_value": 0.8, "max_value": 1}},
]
CHAINED = 5  # a component this many times its star


def representatives(images: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """[n] row of the first image with the same pixels, and [n] whether the very file (not only its pixels) is that row's."""
    first: dict[str, int] = {}
    digests = images.column("pixel_digest").to_pylist()
    rows = np.array([first.setdefault(d, i) for i, d in enumerate(digests)], np.int64)
    files = np.array(images.column("sha256").to_pylist())
    return rows, files == files[rows]


def copies(pairs: np.ndarray, similarity: np.ndarray, pictures: np.ndarray, max_l2: float) -> tuple[np.ndarray, np.ndarray]:
    """[p] aligned l2 and [p] whether the pair is one of copies; pairs far apart in plain pixels are not aligned at all."""
    plain = np.sqrt(np.mean((pictures[pairs[:, 0]] - pictures[pairs[:, 1]]) ** 2, axis=(1, 2, 3)))
    l2 = plain.astype(np.float32)
    near = plain <= ALIGNABLE_L2
    l2[near] = alignment.aligned_l2(pictures, pairs[near])
    return l2, l2 <= max_l2


ALIGNABLE_L2 = 0.3  # no crop of 6 % moves a picture further than this
