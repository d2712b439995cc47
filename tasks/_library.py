"""The pictures that generations are compared with, held in memory at one side. There may be none.

A training set of embeddings alone, and none at all, leave no picture to compare with: then nothing matches, and no verdict goes beyond
`undecided`. A held-out picture alone names no training image and controls nothing: where no member can be compared, nothing is.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _training_sets
from tasks.measures import clusters, distances

BLOCK_BYTES = 1 << 25  # of 8-bit pictures that are float32 at once


def comparable(images: pa.Table) -> np.ndarray:
    """[n] bool: the rows of `images` (split, status, pixel_digest) whose picture can be compared; none where no member has one."""
    has_picture = pc.and_(pc.equal(images["status"], "ok"), pc.is_valid(images["pixel_digest"]))
    is_member = pc.equal(images["split"], "member")
    if not pc.any(pc.and_(has_picture, is_member)).as_py():
        return np.zeros(images.num_rows, bool)
    return np.asarray(has_picture.to_numpy(zero_copy_only=False), bool)


class Pictures:
    """[n, s, s, 3] pictures held as 8 bits; what is asked of them is float32 in [0, 1], a quarter of the memory for the rest."""

    def __init__(self, held: np.ndarray) -> None:
        self.held = held

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, at: Any) -> np.ndarray:
        return np.asarray(self.held[at] / np.float32(255))

    def l2(self, shown: np.ndarray) -> np.ndarray:
        """[g, n] float32 l2 of pictures [g, s, s, 3] in [0, 1] to all of these, block by block."""
        flat = shown.reshape(len(shown), -1)
        step = max(1, BLOCK_BYTES // flat.shape[1])
        blocks = [distances.pairwise_l2(flat, self[start:start + step].reshape(-1, flat.shape[1])) for start in range(0, len(self), step)]
        return np.concatenate([np.zeros((len(flat), 0), np.float32), *blocks], axis=1)


def pictures(rows: list[dict[str, Any]], side: int) -> Pictures:
    """The pictures of rows of `images` at this side, in their order, read shard by shard."""
    held = np.empty((len(rows), side, side, 3), np.uint8)
    for i, pixels in _training_sets.Reader().small(rows, side):
        held[i] = pixels
    return Pictures(held)


class Library:
    """What can be compared, read once: rows of `images`, in order of image_id, with cluster_id, representative_id and is_leaked, and their pictures."""

    def __init__(self, rows: list[dict[str, Any]], trained_on: set[str], side: int) -> None:
        """trained_on = keys of the members that the release was trained on."""
        self.rows, self.pictures = rows, pictures(rows, side)
        self.position = {row["image_id"]: i for i, row in enumerate(rows)}
        self.is_of_training_set = np.array([row["split"] == "member" for row in rows], bool)
        self.is_member = np.array([row["split"] == "member" and row["key"] in trained_on for row in rows], bool)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, image_id: int) -> dict[str, Any]:
        """The row of an image."""
        return self.rows[self.position[image_id]]

    def picture(self, image_id: int) -> np.ndarray:
        """[s, s, 3] of an image."""
        return self.pictures[self.position[image_id]]

    def n_copies(self, pairs: pa.Table) -> dict[int, int]:
        """Copies of each image in the release: as `duplicates` counts them, of the pairs of copies that descriptors proposed."""
        ids = np.array(list(self.position), np.int64)
        ends = np.stack([pairs.column(c).to_numpy() for c in ("image_id_a", "image_id_b")], axis=1)
        rows = np.searchsorted(ids, ends[np.isin(ends, ids).all(axis=1)])
        return dict(zip(self.position, clusters.copies_among([r["representative_id"] for r in self.rows], rows, self.is_member).tolist(), strict=True))

    def l2_to_members(self, image_id: int) -> np.ndarray:
        """[m] l2 of an image to the members of the release."""
        return np.asarray(self.pictures.l2(self.picture(image_id)[None])[0][self.is_member])
