"""A table is cast, checked and only then given its name."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _schemas, _tables
from tasks._settings import UserError

SCHEMA = _schemas.schema(["id"], [_schemas.column("id", pa.int64(), "key"), _schemas.column("share", pa.float64(), "a share", nullable=True)])
CHECKS = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "share", "min_value": 0, "max_value": 1}}]


def test_a_good_table_is_sorted_by_its_keys_and_written_with_its_checks(in_folder: Path) -> None:
    _tables.write(_tables.table({"id": [2, 1], "share": [None, 0.5]}, SCHEMA), CHECKS, "things")
    assert pq.read_table("data/things/things.parquet").to_pydict() == {"id": [1, 2], "share": [0.5, None]}
    said = pq.read_table("data/things/checks.parquet").to_pylist()
    assert [r["expectation"] for r in said] == ["expect_column_values_to_be_unique", "expect_column_values_to_not_be_null", CHECKS[0]["type"]]
    assert all(r["is_passed"] for r in said)


def test_the_same_rows_in_another_order_give_the_same_bytes(in_folder: Path) -> None:
    for name, order in (("a", [1, 2, 3]), ("b", [3, 1, 2])):
        _tables.put(_tables.table({"id": order, "share": [i / 10 for i in order]}, SCHEMA), Path(f"{name}.parquet"))
    assert Path("a.parquet").read_bytes() == Path("b.parquet").read_bytes()


def test_a_missing_table_is_named_with_the_command_that_makes_it(in_folder: Path) -> None:
    with pytest.raises(UserError, match="dvc repro findings@sd-v1.5"):
        _tables.read("findings", "sd-v1.5")
