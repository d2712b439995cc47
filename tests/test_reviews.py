"""What people said of pairs: every line is a row, a line that is no label says why, and labels of another audit count for nothing."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import _database, _tables, inputs, reviews, warehouse
from tasks._settings import UserError
from tasks.measures import agreement
from tests.conftest import ROOT
from tests.tiny_audit import PROMPTS, V1, V2, put, put_project, row

HEAD = ",".join(reviews.COLUMNS)


def line(**values: Any) -> str:
    """A line of the file: a good label but for what is said."""
    said = {"release": V1, "finding_id": 112, "label": "copy", "is_person": "false", "is_trademark": "", "reviewer": "ada", "protocol_digest": "p"}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow((said | values).values())
    return text.getvalue().removesuffix("\n")


def read(*lines: str) -> list[dict[str, Any]]:
    return reviews.reviews("\n".join([HEAD, *lines]).encode("utf-8", "surrogateescape"), "reviews.csv")


def test_a_label_is_a_row_with_what_was_said() -> None:
    assert read(line(finding_id=(1 << 63) - 1, is_person="True", is_trademark="0")) == [
        {"release": V1, "finding_id": (1 << 63) - 1, "reviewer": "ada", "label": "copy", "is_person": True, "is_trademark": False,
         "protocol_digest": "p", "line": 2, "status": "ok", "reason": None}]
    assert read(line())[0]["is_trademark"] is None, "not said is not false"


@pytest.mark.parametrize(("text", "reason"), [
    (line(label="maybe"), "label 'maybe' is not copy, substantially_similar, template, not_a_copy"),
    (line(finding_id="1.23E+18"), "finding_id '1.23E+18' is no id; a spreadsheet rounds it, keep it as text"),
    (line(finding_id=1 << 63), f"finding_id '{1 << 63}' is no id; a spreadsheet rounds it, keep it as text"),
    (line(finding_id="٣"), "finding_id '٣' is no id; a spreadsheet rounds it, keep it as text"),
    (line(is_person="perhaps"), "is_person 'perhaps' is not true, false or empty"),
    (line(reviewer=" "), "reviewer missing"), (line(release="", protocol_digest=""), "release and protocol_digest missing"),
    (line(reviewer="a" * 201), "reviewer has over 200 characters"),
    (line(reviewer="a\0b"), "reviewer 'a\\u0000b' is not plain UTF-8 text"),
    (line(reviewer="a\u202eb"), "reviewer 'a\\u202eb' is not plain UTF-8 text"),
    (line(reviewer="a\udcffb"), "reviewer 'a\\udcffb' is not plain UTF-8 text"),
    ("v1,112", "2 fields, not 7"), (line() + ",more", "8 fields, not 7"),
    ('v1,"112', "not readable as CSV: unexpected end of data"),
])
def test_a_line_that_is_no_label_is_a_row_with_its_reason(text: str, reason: str) -> None:
    made = read(line(reviewer="bob"), text)
    assert [r["status"] for r in made] == ["ok", "error"] and (made[1]["reason"], made[1]["line"]) == (reason, 3)
    assert made[1]["label"] in (None, "copy") and _tables.table(made, reviews.SCHEMA).num_rows == 2


def test_what_comes_after_a_bad_line_is_read_all_the_same_and_lines_are_counted_as_an_editor_does() -> None:
    made = read(line(reviewer="a" * 200_000), "", line(reviewer="two\nlines"), line())
    assert [(r["line"], r["status"]) for r in made] == [(2, "error"), (4, "error"), (6, "ok")]


def test_a_second_label_of_the_same_reviewer_and_finding_is_an_error_and_another_reviewers_is_none() -> None:
    made = read(line(), line(reviewer="bob"), line(label="template"), line(release=V2))
    assert [r["status"] for r in made] == ["ok", "ok", "error", "ok"]
    assert made[2]["reason"] == "the same reviewer has labelled it in line 2"


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", HEAD.replace(",", ";").encode(), b"\x89PNG\r\n\x1a\n\0\0\0", b"\xff" * 300, b'"' + b"x" * 200_000])
def test_a_file_of_another_kind_is_refused_with_the_way_out(data: bytes) -> None:
    with pytest.raises(UserError, match=rf"report.reviews: mine.csv begins with '.*', not with {HEAD}; save the labels from") as error:
        reviews.reviews(data, "mine.csv")
    assert str(error.value).isprintable()


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_obstacle() -> None:
    assert [r["status"] for r in reviews.reviews(f"\ufeff{HEAD}\r\n{line()}\r\n".encode(), "r.csv")] == ["ok"]


@given(st.binary(max_size=300))
def test_whatever_follows_the_first_line_becomes_rows(data: bytes) -> None:
    made = reviews.reviews(f"{HEAD}\n".encode() + data, "r.csv")
    table = _tables.table(made, reviews.SCHEMA)
    assert all((r["reason"] is None) == (r["status"] == "ok") for r in table.to_pylist())
    assert len({r["line"] for r in made}) == len(made), "the line is the key"


@pytest.fixture
def project(in_folder: Path) -> Path:
    """Two tiny audits; the warehouse is not built."""
    shutil.copytree(ROOT / "sql", "sql")
    put_project()
    return in_folder


def put_reviews(*lines: str) -> None:
    """A file that inputs lists, read by the stage."""
    Path("reviews.csv").write_text("\n".join([HEAD, *lines]))
    listed = row(inputs.SCHEMA, source="reviews", kind="reviews", root=".", path="reviews.csv", status="ok")
    put([listed], inputs.SCHEMA, "inputs", side="reviews")
    reviews.main()


def test_without_a_file_the_table_is_empty(project: Path) -> None:
    put([], inputs.SCHEMA, "inputs", side="reviews")
    reviews.main()
    assert _tables.read("reviews").num_rows == 0 and _tables.read("reviews").schema.equals(reviews.SCHEMA)


def test_a_file_that_went_or_is_no_list_is_named_with_the_way_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_reviews(line())
    monkeypatch.setattr(reviews, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"reviews.csv is larger than 0 MB"):
        reviews.main()
    Path("reviews.csv").unlink()
    with pytest.raises(UserError, match=r"report.reviews: reviews.csv cannot be read: No such file"):
        reviews.main()


def test_agreement_counts_labels_of_the_current_audit_alone_and_its_kappa_is_the_measures(project: Path) -> None:
    digest = _tables.read("screening", V1, side="protocol").column("protocol_digest")[0].as_py()
    of = {prompt: prompt * 10 + len(V1) for prompt in PROMPTS}  # finding_id; 11 is extracted, 18 and 19 are controls
    said = [(11, "copy", "ada"), (11, "not_a_copy", "bob"), (14, "not_a_copy", "ada"), (18, "template", "ada"), (19, "not_a_copy", "ada")]
    labels = [line(finding_id=of[p], label=label, reviewer=who, protocol_digest=digest) for p, label, who in said]
    stale = [line(finding_id=of[15], protocol_digest="other"), line(finding_id=77, protocol_digest=digest), line(release="gone")]
    put_reviews(*labels, *stale, line(label="maybe"))
    warehouse.main()
    view = {r.pop("release"): r for r in _database.rows(warehouse.DATABASE, "from review_agreement").to_pylist()}
    value, *_ = agreement.kappa([True, True, False, False, False], [True, False, False, True, False])
    assert view[V1].pop("kappa") == pytest.approx(value) and view[V1].pop("agreement") == pytest.approx(3 / 5)
    assert view[V1] == {"n_labels": 7, "n_stale": 2, "n_judged": 5, "n_reviewers": 2, "n_decoys": 2, "n_decoys_called_copies": 1,
                        "n_both": 1, "n_verdict_only": 1, "n_people_only": 1, "n_neither": 2}
    assert (view["gone"]["n_stale"], view["gone"]["n_judged"], view["gone"]["kappa"], view["gone"]["agreement"]) == (1, 0, None, None)
    assert _database.rows(warehouse.DATABASE, "select count(*) as n from reviews where status = 'error'").to_pylist() == [{"n": 1}]
