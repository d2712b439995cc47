"""Tables under data/: where they are, how they are read, and the one way they are written (cast, check, rename)."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _checks
from tasks._schemas import keys_of
from tasks._settings import UserError

DATA = Path("data")


def folder(noun: str, release: str | None = None) -> Path:
    """data/<noun>[/<release>]."""
    return DATA / noun / release if release else DATA / noun


def path(noun: str, release: str | None = None, side: str | None = None) -> Path:
    """data/<noun>[/<release>]/<noun>.parquet, or <side>.parquet beside it."""
    return folder(noun, release) / f"{side or noun}.parquet"


def read(noun: str, release: str | None = None, side: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """A stage's table. Raises UserError with the command that makes it where it is missing."""
    source = path(noun, release, side)
    if not source.is_file():
        stage = f"{noun}@{release}" if release else noun
        raise UserError(f"{source} is missing; make it with `dvc repro {stage}`")
    return pq.read_table(source, columns=columns)


def table(columns: dict[str, Any] | list[dict[str, Any]], table_schema: pa.Schema) -> pa.Table:
    """Columns or rows as a table of this schema, sorted by its keys. Raises UserError naming a column that is not as said."""
    names = set(columns) if isinstance(columns, dict) else set(columns[0]) if columns else set(table_schema.names)
    if names != set(table_schema.names):
        raise ValueError(f"columns missing {sorted(set(table_schema.names) - names)}, unexpected {sorted(names - set(table_schema.names))}")
    if isinstance(columns, dict):
        arrays = [pa.array(_plain(columns[f.name]), f.type, from_pandas=True) for f in table_schema]
        made = pa.Table.from_arrays(arrays, schema=table_schema)
    else:
        made = pa.Table.from_pylist([{k: _plain_value(v) for k, v in row.items()} for row in columns], table_schema)
    return made.sort_by([(key, "ascending") for key in keys_of(table_schema)])


def _plain(values: Any) -> Any:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _plain_value(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and value != value else value


def write(made: pa.Table, checks: list[dict[str, Any]], noun: str, release: str | None = None, side: str | None = None) -> None:
    """Check a table, then give it its name; what the checks said is kept beside it as checks.parquet.

    A table that fails is kept as <name>.rejected.parquet. Raises UserError with table, expectation, column and examples.
    """
    target = path(noun, release, side)
    results = _checks.results(made, checks, f"{noun}.{side}" if side else noun)
    failed = [r for r in results if not r["is_passed"]]
    if failed:
        rejected = target.with_suffix(".rejected.parquet")
        put(made, rejected)
        raise UserError("; ".join(r["message"] for r in failed[:3]) + f"; the rejected table is {rejected}")
    put(made, target)
    _append_checks(results, folder(noun, release), release)


def _append_checks(results: list[dict[str, Any]], where: Path, release: str | None) -> None:
    target = where / "checks.parquet"
    rows = pq.read_table(target).to_pylist() if target.is_file() else []
    written = {r["table_name"] for r in results}
    rows = [r for r in rows if r["table_name"] not in written]
    rows += [{**{k: r[k] for k in _checks.SCHEMA.names if k != "release"}, "release": release} for r in results]
    put(table(rows, _checks.SCHEMA), target)


def checked() -> list[dict[str, Any]]:
    """What the checks of all tables under data/ said: rows of checks, in the order of the folders."""
    files = sorted(DATA.glob("**/checks.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def named(table_name: str, release: str | None = None) -> pa.Table:
    """The table that rows of checks are about: <stage>, or <stage>.<side table>."""
    noun, _, side = table_name.partition(".")
    return read(noun, release, side or None)


def rejected() -> list[Path]:
    """Tables under data/ that failed their checks and were kept for a look."""
    return sorted(DATA.glob("**/*.rejected.parquet"))


def put(made: pa.Table, target: Path) -> None:
    """Write a Parquet file beside its place and rename it: readers see the old one or the new one, never half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(made, temporary, compression="zstd", row_group_size=1 << 16)
    os.replace(temporary, target)


def put_array(values: np.ndarray, target: Path) -> None:
    """Write an .npy file beside its place and rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, values)
    os.replace(temporary, target)


def scratch(shape: tuple[int, ...], kind: Any, where: Path) -> np.ndarray:
    """An array on disk instead of in memory, without a name: the system takes its file away with it."""
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=where) as file:
        return np.memmap(file, kind, "w+", shape=shape)


def put_text(text: str, target: Path) -> None:
    """Write a text file beside its place and rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, target)


def put_bytes(data: bytes, target: Path) -> None:
    """Write a binary file beside its place and rename it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, target)


def file_digest(source: Path) -> str:
    """The file's sha256, 64 hexadecimal digits."""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metadata(noun: str, release: str | None = None) -> Iterator[pa.Table]:
    """The metadata of a clip-retrieval folder, partition by partition."""
    yield from (pq.read_table(part) for part in sorted((folder(noun, release) / "metadata").glob("metadata_*.parquet")))


def descriptors(noun: str, release: str | None = None) -> tuple[pa.Table, np.ndarray]:
    """Metadata and descriptors [n, d] float32 of unit length, row-aligned over all partitions of a clip-retrieval folder.

    Raises UserError naming the partition whose two files do not match.
    """
    where = folder(noun, release)
    tables, arrays = [], []
    for part in sorted((where / "metadata").glob("metadata_*.parquet")):
        tables.append(pq.read_table(part))
        partition = part.stem.removeprefix("metadata_")
        array = np.load(where / "img_emb" / f"img_emb_{partition}.npy", allow_pickle=False).astype(np.float32)
        if len(array) != tables[-1].num_rows:
            raise UserError(f"{where}: partition {partition} has {len(array)} descriptors for {tables[-1].num_rows} metadata rows")
        arrays.append(array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12))
    if not tables:
        raise UserError(f"{where} has no descriptors; make them with `dvc repro {noun}{'@' + release if release else ''}`")
    return pa.concat_tables(tables), np.concatenate(arrays)
