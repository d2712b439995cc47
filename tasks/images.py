"""Every picture of the training set and of the held-out set. One row per training or held-out image.

A broken picture is a row with status `error` and its reason; nothing is skipped. Pictures stay where they are: shard and
position find them again. Of a source of descriptors alone there is a row for each, without what only a picture shows.
"""

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from tasks import _pictures, _settings, _shards, _stage, _tables, _training_sets
from tasks._schemas import column, schema
from tasks.measures.identity import hash63, require_distinct

SCHEMA = schema(
    ["image_id"],
    [
        column("image_id", pa.int64(), "63-bit hash of (split, key): the same on every machine"),
        column("key", pa.string(), "The image's name in its source; its shard and position before it where others have that name too"),
        column("split", pa.string(), "member (was in the training set) or held_out (was not)"),
        column("caption", pa.string(), "Caption in the source; NULL where it has none", nullable=True),
        column("url", pa.string(), "Address in the source; NULL where it has none", nullable=True),
        column("shard", pa.string(), "File that holds the picture (or its descriptor), relative to the source's root"),
        column("position", pa.int64(), "Row of the picture in its shard; in a tar, of the sample"),
        column("sha256", pa.string(), "Digest of the file's bytes; NULL where there are none", nullable=True),
        column("pixel_digest", pa.string(), "Digest of the canonical RGB pixels; NULL for an error or without pictures", nullable=True),
        column("pdq", pa.string(), "PDQ hash of the canonical pixels, 64 hexadecimal digits; NULL for an error or without pictures", nullable=True),
        column("pdq_quality", pa.int32(), "PDQ's quality, 0 to 100: below 50 the hash tells little apart; NULL as for pdq", nullable=True),
        column("width_px", pa.int32(), "Width; NULL for an error", nullable=True),
        column("height_px", pa.int32(), "Height; NULL for an error", nullable=True),
        column("complexity_bytes", pa.int32(), "Size of the picture's JPEG at a fixed quality; NULL for an error or without pictures", nullable=True),
        column("is_degenerate", pa.bool_(), "Pixel standard deviation below 0.04: never prompted, never matched; NULL for an error or without pictures",
               nullable=True),
        column("status", pa.string(), "ok or error"),
        column("reason", pa.string(), "Why it is an error, or what the canonical decode had to do; NULL for an ordinary picture", nullable=True),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "split", "value_set": ["member", "held_out"]}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "status", "value_set": ["ok", "error"]}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "sha256", "value": 64}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "pdq", "value": 64}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "pdq_quality", "min_value": 0, "max_value": 100}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "width_px", "min_value": 1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "height_px", "min_value": 1}},
]
ROUNDS = 8  # of telling keys apart; a source that was made to defeat it is refused


def image(row: dict[str, Any], split: str, jpeg_quality: int) -> dict[str, Any]:
    """The table's row of one row of a source."""
    made = {name: row.get(name) for name in SCHEMA.names} | {"image_id": hash63(split, row["key"]), "split": split, "status": "error"}
    notes = row.get("notes", [])
    if row["data"] is None:
        return made if row["reason"] else made | {"status": "ok", "reason": "; ".join(notes) or None}
    made["sha256"] = hashlib.sha256(row["data"]).hexdigest()
    try:
        measured = _pictures.measured(row["data"], row.get("name"), jpeg_quality)
    except _pictures.BadPicture as error:
        return made | {"reason": str(error)}
    return {**made, **measured["columns"], "status": "ok", "reason": "; ".join([*measured["notes"], *notes]) or None}


def told_apart(made: pa.Table) -> pa.Table:
    """The rows with keys that are one row's alone: those that repeat within a split get their shard before them, then their position too.

    Which key a row gets depends on all rows, so that it is settled here and not in a piece.
    """
    ids = made["image_id"].to_numpy().copy()
    if not len(_repeated(ids)):
        return made
    rows = made.select(["split", "shard", "position", "key"]).to_pylist()
    for n in range(ROUNDS):
        for i in _repeated(ids):
            row = rows[i]
            place = f"{row['shard']}#{row['position']}" if n else row["shard"]
            row["key"] = f"{place}/{row['key']}"
            ids[i] = hash63(row["split"], row["key"])
    keys = pa.array([row["key"] for row in rows], pa.string())
    return made.set_column(0, SCHEMA.field("image_id"), pa.array(ids)).set_column(1, SCHEMA.field("key"), keys)


def _repeated(ids: np.ndarray) -> np.ndarray:
    """The rows whose id is another row's too."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse] > 1)


def images(pieces: list[pa.Table]) -> pa.Table:
    """The table over the rows of all pieces. Raises ValueError where two rows have one id all the same."""
    made = told_apart(pa.concat_tables([SCHEMA.empty_table(), *pieces]))
    made = _tables.table({name: made[name] for name in SCHEMA.names}, SCHEMA)
    require_distinct(made.column("image_id").to_numpy(), "image_id (two rows of one split have the same key)")
    return made


def main() -> None:
    """Read both splits in pieces that survive a kill; write data/images."""
    settings, found = _settings.settings("images"), _training_sets.sources()
    items = [(_shards.fingerprint(source.split, source.form, depends, settings), (source.split, source.form, source.root, place, settings["jpeg_quality"]))
             for source in found.values() for depends, place in source.pieces()]
    made = images(list(_shards.pieces("images", "tasks.images:_piece", items, _settings.settings("compute").get("dask"))))
    reasons = Counter(str(r).partition(":")[0] for r, s in zip(made["reason"].to_pylist(), made["status"].to_pylist(), strict=True) if s == "error")
    print(f"images: {made.num_rows} rows, {reasons.total()} errors")
    for reason, n in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])):
        print(f"images: {n} x {reason}")
    _tables.write(made, CHECKS, "images")


def _piece(split: str, form: str, root: str, place: tuple[Any, ...], jpeg_quality: int) -> pa.Table:
    """The rows of one piece, measured by threads."""
    rows = _training_sets.rows(form, root, place)
    return pa.Table.from_pylist(list(_shards.in_order(lambda row: image(row, split, jpeg_quality), rows)), SCHEMA)


if __name__ == "__main__":
    _stage.run(main)
