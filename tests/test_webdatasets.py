"""Tars are read in place, whatever is in them; what was attempted and failed is a row."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _webdatasets
from tests.tiny_sets import as_webdataset, encoded, put_tar, samples, shown


def rows_of(root: Path, stem: str = "00000", table: bool = False) -> list[dict[str, Any]]:
    tar, beside = f"{stem}.tar", f"{stem}.parquet" if table else None
    return list(_webdatasets.rows(str(root), tar, tar, _webdatasets.samples(str(root), tar, beside)))


def test_a_shard_without_its_table_has_captions_of_text_or_json(tmp_path: Path) -> None:
    put_tar(tmp_path / "00000.tar", [("0.jpg", encoded(shown(0), "JPEG")), ("0.txt", b"zero\n"), ("0.json", b'{"caption": "other", "url": "http://0"}'),
                                     ("1.png", encoded(shown(1))), ("1.json", json.dumps({"caption": "one"}).encode()),
                                     ("2.webp", encoded(shown(2), "WEBP")), ("2.txt", b"caf\xe9"), ("3.txt", b"no picture")])
    rows = rows_of(tmp_path)
    assert [(r["key"], r["caption"], r["url"], r["position"]) for r in rows] == [("0", "zero", "http://0", 0), ("1", "one", None, 1), ("2", None, None, 2),
                                                                               ("3", "no picture", None, 3)]
    assert rows[1]["data"] == encoded(shown(1)) and rows[2]["notes"] == ["caption not UTF-8"]
    assert rows[3]["reason"] == "no picture of that name in the tar" and rows[3]["data"] is None


def test_every_attempted_address_is_a_row(tmp_path: Path) -> None:
    as_webdataset(tmp_path, samples(3))
    listed = pq.read_table(tmp_path / "00000.parquet").to_pylist()
    extra = {"URL": "u", "TEXT": "t", "width": None, "height": None}
    listed.insert(1, {"key": "404", "status": "failed_to_download", "error_message": "HTTP Error 404", **extra})
    listed.append({"key": "gone", "status": "success", "error_message": None, **extra})
    pq.write_table(pa.Table.from_pylist(listed), tmp_path / "00000.parquet")
    rows = rows_of(tmp_path, table=True)
    assert [r["key"] for r in rows] == ["000000000", "404", "000000001", "000000002", "gone"] and [r["position"] for r in rows] == list(range(5))
    assert rows[1]["reason"] == "failed_to_download: HTTP Error 404" and rows[4]["reason"] == "downloaded, but not in 00000.tar"
    assert [bool(r["data"]) for r in rows] == [True, False, True, True, False] and rows[0]["caption"] == "picture 0"
    alone = list(_webdatasets.rows(str(tmp_path), "00000.parquet", None, _webdatasets.samples(str(tmp_path), None, "00000.parquet")))
    assert {r["reason"] for r in alone if r["key"] != "404"} == {"downloaded, but its tar is not there"}


@pytest.mark.parametrize("kept", [0.35, 0.6, 0.95])
def test_a_cut_tar_gives_the_rows_before_the_cut_and_one_that_says_so(tmp_path: Path, kept: float) -> None:
    as_webdataset(tmp_path, samples(6), with_tables=False)
    data = (tmp_path / "00000.tar").read_bytes()
    with tarfile.open(tmp_path / "00000.tar") as tar:
        ends = [m.offset_data + m.size for m in tar if m.name.endswith(("jpg", "png"))]
        size = tar.offset
    (tmp_path / "00000.tar").write_bytes(data[:int(size * kept)])
    rows = rows_of(tmp_path)
    n = sum(end <= int(size * kept) for end in ends)
    assert 0 < n <= 6 and [bool(r["data"]) for r in rows] == [True] * n + [False]
    assert rows[-1]["key"] == "00000.tar" and "truncated or damaged after" in rows[-1]["reason"]


def test_links_devices_and_paths_out_are_rows_and_nothing_is_extracted(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "00000.tar", "w") as tar:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("null.png", tarfile.CHRTYPE), ("pipe.png", tarfile.FIFOTYPE),
                           ("folder", tarfile.DIRTYPE), ("/etc/passwd.png", tarfile.REGTYPE), ("a/../../out.png", tarfile.REGTYPE),
                           ("good.png", tarfile.REGTYPE), ("good.png", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../secret"
            info.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"data") if info.size else None)
    rows = {r["key"]: r["reason"] for r in rows_of(tmp_path / "set")}
    assert rows == {"good": None, "link.png": "a link, not a file", "hard.png": "a link, not a file", "null.png": "a device or another special file",
                    "pipe.png": "a device or another special file", "/etc/passwd.png": "path leaves the folder",
                    "a/../../out.png": "path leaves the folder", "00000.tar#8": "the same name twice in one tar"}
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "00000.tar"]


@pytest.mark.parametrize(("data", "reason"), [(b"", "not readable as a tar: empty file"), (b"x" * 2000, "not readable as a tar"),
                                                (b"\x1f\x8b" * 600, "not readable as a tar: compressed")])
def test_a_file_that_is_no_tar_is_a_row(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "00000.tar").write_bytes(data)
    (row,) = rows_of(tmp_path)
    assert row["key"] == "00000.tar" and reason in row["reason"]


def test_a_table_that_is_none_is_a_row(tmp_path: Path) -> None:
    as_webdataset(tmp_path, samples(2))
    (tmp_path / "00000.parquet").write_bytes(b"PAR1 not")
    rows = rows_of(tmp_path, table=True)
    assert "00000.parquet is not readable as Parquet" in rows[0]["reason"] and [bool(r["data"]) for r in rows] == [False, True, True]
