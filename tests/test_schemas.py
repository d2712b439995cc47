"""A column's comment and a table's keys travel with the file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _schemas

SCHEMA = _schemas.schema(["a", "b"], [_schemas.column("a", pa.int64(), "first key"), _schemas.column("b", pa.string(), "second key", nullable=True)])


def test_keys_are_those_that_were_named_in_their_order() -> None:
    assert _schemas.keys_of(SCHEMA) == ["a", "b"]


def test_comments_and_nullability_survive_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}, SCHEMA), tmp_path / "t.parquet")
    read = pq.read_schema(tmp_path / "t.parquet")
    assert [(f.metadata[b"comment"], f.nullable) for f in read] == [(b"first key", False), (b"second key", True)]
    assert _schemas.keys_of(read) == ["a", "b"]
