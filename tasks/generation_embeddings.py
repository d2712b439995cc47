"""Copy-detection descriptors of the generations. One row per generation.

Of those whose picture is kept. Made with the same model and the same preprocessing as those of the training set's pictures, and
refused where these differ; the clip-retrieval layout.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _embedders, _library, _pictures, _settings, _shards, _stage, _tables
from tasks._schemas import column, schema
from tasks._settings import UserError

SCHEMA = schema(
    ["generation_id"],
    [
        column("generation_id", pa.int64(), "The generation described"),
        column("release", pa.string(), "Release under audit"),
        column("image_path", pa.string(), "Shard and row of its picture"),
        column("norm", pa.float32(), "Length of the stored float16 descriptor, 1 but for rounding"),
        column("descriptor", pa.string(), "Model, digest of its weights and preprocessing: compared only where equal"),
    ],
)
CHECKS: list[dict[str, Any]] = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "norm", "min_value": 0.998, "max_value": 1.002}}]
PIECE = 512  # pictures of one resumable piece


def generation_embeddings(generations: pa.Table, embed: Callable[[pa.Table], np.ndarray], descriptor: str) -> tuple[pa.Table, np.ndarray]:
    """Metadata in order of generation_id and, row-aligned, [n, d] float16 descriptors; embed maps rows to unit vectors."""
    vectors = np.concatenate([embed(generations.slice(start, PIECE)) for start in range(0, generations.num_rows, PIECE)]).astype(np.float16)
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    places = [f"{shard}#{row}" for shard, row in zip(generations.column("shard").to_pylist(), generations.column("position").to_pylist(), strict=True)]
    columns = {"generation_id": generations.column("generation_id"), "release": generations.column("release"), "image_path": places,
               "norm": norms, "descriptor": [descriptor] * generations.num_rows}
    return _tables.table(columns, SCHEMA), vectors[np.argsort(generations.column("generation_id").to_numpy())]


def require_same(ours: str, theirs: list[str]) -> None:
    """Raise UserError where descriptors of pictures that generations are compared with were made otherwise."""
    for other in theirs:
        if other != ours:
            raise UserError(f"the training set was described by '{other}', generations would be by '{ours}'; run `dvc repro image_embeddings` first")


def main(release: str) -> None:
    """Embed every generation, in pieces that survive a kill; write data/generation_embeddings/<release>."""
    settings = _settings.settings("image_embeddings")
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    model = _embedders.embedder(settings["descriptor"], settings["path"], _settings.settings("compute")["device"])
    require_same(model.provenance(size_px), _compared_by())
    generations = _tables.read("generations", release).filter(pc.field("status") != "not_kept")
    generations = generations.sort_by([("shard", "ascending"), ("position", "ascending")])
    reader = _pictures.GenerationReader(release)
    n_pieces = -(-generations.num_rows // PIECE)
    bar = _shards.progress(range(n_pieces), n_pieces, f"generation_embeddings: '{release}', pieces of {PIECE}")

    def embed(rows: pa.Table) -> np.ndarray:
        next(bar)
        key = _shards.fingerprint(model.provenance(size_px), settings["version"], rows.column("sha256").to_pylist())
        return _embedders.piece("generation_embeddings", key, lambda: model.descriptors(map(reader.pixels, rows.to_pylist()), size_px))

    made, vectors = generation_embeddings(generations, embed, model.provenance(size_px))
    _embedders.write(made, vectors, CHECKS, "generation_embeddings", release)


def _compared_by() -> list[str]:
    """How the pictures that can be compared were described: one way, or none where there are none."""
    images = _tables.read("images", columns=["image_id", "split", "pixel_digest", "status"])
    shown = images["image_id"].filter(pa.array(_library.comparable(images))).combine_chunks()
    found = [part.filter(pc.is_in(part["image_id"], shown))["descriptor"] for part in _tables.metadata("image_embeddings")]
    return sorted({descriptor for part in found for descriptor in pc.unique(part).to_pylist()})


if __name__ == "__main__":
    _stage.run(main)
