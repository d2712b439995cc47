"""An exported blocklist: loads in the tools it names, comes back as it was, and nothing hostile in it is obeyed."""

import json
import pickle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _blocklists, _tables
from tasks._settings import UserError

HEAD = {"release": "v1", "model_digest": "0" * 64, "protocol_digest": "1" * 16, "descriptor": "planted 0000000000000000, box to 32 px, bilinear to 32 px",
        "size_px": 32, "pdq_quality": 50}


def put(folder: Path, n: int = 3, d: int = 8, **head: Any) -> tuple[pa.Table, np.ndarray]:
    """An export of n entries; the last has no usable hash."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, d))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    rows = [{"entry_id": i + 1, "image_path": f"generation/{i + 1}", "cluster_id": 7, "kind": "generation", "threshold": 0.5,
             "pdq": rng.bytes(32).hex(), "pdq_quality": 100 if i < n - 1 else 49, "layout": rng.bytes(48).hex(), "pixel_digest": "a" * 64} for i in range(n)]
    entries = _tables.table(rows or {name: [] for name in _blocklists.ENTRIES.names}, _blocklists.ENTRIES)
    _blocklists.write(folder, entries, vectors, HEAD | head)
    return entries, vectors


@pytest.mark.parametrize("n", [3, 0])
def test_a_blocklist_comes_back_as_it_was_written(tmp_path: Path, n: int) -> None:
    entries, vectors = put(tmp_path, n)
    found = _blocklists.read(tmp_path)
    assert found.entries.equals(entries) and len(found) == n and found.hashes().shape == (n, 32) and found.layouts().shape == (n, 48)
    assert np.allclose(found.vectors, vectors, atol=1e-3) and found.head["release"] == "v1"


def test_no_picture_is_in_an_export_unless_asked_for(tmp_path: Path) -> None:
    entries, vectors = put(tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == {
        "blocklist.json", "descriptors.faiss", "pdq.txt", "img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"}
    _blocklists.write(tmp_path, entries, vectors, HEAD, pa.table({"image_id": [1], "png": [b"x"]}))
    assert (tmp_path / "pictures.parquet").is_file()
    _blocklists.write(tmp_path, entries, vectors, HEAD)
    assert not (tmp_path / "pictures.parquet").exists(), "one that was asked for before does not stay"


def test_an_export_keeps_the_rules_of_clip_retrievals_reader(tmp_path: Path) -> None:
    """embedding-reader 1.8, which needs older pandas than we do: both folders' files, sorted, are zipped; rows run in parallel; img_emb is [n, d] float."""
    entries, vectors = put(tmp_path)
    arrays, tables = (sorted((tmp_path / side).iterdir()) for side in ("img_emb", "metadata"))
    assert [p.stem.rpartition("_")[2] for p in arrays] == [p.stem.rpartition("_")[2] for p in tables] == ["0"]
    read = np.load(arrays[0])
    assert read.dtype == np.float16 and (read == vectors).all() and np.allclose(np.linalg.norm(read.astype(np.float32), axis=1), 1, atol=2e-3)
    assert pq.read_table(tables[0])["entry_id"].equals(entries["entry_id"]) and "image_path" in entries.column_names


def test_faiss_reads_the_index_and_finds_each_entry(tmp_path: Path) -> None:
    _, vectors = put(tmp_path)
    index = faiss.read_index(str(tmp_path / "descriptors.faiss"))
    similarity, rows = index.search(vectors.astype(np.float32), 1)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT and rows.ravel().tolist() == [0, 1, 2] and np.allclose(similarity, 1, atol=1e-3)


def test_the_hash_list_has_the_usable_hashes_alone(tmp_path: Path) -> None:
    entries, _ = put(tmp_path)
    assert (tmp_path / "pdq.txt").read_text().split() == entries["pdq"].to_pylist()[:2]


def rewritten(folder: Path, name: str, data: bytes) -> None:
    """Another file under this name, and blocklist.json that names its digest: a stranger can write both."""
    (folder / name).write_bytes(data)
    head = json.loads((folder / "blocklist.json").read_text())
    head["files"][name] = _tables.file_digest(folder / name)
    (folder / "blocklist.json").write_text(json.dumps(head))


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched"),))


def test_a_pickle_in_the_place_of_descriptors_is_refused_and_not_run(in_folder: Path) -> None:
    put(in_folder / "list")
    for data in (pickle.dumps(Hostile()), b"", b"\x93NUMPY\x01\x00 nonsense"):
        rewritten(in_folder / "list", _blocklists.ARRAY, data)
        with pytest.raises(UserError, match="not a plain array"):
            _blocklists.read(in_folder / "list")
    np.save(in_folder / "objects.npy", np.array([Hostile()], object), allow_pickle=True)
    rewritten(in_folder / "list", _blocklists.ARRAY, (in_folder / "objects.npy").read_bytes())
    with pytest.raises(UserError, match="not a plain array"):
        _blocklists.read(in_folder / "list")
    assert not Path("touched").exists()


def test_descriptors_that_are_not_of_unit_length_are_refused(tmp_path: Path) -> None:
    put(tmp_path)
    for wrong in (np.zeros((3, 8), np.float16), np.full((3, 8), np.nan, np.float16), np.ones(3, np.float16), np.ones((3, 8), np.float32)):
        np.save(tmp_path / "other.npy", wrong)
        rewritten(tmp_path, _blocklists.ARRAY, (tmp_path / "other.npy").read_bytes())
        with pytest.raises(UserError, match="unit length|no \\[n, d\\] float16"):
            _blocklists.read(tmp_path)


def test_a_table_that_is_none_or_of_other_rows_is_refused(tmp_path: Path) -> None:
    put(tmp_path)
    whole = pq.read_table(tmp_path / _blocklists.TABLE)
    for wrong, says in ((whole.slice(0, 2), "a row for each"), (whole.drop_columns("pdq"), "not the table"),
                        (whole.set_column(whole.schema.get_field_index("pdq"), "pdq", [["../../etc"] * 3]), "that are none"),
                        (whole.set_column(whole.schema.get_field_index("layout"), "layout", [["0" * 95] * 3]), "layouts that are none")):
        pq.write_table(wrong, tmp_path / "other.parquet")
        rewritten(tmp_path, _blocklists.TABLE, (tmp_path / "other.parquet").read_bytes())
        with pytest.raises(UserError, match=says):
            _blocklists.read(tmp_path)


def test_a_file_that_was_changed_or_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a")
    put(tmp_path / "b", 2)
    (tmp_path / "a" / _blocklists.ARRAY).write_bytes((tmp_path / "b" / _blocklists.ARRAY).read_bytes())
    with pytest.raises(UserError, match="its digest differs"):
        _blocklists.read(tmp_path / "a")
    (tmp_path / "a" / _blocklists.ARRAY).unlink()
    (tmp_path / "a" / _blocklists.ARRAY).symlink_to(tmp_path / "b" / _blocklists.ARRAY)
    with pytest.raises(UserError, match="a link out of the folder"):
        _blocklists.read(tmp_path / "a")


@pytest.mark.parametrize(("text", "says"), [("[", "not JSON"), ("[1]", "has no format"), ('{"format": true}', "has no format"), ("9" * 10, "has no format")])
def test_a_head_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    put(tmp_path)
    (tmp_path / "blocklist.json").write_text(text)
    with pytest.raises(UserError, match=says):
        _blocklists.read(tmp_path)


def test_another_format_and_no_folder_are_refused_with_the_way_out(tmp_path: Path) -> None:
    put(tmp_path, format=3)
    with pytest.raises(UserError, match="format 3 at 32 px is not known here"):
        _blocklists.read(tmp_path)
    put(tmp_path, format=1)
    with pytest.raises(UserError, match="is of format 1, without colour layouts; have the list made again"):
        _blocklists.read(tmp_path)
    with pytest.raises(UserError, match="is no folder; give one that the stage `blocklist` has written"):
        _blocklists.read(tmp_path / "none")
