"""Every picture of the training set and of the held-out set. One row per training or held-out image.

A broken picture is a row with status `error` and its reason; nothing is skipped. Pictures stay where they are: shard and
position find them again.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks import _pictures, _settings, _shards, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures.distances import is_degenerate
from tasks.measures.identity import hash63, require_distinct

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "63-bit hash of (split, key): the same on every machine"),
        column("key", pa.string(), "The image's name in its source"),
        column("split", pa.string(), "member (was in the training set) or held_out (was not)"),
        column("caption", pa.string(), "Caption in the source; NULL where it has none", nullable=True),
        column("url", pa.string(), "Address in the source; NULL where it has none", nullable=True),
        column("shard", pa.string(), "File that holds the picture, relative to the source's root"),
        column("position", pa.int64(), "Row of the picture in its shard"),
        column("sha256", pa.string(), "Digest of the file's bytes; NULL where there are none", nullable=True),
        column("pixel_digest", pa.string(), "Digest of the canonical RGB pixels; NULL for an error", nullable=True),
        column("width_px", pa.int32(), "Width; NULL for an error", nullable=True),
        column("height_px", pa.int32(), "Height; NULL for an error", nullable=True),
        column("complexity_bytes", pa.int32(), "Size of the picture's JPEG at a fixed quality; NULL for an error", nullable=True),
        column("is_degenerate", pa.bool_(), "Pixel standard deviation below 0.04: never prompted, never matched; NULL for an error", nullable=True),
        column("status", pa.string(), "ok or error"),
        column("reason", pa.string(), "Why it is an error; NULL otherwise", nullable=True),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "split", "value_set": ["member", "held_out"]}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "status", "value_set": ["ok", "error"]}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "sha256", "value": 64}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "width_px", "min_value": 1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "height_px", "min_value": 1}},
]


def image(row: dict[str, Any], split: str, jpeg_quality: int) -> dict[str, Any]:
    """The table's row of one picture of a source."""
    made = {name: row.get(name) for name in ("key", "caption", "url", "shard", "position", "reason")}
    made |= {"image_id": hash63(split, row["key"]), "split": split, "status": "error", "sha256": None, "pixel_digest": None,
             "width_px": None, "height_px": None, "complexity_bytes": None, "is_degenerate": None}
    if row["data"] is None:
        return made
    made["sha256"] = hashlib.sha256(row["data"]).hexdigest()
    try:
        pixels = _pictures.canonical(row["data"])
    except _pictures.BadPicture as error:
        return {**made, "reason": str(error)}
    height, width = pixels.shape[:2]
    return {**made, "status": "ok", "reason": None, "pixel_digest": _pictures.pixel_digest(pixels), "width_px": width, "height_px": height,
            "complexity_bytes": _pictures.jpeg_size(pixels, jpeg_quality),
            "is_degenerate": bool(is_degenerate(pixels[None].astype("float32") / 255)[0])}


def images(sources: Iterator[tuple[str, dict[str, Any]]], *, jpeg_quality: int) -> pa.Table:
    """The table over (split, source row) pairs. Raises ValueError where two keys have one id."""
    made = _tables.table([image(row, split, jpeg_quality) for split, row in sources], SCHEMA)
    require_distinct(made.column("image_id").to_numpy(), "image_id (two rows of one split have the same key)")
    return made


def main() -> None:
    """Read both splits, write data/images."""
    made = images(_shards.progress(_source_rows(), None, "images"), **_settings.settings("images"))
    n_errors = sum(s == "error" for s in made.column("status").to_pylist())
    print(f"images: {made.num_rows} rows, {n_errors} errors")
    _tables.write(made, CHECKS, "images")


def _source_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for split, source in (("member", "members"), ("held_out", "held_out")):
        listed = _tables.read("inputs", side=source).to_pylist()
        if listed:
            root = Path(listed[0]["root"])
            yield from ((split, row) for row in _pictures.rows(listed[0]["format"], root, [r["path"] for r in listed]))


if __name__ == "__main__":
    _stage.run(main)
