"""Copy-detection descriptors of the training and held-out images. One row per picture.

The clip-retrieval layout: img_emb/img_emb_{k}.npy (float16, unit length), row-aligned with metadata/metadata_{k}.parquet.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _embedders, _pictures, _settings, _shards, _stage, _tables
from tasks._schemas import column, schema

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "The picture described"),
        column("image_path", pa.string(), "Its key in the source (the name clip-retrieval's readers expect)"),
        column("caption", pa.string(), "Its caption; NULL where it has none", nullable=True),
        column("norm", pa.float32(), "Length of the stored float16 descriptor, 1 but for rounding"),
        column("descriptor", pa.string(), "Model, digest of its weights and preprocessing: compared only where equal"),
    ],
)
CHECKS: list[dict[str, Any]] = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "norm", "min_value": 0.998, "max_value": 1.002}}]
PIECE = 512  # pictures of one resumable piece


def image_embeddings(images: pa.Table, embed: Callable[[pa.Table], np.ndarray], descriptor: str) -> tuple[pa.Table, np.ndarray]:
    """Metadata in order of image_id and, row-aligned, [n, d] float16 descriptors; embed maps rows of `images` to unit vectors."""
    pieces = [embed(images.slice(start, PIECE)) for start in range(0, images.num_rows, PIECE)]
    vectors = np.concatenate(pieces).astype(np.float16)
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    columns = {"image_id": images.column("image_id"), "image_path": images.column("key"), "caption": images.column("caption"),
               "norm": norms, "descriptor": [descriptor] * images.num_rows}
    return _tables.table(columns, SCHEMA), vectors[np.argsort(images.column("image_id").to_numpy())]


def main() -> None:
    """Embed every good image, in pieces that survive a kill; write data/image_embeddings."""
    settings, compute = _settings.settings("image_embeddings"), _settings.settings("compute")
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    model = _embedders.embedder(settings["descriptor"], settings["path"], compute["device"])
    images = _tables.read("images").filter(pc.field("status") == "ok").sort_by([(c, "ascending") for c in ("split", "shard", "position")])
    reader = _pictures.Reader()
    n_pieces = -(-images.num_rows // PIECE)
    bar = _shards.progress(range(n_pieces), n_pieces, f"image_embeddings: pieces of {PIECE}")

    def embed(rows: pa.Table) -> np.ndarray:
        next(bar)
        key = _shards.fingerprint(model.provenance(size_px), settings["version"], rows.column("pixel_digest").to_pylist())
        return _embedders.piece("image_embeddings", key, lambda: model.descriptors(map(reader.pixels, rows.to_pylist()), size_px))

    made, vectors = image_embeddings(images, embed, model.provenance(size_px))
    _embedders.write(made, vectors, CHECKS, "image_embeddings")


if __name__ == "__main__":
    _stage.run(main)
