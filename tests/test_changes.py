"""What a release's report says of the other one stands in a folder of its own, which another release's audit leaves as it is."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks import warehouse
from tests.conftest import ROOT
from tests.tiny_audit import V1, V2, put_params, put_project, put_release


@pytest.fixture
def project(in_folder: Path) -> Path:
    put_project()
    (in_folder / "sql").symlink_to(ROOT / "sql")
    return in_folder


def changes(release: str) -> list[tuple[Any, ...]]:
    rows = pq.read_table(f"data/warehouse/{release}/changes.parquet").to_pylist()
    return [(r["kind"], r["prompt_id"], r["against"], r["outcome"], r["was_drawn"], r["is_new_image"]) for r in rows]


def test_each_prompt_that_either_release_returns_is_still_new_or_gone(project: Path) -> None:
    put_release(V1, {11})
    put_release(V2, {14})
    warehouse.main()
    assert changes(V2) == [("previous", 11, V1, "gone", True, False), ("previous", 14, V1, "new", True, True)]
    assert changes(V1) == [], "there is no release before it"
    assert {r["against"] for r in pq.read_table(f"data/warehouse/{V2}/comparisons.parquet").to_pylist()} == {V1}


def test_an_audit_of_the_later_release_leaves_the_earlier_ones_bytes(project: Path) -> None:
    warehouse.main()
    before = {p.name: p.read_bytes() for p in Path(f"data/warehouse/{V1}").iterdir()}
    put_release(V2, {11, 14})
    warehouse.main()
    assert {p.name: p.read_bytes() for p in Path(f"data/warehouse/{V1}").iterdir()} == before
    assert [c[3] for c in changes(V2)] == ["still", "new"]


def test_a_release_that_cannot_be_compared_has_no_changes(project: Path) -> None:
    put_release(V2, {11}, {"findings": {"verbatim_l2": 0.2}})
    warehouse.main()
    assert changes(V2) == []
    assert [r["outcome"] for r in pq.read_table(f"data/warehouse/{V2}/comparisons.parquet").to_pylist()] == ["not_comparable"]


def test_the_folder_of_a_release_that_is_listed_no_more_is_removed(project: Path) -> None:
    warehouse.main()
    put_params({V2: {"model": "b"}})
    warehouse.main()
    assert [p.name for p in Path("data/warehouse").glob("*/")] == [V2]
