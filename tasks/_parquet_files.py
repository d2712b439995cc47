"""Parquet files with pictures in them: as Hugging Face has them (struct<bytes, path>), as plain bytes, or as img2dataset writes them (jpg, txt)."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import _files, _rows
from tasks._settings import UserError

ROWS = 1024  # of a piece, at least: consecutive row groups of one file
BATCH = 32  # rows read at a time: pictures are large
BLOCK_BYTES = 1 << 25  # of pictures held to find one again: a row group where it is smaller
_WANTED = ("image", "key", "caption", "url", "status", "error_message")
READABLE = (pa.ArrowException, OSError, _files.Unreadable)


def groups(root: str, shard: str) -> list[tuple[int, int, int]]:
    """The pieces of a file: first row, and first and last row group (excluded). Raises UserError where it has no pictures that we know."""
    try:
        with _files.opened(root, shard) as opened:
            metadata = pq.ParquetFile(opened).metadata
            _require_pictures(root, shard, metadata.schema.to_arrow_schema())
    except READABLE:
        return [(0, 0, 0)]  # `rows` says why
    found, start, n, row = list[tuple[int, int, int]](), 0, 0, 0
    for group in range(metadata.num_row_groups):
        n += metadata.row_group(group).num_rows
        if n >= ROWS or group == metadata.num_row_groups - 1:
            found.append((row, start, group + 1))
            start, row, n = group + 1, row + n, 0
    return found or [(0, 0, 0)]


def rows(root: str, shard: str, position: int, first: int, last: int) -> Iterator[dict[str, Any]]:
    """The rows of some row groups of a file, from this position on. What cannot be read, a row group or the file, is one row that says so."""
    try:
        file = pq.ParquetFile(_files.opened(root, shard), buffer_size=1 << 20, pre_buffer=False)
        names = _rows.columns(file.schema_arrow.names)
    except READABLE as error:
        yield _rows.error(f"{shard}#{position}", shard, position, f"not readable as Parquet: {_first_line(error)}")
        return
    with file:
        for group in range(first, last):
            stop = position + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(BATCH, [group], [c for n, c in names.items() if n in _WANTED], use_threads=False):
                    for fields in _fields(batch, names):
                        yield _row(fields, names["image"], shard, position)
                        position += 1
            except READABLE as error:
                yield _rows.error(f"{shard}#{position}", shard, position, f"rows {position} to {stop - 1} are not readable as Parquet: {_first_line(error)}")
            position = stop


def _require_pictures(root: str, shard: str, schema: pa.Schema) -> None:
    column = _rows.columns(schema.names).get("image")
    kind = schema.field(column).type if column is not None else None
    if kind is not None and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0) and not _is_bytes(kind):
        raise UserError(f"{root}/{shard}: column {column} is {kind}; pictures are struct<bytes, path> or binary")
    if column is None:
        raise UserError(f"{root}/{shard} has no column image (struct<bytes, path> or binary; or jpg, png, webp); it has {', '.join(schema.names)}")


def _is_bytes(kind: pa.DataType) -> bool:
    return any(is_so(kind) for is_so in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary))


def _fields(batch: pa.RecordBatch, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The batch's rows under our names; text as bytes, so that what is not UTF-8 is a row's matter."""
    columns: dict[str, list[Any]] = {}
    for ours, theirs in names.items():
        if ours not in _WANTED:
            continue
        column = batch.column(batch.schema.get_field_index(theirs))
        if pa.types.is_struct(column.type):
            present = [column.type.field(i).name for i in range(column.type.num_fields)]
            columns |= {f"image_{part}": _rows.plain(pc.struct_field(column, part)) for part in ("bytes", "path") if part in present}
        else:
            columns["image_bytes" if ours == "image" else ours] = _rows.plain(column)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _row(fields: dict[str, Any], column: str, shard: str, position: int) -> dict[str, Any]:
    path, key, suffix = _rows.text(fields.get("image_path")), None, f".{column.lower()}"
    if column.lower() != "image":  # img2dataset's: its keys are unique in the set
        key = _rows.text(fields.get("key"))
        path = f"{key}{suffix}" if key else None
    failed = _rows.failure(fields) if column.lower() != "image" else None
    reason = failed or (None if fields.get("image_bytes") else "no bytes" if fields.get("image_bytes") is None else "empty file")
    return _rows.row(key or path or f"{shard}#{position}", shard, position, name=path, caption=fields.get("caption"), url=fields.get("url"),
                     data=None if reason else fields["image_bytes"], reason=reason)


class Blocks:
    """The bytes of pictures by their place, a block of a row group at a time: a row group, or 32 MB of it; the last two stay."""

    def __init__(self, root: str, shard: str) -> None:
        try:
            self.file = pq.ParquetFile(_files.opened(root, shard), buffer_size=1 << 20, pre_buffer=False)
        except READABLE as error:
            raise UserError(f"{root}/{shard}: {_first_line(error)}; it has changed since `images` was made, run `dvc repro`") from None
        self.column, self.lock = _rows.columns(self.file.schema_arrow.names)["image"], Lock()
        self.starts = [0]
        for group in range(self.file.metadata.num_row_groups):
            self.starts.append(self.starts[-1] + self.file.metadata.row_group(group).num_rows)
        self.group, self.next, self.rest = -1, 0, iter(())
        self.held: deque[tuple[int, pa.Array]] = deque(maxlen=2)  # threads that go in order are a little apart

    def picture(self, position: int) -> bytes:
        """The encoded picture in this row of the file."""
        with self.lock:
            while True:
                for start, block in self.held:
                    if start <= position < start + len(block):
                        return bytes(block[position - start].as_py())
                group = bisect_right(self.starts, position) - 1
                if group != self.group or position < self.next:
                    self.group, self.next, self.rest = group, self.starts[group], self._read(group)
                self.held.append((self.next, next(self.rest)))
                self.next += len(self.held[-1][1])

    def _read(self, group: int) -> Iterator[pa.Array]:
        rows = self.file.metadata.row_group(group)
        n_bytes = sum(rows.column(i).total_uncompressed_size for i in range(rows.num_columns) if _is_of(rows.column(i).path_in_schema, self.column))
        size = max(1, min(rows.num_rows, rows.num_rows * BLOCK_BYTES // max(n_bytes, 1)))
        for batch in self.file.iter_batches(size, [group], [self.column], use_threads=False):
            column = batch.column(0)
            yield pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _is_of(path: str, column: str) -> bool:
    return path.split(".")[0] == column


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
