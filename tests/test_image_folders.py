"""An image folder is read with its metadata and its text files, whatever these hold."""

from pathlib import Path
from typing import Any

import pytest

from tasks import _image_folders
from tasks._settings import UserError
from tests.tiny_sets import encoded, shown


def rows_of(root: Path) -> dict[str, dict[str, Any]]:
    digests: dict[str, str | None] = {p.relative_to(root).as_posix(): "0" * 64 for p in root.rglob("*") if p.is_file()}
    told = [place for _, place in _image_folders.listed(str(root), digests)]
    return {row["key"]: row for row in _image_folders.rows(str(root), told)}


def test_an_image_folder_is_read_with_its_metadata_and_text_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for number, name in enumerate(("a.png", "b.png", "c.png", "more/d.png")):
        (tmp_path / name).write_bytes(encoded(shown(number)))
    (tmp_path / "metadata.csv").write_text('file_name,caption,url\na.png,"an apple,\nred",http://a\nmissing.png,nothing,\n')
    (tmp_path / "more" / "metadata.csv").write_text("text,file_name\n007,d.png\n")
    (tmp_path / "b.txt").write_text("a bear\n")
    rows = rows_of(tmp_path)
    assert {k: r["caption"] for k, r in rows.items()} == {"a.png": "an apple,\nred", "b.png": "a bear", "c.png": None, "missing.png": "nothing",
                                                          "more/d.png": "007"}
    assert rows["a.png"]["url"] == "http://a" and "not in the folder" in rows["missing.png"]["reason"] and rows["c.png"]["notes"] == ["caption missing"]
    assert rows["a.png"]["data"] == encoded(shown(0))


def test_metadata_cannot_name_a_file_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "../secret.png", "text": "x"}\n')
    row = rows_of(tmp_path / "folder")["../secret.png"]
    assert row["data"] is None and "leaves the folder" in row["reason"]


def test_a_bad_line_of_metadata_is_a_row_and_a_caption_that_is_not_utf_8_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(shown(0)))
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": "caf\xe9"}\n[1]\n{"text": "no name"}\n' + b"[" * 100_000 + b"\n")
    rows = rows_of(tmp_path)
    assert rows["a.png"]["notes"] == ["caption not UTF-8"] and rows["a.png"]["caption"] is None and rows["a.png"]["data"]
    assert rows["metadata.jsonl#1"]["reason"] == "line 2 of metadata.jsonl is no JSON object"
    assert rows["metadata.jsonl#2"]["reason"] == "row 2 of metadata.jsonl has no file_name"
    assert "line 4" in rows["metadata.jsonl#3"]["reason"]


def test_a_row_of_metadata_that_names_no_file_is_a_row_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(shown(0)))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": null, "text": "x"}\n{"file_name": "", "text": "y"}\n')
    rows = rows_of(tmp_path)
    assert {key: row["reason"] for key, row in rows.items() if key != "a.png"} == {
        f"metadata.jsonl#{i}": f"row {i} of metadata.jsonl has no file_name" for i in (0, 1)}


@pytest.mark.parametrize("name", ["a.jfif", "a.JPE", "a.jp2", "a.ppm", "a.heic", "a.svg", "a.tga"])
def test_a_picture_by_its_name_is_a_row_whether_its_kind_is_read_or_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"data")
    (tmp_path / "notes.md").write_text("no picture")
    assert list(rows_of(tmp_path)) == [name]


def test_metadata_without_file_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("name,caption\na,b\n")
    with pytest.raises(UserError, match="has no column file_name"):
        rows_of(tmp_path)


def test_what_a_row_depends_on_is_its_own_files_and_caption(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n')
    digests: dict[str, str | None] = {"a.png": "1", "b.png": "2", "b.txt": "3", "metadata.jsonl": "4"}
    depends = dict(zip("ab", [d for d, _ in _image_folders.listed(str(tmp_path), digests)], strict=True))
    again = dict(zip("ab", [d for d, _ in _image_folders.listed(str(tmp_path), digests | {"metadata.jsonl": "5", "b.txt": "6"})], strict=True))
    assert depends["a"] == again["a"] and depends["b"] != again["b"]
