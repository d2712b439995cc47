"""The DuckDB file: built beside its place from tables and SQL, checked, then renamed. The only file that imports duckdb."""

import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from tasks._settings import UserError

STORAGE_VERSION = "v1.5.0"  # the newest that DuckDB 1.5 clients read
OFFLINE: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
CONFINED: dict[str, Any] = {"enable_external_access": "false", "lock_configuration": "true"}  # no other file, and no query that says otherwise
N_EXAMPLES = 3
MAX_WIDTH, MAX_ROWS = 10_000, 10_000  # of a printed answer that is not shown on a terminal
UNSHOWN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # would turn or colour a terminal's lines
Source: TypeAlias = pa.Table | Sequence[Path]  # a table, or the Parquet files of which it is the union


def build(path: Path, sources: dict[str, Source], scripts: Iterable[Path], checks: Iterable[Path]) -> None:
    """Make the database at path anew: the scripts, in order, see each source as `source.<name>` and make tables and views.

    Columns of tables get the comments that the source of the same name carries, and NOT NULL where it has none. Raises UserError
    where a script or a check fails; then the database that was there before stays as it was.
    """
    beside = path.with_name(path.name + ".tmp")
    _remove(beside)
    try:
        with duckdb.connect(config=OFFLINE) as connection:
            connection.execute(f"attach {_text(beside)} as warehouse (storage_version '{STORAGE_VERSION}')")
            connection.execute("attach ':memory:' as source")
            for name, source in sources.items():
                _load(connection, name, source)
            connection.execute("use warehouse")
            for script in scripts:
                _run(connection, script)
            connection.execute("begin transaction")
            for name, source in sources.items():
                _describe(connection, name, _schemas_of(source))
            connection.execute("commit")
            for check in checks:
                require_no_row(connection, check)
            connection.execute("use memory; detach warehouse")
        os.replace(beside, path)
    finally:
        _remove(beside)


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """A reader's connection: it cannot write, and sees no other file. Raises UserError where there is no database, or a broken one."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; make it with `dvc repro warehouse`")
    try:
        return duckdb.connect(str(path), read_only=True, config=OFFLINE | CONFINED)
    except duckdb.Error as error:
        raise UserError(f"{path} cannot be opened: {_first_line(error)}; build it again with `dvc repro -f -s warehouse`") from None


def rows(path: Path, query: str) -> pa.Table:
    """What a query says. Raises UserError where the query is wrong or there is no database."""
    with connect(path) as connection:
        try:
            relation = connection.sql(query)
            if relation is None:
                raise UserError("the query cannot be answered: it asks for nothing")
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise UserError(f"the query cannot be answered: {_first_line(error)}") from None


def shown(path: Path, query: str, form: str) -> str:
    """What a query says as a table for people, CSV or JSON (form `table`, `csv` or `json`). Raises UserError where it is wrong.

    In CSV a list is its JSON. In JSON a number that is not finite is its name. In a table, what would steer a terminal is U+FFFD.
    """
    with connect(path) as connection:
        try:
            relation = connection.sql(query)
            if relation is None:
                return ""
            if form == "table":
                text = io.StringIO()
                with redirect_stdout(text):
                    relation.show(max_width=shutil.get_terminal_size((MAX_WIDTH, 0)).columns, max_rows=MAX_ROWS)
                return UNSHOWN.sub("\ufffd", text.getvalue().rstrip("\n"))
            answer = relation.to_arrow_table()
        except duckdb.Error as error:
            raise UserError(f"the query cannot be answered: {_first_line(error)}") from None
    twice = next((name for i, name in enumerate(answer.column_names) if name in answer.column_names[:i]), None)
    if form == "json" and twice is not None:
        raise UserError(f"two columns are named '{twice}', of which JSON keeps one; name them apart with `as`")
    if form == "json":
        return _json(answer.to_pylist(), indent=2)
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table([_written(column) for column in answer.columns], names=answer.column_names), sink)
    return str(sink.getvalue().to_pybytes().decode()).rstrip("\n")


def column_comments(schemas: Sequence[pa.Schema]) -> dict[str, str]:
    """Comment by column, from the metadata of the fields; of several schemas, what the last one says."""
    commented = [field for fields in schemas for field in fields if b"comment" in (field.metadata or {})]
    return {field.name: field.metadata[b"comment"].decode() for field in commented}


def filled_columns(schemas: Sequence[pa.Schema]) -> list[str]:
    """Columns that no schema lets be null, or lacks: an audit from before a column existed has none in it."""
    filled = [{field.name for field in fields if not field.nullable} for fields in schemas]
    return sorted(set.intersection(*filled)) if filled else []


def statement(script: Path) -> tuple[str, str]:
    """What the first line of a file says, and its SQL."""
    text = script.read_text(encoding="utf-8")
    return text.splitlines()[0].removeprefix("--").strip(), text


def require_no_row(connection: duckdb.DuckDBPyConnection, check: Path) -> None:
    """Raise UserError with what must hold and example rows where the check's query returns any."""
    rule, query = statement(check)
    try:
        broken = connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise UserError(f"{check}: {_first_line(error)}") from None
    if broken.num_rows:
        examples = "; ".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in broken.slice(0, N_EXAMPLES).to_pylist())
        raise UserError(f"{check}: {rule} Not so in {broken.num_rows} rows, as {examples}; the database is left as it was")


def _load(connection: duckdb.DuckDBPyConnection, name: str, source: Source) -> None:
    if isinstance(source, pa.Table):
        connection.register("registered", source)
        connection.execute(f"create table source.{name} as select * from registered")
        connection.unregister("registered")
        return
    files = ", ".join(_text(file) for file in source)
    union = f"read_parquet([{files}], union_by_name = true, hive_partitioning = false)"
    connection.execute(f"create view source.{name} as select * from {union}")


def _run(connection: duckdb.DuckDBPyConnection, script: Path) -> None:
    try:
        connection.execute("begin transaction")
        connection.execute(script.read_text(encoding="utf-8"))
        connection.execute("commit")  # where a key that is there twice comes to light
    except duckdb.Error as error:
        raise UserError(f"{script}: {_first_line(error)}; tables of an older version are made again by `dvc repro`") from None


def _schemas_of(source: Source) -> list[pa.Schema]:
    return [source.schema] if isinstance(source, pa.Table) else [pq.read_schema(file) for file in source]


def _describe(connection: duckdb.DuckDBPyConnection, table: str, schemas: Sequence[pa.Schema]) -> None:
    """Comments and NOT NULL of the columns that the table of this name has, if there is one."""
    listed = f"select column_name from duckdb_columns() where database_name = 'warehouse' and table_name = {_text(table)}"
    found = {column for column, in connection.execute(listed).fetchall()}
    for column, comment in column_comments(schemas).items():
        if column in found:
            connection.execute(f'comment on column "{table}"."{column}" is {_text(comment)}')
    for column in filled_columns(schemas):
        if column in found:
            connection.execute(f'alter table "{table}" alter column "{column}" set not null')


def _written(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column as CSV can hold it: what is nested becomes JSON, bytes and spans of time their text."""
    of = pa.types
    if of.is_nested(column.type):
        return pa.array([None if value is None else _json(value) for value in column.to_pylist()], pa.string())
    if of.is_interval(column.type) or of.is_binary(column.type) or of.is_large_binary(column.type) or of.is_binary_view(column.type):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    return column


def _json(value: Any, indent: int | None = None) -> str:
    """Valid JSON, which has no number for infinity and for what is no number: these are their names."""
    def finite(v: Any) -> Any:
        if isinstance(v, float) and not math.isfinite(v):
            return str(v)
        if isinstance(v, dict):
            return {key: finite(of_key) for key, of_key in v.items()}
        return [finite(one) for one in v] if isinstance(v, list | tuple) and not hasattr(v, "_fields") else v

    return json.dumps(finite(value), indent=indent, default=str, ensure_ascii=False, allow_nan=False)


def _text(value: str | Path) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _remove(beside: Path) -> None:
    for file in (beside, beside.with_name(beside.name + ".wal")):
        file.unlink(missing_ok=True)
