"""The database is built beside its place and renamed, answers in three forms, and lets nobody out of it."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _database, _schemas
from tasks._settings import UserError

SCHEMA = _schemas.schema(["a"], [_schemas.column("a", pa.int64(), "the key"), _schemas.column("b", pa.string(), "some text")])
PATH = Path("t.duckdb")


@pytest.fixture
def built(in_folder: Path) -> Path:
    Path("t.sql").write_text("-- Things. One row per thing.\ncreate table t as select a, b from source.t;")
    Path("check.sql").write_text("-- No a is negative.\nselect a from t where a < 0")
    _database.build(PATH, {"t": pa.table({"a": [1, 2], "b": ["x, y", 'say "z"']}, SCHEMA)}, [Path("t.sql")], [Path("check.sql")])
    return in_folder


def test_a_column_has_the_comment_of_its_schema(built: Path) -> None:
    assert _database.rows(PATH, "select comment from duckdb_columns() where table_name = 't'").column(0).to_pylist() == ["the key", "some text"]


def test_a_column_is_not_null_where_no_source_lets_it_be(in_folder: Path) -> None:
    Path("t.sql").write_text("create table t as from source.t; create view v as select a from t; alter table t add primary key (a);")
    nullable = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.int64()), pa.field("c", pa.int64(), nullable=False)])
    older = pa.table({"a": [2], "b": [1]}, schema=pa.schema([nullable.field("a"), nullable.field("b")]))
    for name, table in (("new", pa.table({"a": [1], "b": [None], "c": [3]}, schema=nullable)), ("old", older)):
        pq.write_table(table, f"{name}.parquet")
    filled = "select column_name from duckdb_columns() where table_name = 't' and not is_nullable"
    _database.build(PATH, {"t": [Path("new.parquet")]}, [Path("t.sql")], [])
    assert _database.rows(PATH, filled).column(0).to_pylist() == ["a", "c"]
    _database.build(PATH, {"t": [Path("new.parquet"), Path("old.parquet")]}, [Path("t.sql")], [])
    assert _database.rows(PATH, filled).column(0).to_pylist() == ["a"], "an audit from before the column has none in it"


def test_a_key_that_is_there_twice_is_named_and_leaves_the_old_file(built: Path) -> None:
    before = PATH.read_bytes()
    Path("t.sql").write_text("create table t as select a, b from source.t; alter table t add primary key (a);")
    with pytest.raises(UserError, match=r"t\.sql: .*(duplicate|unique|key)"):
        _database.build(PATH, {"t": pa.table({"a": [1, 1], "b": ["x", "y"]}, SCHEMA)}, [Path("t.sql")], [])
    assert PATH.read_bytes() == before


def test_an_answer_is_a_table_for_people_csv_or_json(built: Path) -> None:
    assert "x, y" in _database.shown(PATH, "from t", "table")
    assert list(csv.reader(io.StringIO(_database.shown(PATH, "from t order by a", "csv")))) == [["a", "b"], ["1", "x, y"], ["2", 'say "z"']]
    assert json.loads(_database.shown(PATH, "from t order by a", "json")) == [{"a": 1, "b": "x, y"}, {"a": 2, "b": 'say "z"'}]


def test_every_type_has_an_answer_in_every_form(built: Path) -> None:
    query = """select [1, 2] as l, {'x': 'a, "b"'} as s, map {'k': 1} as m, 'nan'::double as n, [1e308 * 10] as i, interval 3 days as d, '\\xAA'::blob as b,
        null as z, date '2026-01-02' as t, 170141183460469231731687303715884105727::hugeint as h, uuid '00000000-0000-0000-0000-00000000000a' as u"""
    assert "[1, 2]" in _database.shown(PATH, query, "table")
    row, = csv.DictReader(io.StringIO(_database.shown(PATH, query, "csv")))
    assert (json.loads(row["l"]), json.loads(row["s"]), row["z"], row["t"]) == ([1, 2], {"x": 'a, "b"'}, "", "2026-01-02") and "170141183460469231" in row["h"]
    answer, = json.loads(_database.shown(PATH, query, "json"), parse_constant=pytest.fail)
    assert (answer["l"], answer["n"], answer["i"], answer["z"], answer["t"]) == ([1, 2], "nan", ["inf"], None, "2026-01-02")


def test_json_does_not_lose_a_column_that_is_named_as_another(built: Path) -> None:
    with pytest.raises(UserError, match="two columns are named 'a'"):
        _database.shown(PATH, "select 1 as a, 2 as a", "json")
    assert _database.shown(PATH, "select 1 as a, 2 as a", "csv") == '"a","a"\n1,2'


def test_a_caption_in_a_table_steers_no_terminal(built: Path) -> None:
    shown = _database.shown(PATH, "select chr(27) || '[31mred' || chr(8238) || 'abc' || chr(155) || chr(10) || 'x' as c", "table")
    assert not [c for c in shown if c != "\n" and not c.isprintable()] and "red\ufffdabc" in shown


def test_a_query_that_asks_for_nothing_says_so(built: Path) -> None:
    assert _database.shown(PATH, "-- only a comment", "table") == ""
    with pytest.raises(UserError, match="asks for nothing"):
        _database.rows(PATH, "")


OUTSIDE = [
    "drop table t", "insert into t values (3, 'z')", "create temp macro f(x) as x; drop table t", "copy t to 'out.csv'", "copy t from 't.sql'",
    "export database 'out'", "import database 'out'", "from read_csv('t.sql')", "from read_text('t.sql')", "from read_blob('t.sql')", "from 't.sql'",
    "from glob('*')", "from read_parquet('https://a.example/x.parquet')", "attach 'x.duckdb'", "attach ':memory:' as x; copy t to 'out.csv'",
    "install httpfs", "load httpfs", "set enable_external_access = true", "set threads = 1", "pragma enable_external_access=true", "reset threads",
    "set secret_directory = '.'", "vacuum into 'out'",
]


@pytest.mark.parametrize("query", OUTSIDE)
def test_a_query_neither_writes_nor_sees_other_files(built: Path, query: str) -> None:
    for form in ("table", "csv", "json"):
        with pytest.raises(UserError, match="cannot be answered"):
            _database.shown(PATH, query, form)
    assert sorted(file.name for file in built.iterdir()) == ["check.sql", "t.duckdb", "t.sql"]
    assert _database.rows(PATH, "select count(*) as n from t").to_pylist() == [{"n": 2}]


def test_a_broken_rule_is_named_with_rows_and_leaves_the_old_file(built: Path) -> None:
    before = PATH.read_bytes()
    with pytest.raises(UserError, match="check.sql: No a is negative. Not so in 1 rows, as a=-1"):
        _database.build(PATH, {"t": pa.table({"a": [-1], "b": ["x"]}, SCHEMA)}, [Path("t.sql")], [Path("check.sql")])
    assert PATH.read_bytes() == before and sorted(p.name for p in built.glob("t.duckdb*")) == ["t.duckdb"]


@pytest.mark.parametrize("n_bytes", [0, 5000])
def test_a_cut_database_is_named_with_the_command_that_builds_it_again(built: Path, n_bytes: int) -> None:
    PATH.write_bytes(PATH.read_bytes()[:n_bytes])
    with pytest.raises(UserError, match=r"t.duckdb cannot be opened: .*; build it again with `dvc repro -f -s warehouse`") as error:
        _database.shown(PATH, "select 1", "table")
    assert "\n" not in str(error.value)


def test_a_missing_database_is_named_with_the_command_that_makes_it(in_folder: Path) -> None:
    with pytest.raises(UserError, match="dvc repro warehouse"):
        _database.rows(PATH, "select 1")
