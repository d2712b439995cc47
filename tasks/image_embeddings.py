"""Copy-detection descriptors of the training and held-out images. One row per picture.

The clip-retrieval layout: img_emb/img_emb_{k}.npy (float16, unit length), row-aligned with metadata/metadata_{k}.parquet. Where the
training set is embeddings without pictures, these are they.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _clip_embeddings, _embedders, _settings, _shards, _stage, _tables, _training_sets
from tasks._schemas import column, schema
from tasks._settings import UserError

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "The picture described"),
        column("image_path", pa.string(), "Its key in the source (the name clip-retrieval's readers expect)"),
        column("caption", pa.string(), "Its caption; NULL where it has none", nullable=True),
        column("norm", pa.float32(), "Length of the stored float16 descriptor, 1 but for rounding"),
        column("descriptor", pa.string(), "Model, digest of its weights and preprocessing, or `given` and a digest: compared only where equal"),
    ],
)
CHECKS: list[dict[str, Any]] = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "norm", "min_value": 0.998, "max_value": 1.002}}]
RUN = 512  # pictures of one resumable piece, about
GIVEN_ROWS = 1 << 16  # of given descriptors, read at a time


def ranks(image_ids: np.ndarray) -> np.ndarray:
    """[n] place of each row in order of image_id: the order of the table and of its descriptors."""
    made = np.empty(len(image_ids), np.int64)
    made[np.argsort(image_ids)] = np.arange(len(image_ids))
    return made


def unit(vectors: np.ndarray) -> np.ndarray:
    """[n, d] float16 of unit length."""
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float16)


def image_embeddings(images: pa.Table, norms: np.ndarray, descriptor: str) -> pa.Table:
    """The table in order of image_id; norms [n] are the lengths of the stored descriptors, row by row with `images`."""
    return _tables.table({"image_id": images.column("image_id"), "image_path": images.column("key"), "caption": images.column("caption"),
                          "norm": norms, "descriptor": [descriptor] * images.num_rows}, SCHEMA)


def main() -> None:
    """Describe every good image, in pieces that survive a kill; write data/image_embeddings."""
    found = _training_sets.sources()
    order = [(c, "ascending") for c in ("split", "shard", "position")]
    images = _tables.read("images").filter(pc.field("status") == "ok").sort_by(order)
    given = _training_sets.given(found)
    descriptor, parts = (given, _given(images, found)) if given else _described(images)
    norms, vectors = _scattered(parts, ranks(images.column("image_id").to_numpy()))
    _embedders.write(image_embeddings(images, norms, descriptor), vectors, CHECKS, "image_embeddings")


def _scattered(parts: Iterator[np.ndarray], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of all descriptors [n, d] float16 that come in parts, in their order, and a file of them at their places."""
    norms, vectors, start = np.zeros(len(places), np.float32), np.zeros((len(places), 0), np.float16), 0
    for part in parts:
        if not start:
            vectors = _tables.scratch((len(places), part.shape[1]), np.float16, _shards.WORK / "image_embeddings")
        norms[start:start + len(part)] = np.linalg.norm(part.astype(np.float32), axis=1)
        vectors[places[start:start + len(part)]] = part
        start += len(part)
    return norms, vectors


def _given(images: pa.Table, found: dict[str, _training_sets.Source]) -> Iterator[np.ndarray]:
    """The descriptors that the source brings, of the rows of `images` in their order."""
    for (split, shard), rows in groupby(images.select(["split", "shard", "position"]).to_pylist(), lambda r: (r["split"], r["shard"])):
        vectors, positions = _clip_embeddings.descriptors(found[split].root, shard), np.array([row["position"] for row in rows])
        for start in range(0, len(positions), GIVEN_ROWS):
            yield unit(vectors[positions[start:start + GIVEN_ROWS]])


def _described(images: pa.Table) -> tuple[str, Iterator[np.ndarray]]:
    """Provenance, and the descriptors of the rows of `images` in their order, run by run."""
    settings, compute = _settings.settings("image_embeddings"), _settings.settings("compute")
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    asked = (settings["descriptor"], settings["path"], compute["device"])
    provenance = _embedders.embedder(*asked).provenance(size_px)
    rows = images.select(["pixel_digest", "split", "shard", "position"])
    digests = rows.column("pixel_digest").to_pylist()
    keys, splits, shards = (images.column(name).to_pylist() for name in ("key", "split", "shard"))
    runs = _shards.runs(keys, RUN, list(zip(splits, shards, strict=True)))  # not by digest: that of a picture with many copies would end a run at each
    items = [(_shards.fingerprint(provenance, settings["version"], digests[run.start:run.stop]),
              (rows.slice(run.start, len(run)).to_pylist(), size_px, asked, provenance)) for run in runs]
    pieces = _shards.pieces("image_embeddings", "tasks.image_embeddings:_piece", items, compute.get("dask"))
    return provenance, map(_embedders.vectors, pieces)


def _piece(rows: list[dict[str, Any]], size_px: int, asked: tuple[str, str | None, str], provenance: str) -> pa.Table:
    """The descriptors of one run; a picture that is in it more than once is described once."""
    model = _model(*asked, provenance)
    if model.provenance(size_px) != provenance:
        raise UserError(f"a worker of compute.dask describes by '{model.provenance(size_px)}', the stage by '{provenance}'; give them the same weights")
    first = {row["pixel_digest"]: row for row in reversed(rows)}
    reader = _training_sets.reader()
    shown = [first[digest] for digest in dict.fromkeys(row["pixel_digest"] for row in rows)]
    number = {row["pixel_digest"]: i for i, row in enumerate(shown)}
    made = model.descriptors((pixels for _, pixels in reader.small(shown, size_px)), size_px).astype(np.float16)  # in the order of the source
    return _embedders.stored(made[[number[row["pixel_digest"]] for row in rows]])


@lru_cache(maxsize=1)
def _model(descriptor: str, path: str | None, device: str, _provenance: str) -> _embedders.Embedder:
    """One model per process, loaded again where its weights have changed."""
    return _embedders.embedder(descriptor, path, device)


if __name__ == "__main__":
    _stage.run(main)
