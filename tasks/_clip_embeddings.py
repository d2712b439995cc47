"""clip-retrieval's folders: descriptors without pictures, img_emb/img_emb_{b}.npy, each with its rows in metadata/metadata_{b}.parquet."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _files, _rows
from tasks._settings import UserError

ROWS = 1 << 14  # read at a time
ARRAY, TABLE = "img_emb/img_emb_", "metadata/metadata_"


def partitions(root: str, names: list[str]) -> list[tuple[str, str, int, int]]:
    """Array, table, rows and numbers a row of each partition, in order.

    Raises UserError naming the partition whose two files do not match, or that is no plain array of numbers.
    """
    arrays, tables = ({n.removeprefix(start).rsplit(".", 1)[0]: n for n in names if n.startswith(start)} for start in (ARRAY, TABLE))
    found: list[tuple[str, str, int, int]] = []
    for part in sorted(arrays.keys() | tables.keys()):
        if part not in arrays or part not in tables:
            missing = f"{TABLE}{part}.parquet" if part in arrays else f"{ARRAY}{part}.npy"
            raise UserError(f"{root}: partition {part} has no {missing}; descriptors and metadata are read side by side")
        shape, n_rows = _shape(root, arrays[part]), _n_rows(root, tables[part])
        if shape[0] != n_rows:
            raise UserError(f"{root}: partition {part} has {shape[0]} descriptors for {n_rows} metadata rows; make both files again, rows would be mixed up")
        if found and found[0][3] != shape[1]:
            raise UserError(f"{root}: partition {part} has {shape[1]} numbers a descriptor, the first {found[0][3]}; they are not of one model")
        found.append((arrays[part], tables[part], *shape))
    return found


def _shape(root: str, name: str) -> tuple[int, int]:
    try:
        with _files.opened(root, name) as file:
            version = np.lib.format.read_magic(file)
            shape, _, kind = (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    except (_files.Unreadable, ValueError, EOFError) as error:
        raise UserError(f"{root}/{name} is not readable as an array: {error}") from None
    if len(shape) != 2 or kind.kind != "f":
        raise UserError(f"{root}/{name} is {kind} of shape {shape}; descriptors are [n, d] of floats, and pickled ones are never loaded")
    return int(shape[0]), int(shape[1])


def _n_rows(root: str, name: str) -> int:
    try:
        with _files.opened(root, name) as file:
            return int(pq.read_metadata(file).num_rows)
    except (_files.Unreadable, pa.ArrowException, OSError) as error:
        raise UserError(f"{root}/{name} is not readable as Parquet: {error}") from None


def rows(root: str, array: str, table: str) -> Iterator[dict[str, Any]]:
    """The rows of a partition, without pictures: size and sha256 as the metadata have them. A row has a reason where its descriptor has no direction."""
    position, vectors = 0, descriptors(root, array)
    with _files.opened(root, table) as opened:
        file = pq.ParquetFile(opened)
        names = _rows.columns(file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=list(names.values())):
            lengths = np.linalg.norm(vectors[position:position + len(batch)].astype(np.float32), axis=1)
            for length, *values in zip(lengths, *(_rows.plain(batch.column(batch.schema.get_field_index(n))) for n in names.values()), strict=True):
                yield _row(dict(zip(names, values, strict=True)), array, position, float(length))
                position += 1


def _row(fields: dict[str, Any], array: str, position: int, length: float) -> dict[str, Any]:
    key = next((said for said in (_rows.text(fields.get(name)) for name in ("image_path", "key", "url")) if said), f"{array}#{position}")
    reason = None if np.isfinite(length) and length > 0 else "its descriptor is not finite" if not np.isfinite(length) else "its descriptor is all zeros"
    sha256 = (_rows.text(fields.get("sha256")) or "").lower()
    row = _rows.row(key, array, position, caption=fields.get("caption"), url=fields.get("url"), reason=reason)
    sizes = {name: _size(fields.get(name)) for name in ("width_px", "height_px")}
    return row | sizes | {"sha256": sha256 if _rows.SHA256.fullmatch(sha256) else None}


def _size(value: Any) -> int | None:
    """A size in px; pandas writes those of a column with gaps as floats."""
    return int(value) if isinstance(value, int | float) and 1 <= value < 1 << 31 else None


def descriptors(root: str, array: str) -> np.ndarray:
    """[n, d] of a partition, in place where it is on this machine. Raises UserError for what is no plain array: nothing is unpickled."""
    try:
        if not _files.is_remote(root):
            with _files.opened(root, array) as file:
                return np.asarray(np.load(file.name, mmap_mode="r", allow_pickle=False))
        with _files.opened(root, array) as file:
            return np.asarray(np.load(io.BytesIO(file.read()), allow_pickle=False))
    except (_files.Unreadable, ValueError, EOFError) as error:
        raise UserError(f"{root}/{array} is not readable as an array: {error}") from None
