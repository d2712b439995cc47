"""A table is cast, checked and only then given its name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _checks, _schemas, _tables
from tasks._settings import UserError

SCHEMA = _schemas.schema(["id"], [_schemas.column("id", pa.int64(), "key"), _schemas.column("share", pa.float64(), "a share", nullable=True)])
CHECKS = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "share", "min_value": 0, "max_value": 1}}]


def test_a_good_table_is_sorted_by_its_keys_and_written_with_its_checks(in_folder: Path) -> None:
    _tables.write(_tables.table({"id": [2, 1], "share": [None, 0.5]}, SCHEMA), CHECKS, "things")
    assert pq.read_table("data/things/things.parquet").to_pydict() == {"id": [1, 2], "share": [0.5, None]}
    said = pq.read_table("data/things/checks.parquet").to_pylist()
    assert [r["expectation"] for r in said] == ["expect_column_values_to_be_unique", "expect_column_values_to_not_be_null", CHECKS[0]["type"]]
    assert all(r["is_passed"] for r in said)


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"id": [1, 1], "share": [0.1, 0.2]}, "things: expect_column_values_to_be_unique failed on id; for example \\[1, 1\\]"),
     ({"id": [1, 2], "share": [0.1, 7.0]}, "things: expect_column_values_to_be_between failed on share; for example \\[7.0\\]")],
)
def test_a_table_that_fails_is_kept_aside_and_named(in_folder: Path, columns: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        _tables.write(_tables.table(columns, SCHEMA), CHECKS, "things")
    assert Path("data/things/things.rejected.parquet").is_file() and not Path("data/things/things.parquet").exists()


def test_an_unchanged_table_is_not_judged_twice(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _tables.table({"id": [1], "share": [0.5]}, SCHEMA)
    first = _checks.results(made, CHECKS, "things")
    monkeypatch.setattr(_checks, "_judged", lambda *_: pytest.fail("judged again"))
    assert _checks.results(made, CHECKS, "things") == first


def test_the_same_rows_in_another_order_give_the_same_bytes(in_folder: Path) -> None:
    for name, order in (("a", [1, 2, 3]), ("b", [3, 1, 2])):
        _tables.put(_tables.table({"id": order, "share": [i / 10 for i in order]}, SCHEMA), Path(f"{name}.parquet"))
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()


def test_a_missing_table_is_named_with_the_command_that_makes_it(in_folder: Path) -> None:
    with pytest.raises(UserError, match="dvc repro findings@sd-v1.5"):
        _tables.read("findings", "sd-v1.5")
