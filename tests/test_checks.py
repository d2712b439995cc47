"""A table is judged before it has its name, once, and a failure says what and where."""

from pathlib import Path

import pyarrow as pa
import pytest

from tasks import _checks, _schemas, _tables
from tasks._settings import UserError

SCHEMA = _schemas.schema(["id"], [_schemas.column("id", pa.int64(), "key"), _schemas.column("share", pa.float64(), "a share", nullable=True)])
CHECKS = [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "share", "min_value": 0, "max_value": 1}}]


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


def test_keys_and_columns_without_nulls_are_checked_unasked() -> None:
    pair = _schemas.schema(["a", "b"], [_schemas.column("a", pa.int64(), "one key"), _schemas.column("b", pa.int64(), "other key")])
    kinds = [(c["type"], c["kwargs"]) for c in _checks.implied(pair)]
    assert kinds[0] == ("expect_compound_columns_to_be_unique", {"column_list": ["a", "b"]})
    assert [k for k, _ in kinds[1:]] == ["expect_column_values_to_not_be_null"] * 2


def test_a_row_of_checks_gives_back_the_expectation_it_is_about() -> None:
    asked = [*CHECKS, {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["id", "share"]}},
             {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
             {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "id", "column_B": "share"}}]
    made = _tables.table({"id": [1], "share": [0.5]}, SCHEMA)
    rows = _checks._judged(made, asked, "things")
    assert [_checks.serialised(row) for row in rows] == asked and all(row["is_passed"] for row in rows)


def test_data_docs_are_built_of_tables_and_their_checks(tmp_path: Path) -> None:
    made = _tables.table({"id": [1], "share": [0.5]}, SCHEMA)
    page = _checks.docs({"things": (made, _checks._judged(made, CHECKS, "things"))}, tmp_path / "docs")
    assert page.is_file() and "things" in page.read_text()


def test_a_mean_is_bounded_where_there_are_rows_to_take_it_of() -> None:
    asked = [{"type": "expect_column_mean_to_be_between", "kwargs": {"column": "share", "max_value": 0.1}}]
    judged = [_checks._judged(_tables.table({"id": ids, "share": [0.5] * len(ids)}, SCHEMA), asked, "things")[0]["is_passed"] for ids in ([], [1])]
    assert judged == [True, False]
