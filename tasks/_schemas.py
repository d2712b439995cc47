"""What a table's columns are: the vocabulary of every SCHEMA."""

from collections.abc import Iterable, Sequence

import pyarrow as pa


def column(name: str, kind: pa.DataType, comment: str, *, nullable: bool = False) -> pa.Field:
    """A column of a SCHEMA: its comment travels with the Parquet file and into DuckDB's data dictionary."""
    return pa.field(name, kind, nullable=nullable, metadata={"comment": comment})


def schema(keys: Sequence[str], columns: Iterable[pa.Field]) -> pa.Schema:
    """A table's columns, in order, with the columns that identify a row (and by which rows are sorted)."""
    return pa.schema(list(columns), metadata={"keys": ",".join(keys)})


def keys_of(table_schema: pa.Schema) -> list[str]:
    """The key columns that `schema` recorded."""
    return table_schema.metadata[b"keys"].decode().split(",")
