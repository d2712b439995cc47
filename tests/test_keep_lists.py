"""Keep lists are followed by the tools that they are for, whatever the keys look like."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _keep_lists
from tasks._settings import UserError

ODD = ["a.png", "with, comma", 'with "quotes"', "two\nlines", "=1+1", "ünï", " space ", "", "NA", "null", "00012"]


def put(file: Path, keys: list[str]) -> _keep_lists.KeepList:
    _keep_lists.write(file, pa.chunked_array([pa.array(keys, pa.string())]))
    return _keep_lists.KeepList(file)


def test_every_key_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = put(tmp_path / "keys" / "kept.csv", ODD)
    assert kept.keys == set(ODD) and len(kept) == len(ODD) and kept.has("00012") and not kept.has("12")


def test_a_keep_list_is_what_a_release_takes_as_its_own_kept(tmp_path: Path) -> None:
    from tasks._sources import Release

    put(tmp_path / "kept.csv", ODD)
    assert Release("v2", tmp_path, "d", {}, tmp_path / "kept.csv").trained_on([*ODD, "other"]) == set(ODD)


def test_hugging_face_datasets_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    kept = put(tmp_path / "kept.csv", ["a", "c"])
    pq.write_table(pa.table({"key": ["a", "b", "c"], "n": [1, 2, 3]}), tmp_path / "rows.parquet")
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.filter(kept.has, input_columns="key")["n"][:] == [1, 3]
    listed = datasets.load_dataset("csv", data_files=str(tmp_path / "kept.csv"), split="train", cache_dir=str(tmp_path / "cache"))
    assert listed["key"][:] == ["a", "c"]


def test_webdataset_follows_it(tmp_path: Path) -> None:
    import webdataset

    kept = put(tmp_path / "kept.csv", ["a", "c"])
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("a", "b", "c"):
            info = tarfile.TarInfo(f"{name}.txt")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    samples = webdataset.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False).select(lambda sample: kept.has(sample["__key__"]))
    assert [sample["__key__"] for sample in samples] == ["a", "c"]


def test_what_is_no_keep_list_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; the stage `keep_list` writes them"):
        _keep_lists.KeepList(tmp_path / "none.csv")
    for text in ("name\na\n", ""):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(UserError, match="no CSV with a column key"):
            _keep_lists.KeepList(tmp_path / "other.csv")
