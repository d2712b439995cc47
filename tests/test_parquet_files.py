"""Parquet with pictures is read by row groups, as struct or plain bytes, under everybody's column names; damage is a row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _parquet_files
from tasks._settings import UserError
from tests.tiny_sets import encoded, shown


def rows_of(root: Path, shard: str = "part.parquet") -> list[dict[str, Any]]:
    return [row for place in _parquet_files.groups(str(root), shard) for row in _parquet_files.rows(str(root), shard, *place)]


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_is_read_as_struct_or_plain_bytes_with_laions_column_names(tmp_path: Path, as_struct: bool) -> None:
    data = [encoded(shown(i)) for i in range(3)]
    column = [{"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)] if as_struct else data
    pq.write_table(pa.table({"image": column, "TEXT": ["x", "y", None], "URL": ["u", "v", "w"]}), tmp_path / "part.parquet")
    rows = rows_of(tmp_path)
    assert [r["caption"] for r in rows] == ["x", "y", None] and [r["url"] for r in rows] == ["u", "v", "w"] and [r["data"] for r in rows] == data
    assert [r["key"] for r in rows] == ([f"{i}.png" for i in range(3)] if as_struct else [f"part.parquet#{i}" for i in range(3)])


def test_a_struct_may_lack_either_part_of_any_row(tmp_path: Path) -> None:
    kind = pa.struct([("path", pa.string()), ("bytes", pa.binary())])
    column = pa.array([{"path": "a.png", "bytes": None}, None, {"path": None, "bytes": b"data"}, {"path": "d.png", "bytes": b""}], kind)
    pq.write_table(pa.table({"image": column}), tmp_path / "part.parquet")
    assert [(r["key"], r["reason"], r["data"]) for r in rows_of(tmp_path)] == [
        ("a.png", "no bytes", None), ("part.parquet#1", "no bytes", None), ("part.parquet#2", None, b"data"), ("d.png", "empty file", None)]


def test_img2datasets_own_parquet_is_read_with_what_failed(tmp_path: Path) -> None:
    made = {"key": ["0001", "0002"], "status": ["success", "failed_to_resize"], "error_message": [None, "too small"], "url": ["u", "v"],
            "txt": ["a kettle", None], "jpg": [encoded(shown(1), "JPEG"), None]}
    pq.write_table(pa.table(made), tmp_path / "part.parquet")
    assert [(r["key"], r["name"], r["caption"], r["reason"]) for r in rows_of(tmp_path)] == [
        ("0001", "0001.jpg", "a kettle", None), ("0002", "0002.jpg", None, "failed_to_resize: too small")]


@pytest.mark.parametrize("as_kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.string())])
def test_text_that_is_not_utf_8_is_the_rows_matter_however_a_column_holds_it(tmp_path: Path, as_kind: pa.DataType) -> None:
    text = pa.array([b"caf\xe9", b"tea"]).view(pa.string())
    if pa.types.is_dictionary(as_kind):
        text = text.dictionary_encode()
    elif pa.types.is_list(as_kind):
        text = pa.ListArray.from_arrays([0, 1, 2], text)
    elif as_kind != pa.string():
        text = text.cast(pa.large_binary() if as_kind == pa.large_string() else pa.binary_view()).view(as_kind)
    assert text.type == as_kind
    pq.write_table(pa.table({"image": [b"x", b"y"], "text": text}), tmp_path / "part.parquet")
    assert [(r["caption"], r["notes"]) for r in rows_of(tmp_path)] == [(None, ["caption not UTF-8"]), ("tea", [])]


def test_pieces_are_runs_of_row_groups_and_a_picture_is_found_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [encoded(shown(i)) for i in range(50)]
    pq.write_table(pa.table({"image": data}), tmp_path / "part.parquet", row_group_size=7)
    monkeypatch.setattr(_parquet_files, "ROWS", 20)
    assert _parquet_files.groups(str(tmp_path), "part.parquet") == [(0, 0, 3), (21, 3, 6), (42, 6, 8)]
    assert [r["data"] for r in rows_of(tmp_path)] == data and [r["position"] for r in rows_of(tmp_path)] == list(range(50))
    for block in (1 << 25, 1):
        monkeypatch.setattr(_parquet_files, "BLOCK_BYTES", block)
        blocks = _parquet_files.Blocks(str(tmp_path), "part.parquet")
        assert all(blocks.picture(i) == data[i] for i in (0, 49, 3, 2, 13, 14, 6, 7, *range(50)))


def test_a_file_that_cannot_be_read_or_no_further_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(b"not Parquet")
    (row,) = rows_of(tmp_path)
    assert row["key"] == "part.parquet#0" and "not readable as Parquet: " in row["reason"]
    pq.write_table(pa.table({"image": [bytes([i]) * 5000 for i in range(12)]}), tmp_path / "part.parquet", row_group_size=4, compression="zstd",
                   use_dictionary=False)
    start = pq.read_metadata(tmp_path / "part.parquet").row_group(1).column(0).data_page_offset
    data = bytearray((tmp_path / "part.parquet").read_bytes())
    data[start:start + 60] = b"\xff" * 60
    (tmp_path / "part.parquet").write_bytes(data)
    rows = rows_of(tmp_path)
    assert [r["position"] for r in rows] == [0, 1, 2, 3, 4, 8, 9, 10, 11] and "rows 4 to 7 are not readable as Parquet" in rows[4]["reason"]
    assert [bool(r["data"]) for r in rows] == [True] * 4 + [False] + [True] * 4


@pytest.mark.parametrize(("columns", "said"), [({"caption": ["x"]}, "has no column image"),
                                               ({"image": ["a.png"]}, "column image is string; pictures are struct")])
def test_a_file_without_pictures_is_refused_in_one_line(tmp_path: Path, columns: dict[str, list[str]], said: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "part.parquet")
    with pytest.raises(UserError, match=said):
        _parquet_files.groups(str(tmp_path), "part.parquet")
