"""A training set is the same in every format; a shard that comes costs its own pieces; a picture is found again by its place."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import _embedders, _pictures, _tables, _training_sets, image_embeddings, images, inputs
from tasks._settings import UserError
from tests.conftest import ROOT, until
from tests.tiny_sets import PER_SHARD, WRITERS, as_folder, as_parquet, as_webdataset, broken, encoded, hostile_folder, imaged, put_params, samples, shown

pytestmark = pytest.mark.filterwarnings("ignore:Image size")
SHOWN = ("caption", "url", "pixel_digest", "pdq", "pdq_quality", "status", "reason", "width_px", "height_px", "complexity_bytes", "is_degenerate")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many pictures were measured, and described by a descriptor that is quick."""
    n = {"measured": 0, "described": 0}
    measured = _pictures.measured

    def count(*arguments: Any) -> dict[str, Any]:
        n["measured"] += 1
        return measured(*arguments)

    def embed(batch: np.ndarray) -> np.ndarray:
        n["described"] += len(batch)
        return batch.reshape(len(batch), -1)[:, :16].astype(np.float32) + 1

    monkeypatch.setattr(_pictures, "measured", count)
    image_embeddings._model.cache_clear()
    monkeypatch.setattr(_embedders, "BATCH", 1)
    monkeypatch.setattr(_embedders, "embedder", lambda *_: _embedders.Embedder("first_row", "d" * 64, 8, embed))
    return n


def test_the_same_pictures_are_the_same_rows_in_every_format(in_folder: Path) -> None:
    made = [*samples(20), ("odd.gif", *broken(9)[8][1][1:])]
    found = {}
    for form, write in WRITERS.items():
        write(in_folder / form, made)
        rows = imaged(form, form)
        found[form] = {r["sha256"]: {name: r[name] for name in SHOWN} for r in rows}
        assert len(found[form]) == len(rows) == len(made)
        reader = _training_sets.Reader()
        assert all(_pictures.pixel_digest(reader.pixels(r)) == r["pixel_digest"] for r in reversed(rows)), "a picture is found by its place, in any order"
        small = dict(reader.small(rows, 8))
        assert sorted(small) == list(range(21)) and all((small[i] == _pictures.resized(reader.pixels(row), 8)).all() for i, row in enumerate(rows))
    assert found["image_folder"] == found["parquet"] == found["webdataset"]


def test_a_format_at_an_address_is_read_as_it_is_in_a_folder(in_folder: Path) -> None:
    as_parquet(in_folder / "set", samples(10))
    here = imaged("parquet", "set")
    assert imaged("parquet", f"file://{in_folder}/set") == here
    shutil.make_archive("set", "zip", "set")
    address = f"zip://::{in_folder}/set.zip"
    there = imaged("parquet", address)
    listed = _tables.read("inputs", side="members").to_pylist()
    assert there == here and {r["root"] for r in listed} == {address} and all(len(r["sha256"]) == 64 for r in listed)
    reader = _training_sets.Reader()
    assert all(_pictures.pixel_digest(reader.pixels(r)) == r["pixel_digest"] for r in there)
    memory = fsspec.filesystem("memory")
    as_webdataset(in_folder / "tars", samples(10))
    for file in sorted((in_folder / "tars").iterdir()):
        memory.pipe_file(f"/tars/{file.name}", file.read_bytes())
    assert {r["pixel_digest"] for r in imaged("webdataset", "memory://tars")} == {r["pixel_digest"] for r in here}
    with pytest.raises(UserError, match="training_set.members.path memory://nowhere does not exist"):
        imaged("parquet", "memory://nowhere")
    with pytest.raises(UserError, match="training_set.members.path nosuch://x is at an address that is not understood here"):
        imaged("parquet", "nosuch://x")


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_a_shard_that_comes_costs_its_own_pieces_and_those_at_the_seam(in_folder: Path, form: str, counted: dict[str, int],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training_sets, "FOLDER_RUN", PER_SHARD)
    monkeypatch.setattr(image_embeddings, "RUN", PER_SHARD)
    WRITERS[form](in_folder / "set", samples(12 * PER_SHARD))
    imaged(form, "set")
    image_embeddings.main()
    before, vectors = counted.copy(), dict(zip(*_by_id(), strict=True))
    assert before == {"measured": 12 * PER_SHARD, "described": 12 * PER_SHARD}
    more = samples(PER_SHARD, 50 * PER_SHARD)
    as_folder(in_folder / "set", more) if form == "image_folder" else WRITERS[form](in_folder / "set", more, start=40)
    imaged(form, "set")
    image_embeddings.main()
    n = {name: counted[name] - before[name] for name in before}
    seam = 4 * PER_SHARD
    assert n["measured"] == PER_SHARD if form != "image_folder" else PER_SHARD <= n["measured"] <= PER_SHARD + seam
    assert PER_SHARD <= n["described"] <= PER_SHARD + seam
    after = dict(zip(*_by_id(), strict=True))
    assert len(after) == 13 * PER_SHARD and all((after[i] == v).all() for i, v in vectors.items())


def test_what_is_not_read_by_its_name_is_no_silent_gap(in_folder: Path) -> None:
    as_webdataset(in_folder / "tars", samples(2))
    (in_folder / "tars" / "00001.tar.gz").write_bytes(b"\x1f\x8b" + bytes(99))
    assert [(r["key"], r["status"]) for r in imaged("webdataset", "tars") if r["status"] == "error"] == [("00001.tar.gz", "error")]
    as_parquet(in_folder / "set", samples(2))
    (in_folder / "set" / "part-00000.parquet").rename(in_folder / "set" / "PART.PARQUET")
    assert len(imaged("parquet", "set")) == 2


def _by_id() -> tuple[list[int], np.ndarray]:
    metadata, vectors = _tables.descriptors("image_embeddings")
    return metadata.column("image_id").to_pylist(), vectors


def test_keys_that_repeat_get_their_place_and_no_other_key_moves(in_folder: Path) -> None:
    (in_folder / "set").mkdir()
    made = samples(4)
    for shard, some in (("a", made[:2]), ("b", [(made[0][0], *made[2][1:]), made[3]])):
        pq.write_table(pa.table({"image": [{"bytes": d, "path": k} for k, d, *_ in some]}), in_folder / "set" / f"{shard}.parquet")
    assert sorted(r["key"] for r in imaged("parquet", "set")) == ["000000001.png", "000000003.png", "a.parquet/000000000.png", "b.parquet/000000000.png"]
    pq.write_table(pa.table({"image": [{"bytes": d, "path": "x.png"} for _, d, *_ in made]}), in_folder / "set" / "c.parquet")
    assert [r["key"] for r in imaged("parquet", "set") if "x.png" in r["key"]].count("c.parquet#2/c.parquet/x.png") == 1


def test_a_thousand_broken_pictures_among_a_thousand_good_ones_are_rows_with_their_reason_in_bounded_memory(in_folder: Path) -> None:
    good, bad = samples(1000), broken(1000)
    as_folder(in_folder / "set", [*good, *(sample for _, sample in bad)])
    hostile = hostile_folder(in_folder / "set", in_folder / "outside")
    (in_folder / "set" / "bad-00000.txt").write_bytes(b"not used: the metadata have a caption")
    (in_folder / "set" / "latin.png").write_bytes(good[0][1])
    (in_folder / "set" / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (in_folder / "set" / "mute.png").write_bytes(good[0][1])
    (in_folder / "set" / os.fsdecode(b"na\xefve.png")).write_bytes(good[0][1])
    put_params("image_folder", "set")
    inputs.main()
    peak = in_folder / "peak.txt"
    code = ("import pathlib, re\nfrom tasks import images\nimages.main()\n"
            f"pathlib.Path({str(peak)!r}).write_text(re.search('VmHWM: *(.*) kB', pathlib.Path('/proc/self/status').read_text())[1].strip())")
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(peak.read_text()) / 1024 < 700, "MB"
    rows = {r["key"]: r for r in pq.read_table("data/images/images.parquet").to_pylist()}
    assert all(rows[key]["status"] == "ok" and rows[key]["reason"] is None for key, *_ in good)
    require_said(rows, bad)
    assert {key: hostile[key] in str(rows[key]["reason"]) and rows[key]["status"] for key in hostile} == dict.fromkeys(hostile, "error")
    assert rows["metadata.jsonl#2002"]["reason"] == "line 2003 of metadata.jsonl is no JSON object"
    assert [(rows[f"{n}.png"]["status"], rows[f"{n}.png"]["caption"], rows[f"{n}.png"]["reason"]) for n in ("latin", "mute")] == [
        ("ok", None, "caption not UTF-8"), ("ok", None, "caption missing")]
    assert (rows["na\\xefve.png"]["status"], rows["na\\xefve.png"]["reason"]) == ("error", "its name is not UTF-8")
    n_cut = sum(said == "truncated" for said, _ in bad)
    assert f"images: {len(rows)} rows, " in done.stdout and f"images: {n_cut} x truncated\n" in done.stdout and len(rows) == 2000 + len(hostile) + 4


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_broken_pictures_in_shards_are_rows_with_their_reason_too(in_folder: Path, form: str) -> None:
    good, bad = samples(40), broken(160)
    WRITERS[form](in_folder / "set", [*good, *(sample for _, sample in bad)])
    rows = {r["key"]: r for r in imaged(form, "set")}
    bare = {key if form == "parquet" else key.rpartition(".")[0] for key, *_ in good}
    assert all(rows[key]["status"] == "ok" and rows[key]["reason"] is None for key in bare) and len(rows) == 200
    require_said(rows, [(said, (key if form == "parquet" else key.rpartition(".")[0], *rest)) for said, (key, *rest) in bad])


def require_said(rows: dict[str, dict[str, Any]], bad: list[Any]) -> None:
    for number, (said, (key, *_)) in enumerate(bad):
        wanted = "error" if number % 16 < 8 else "ok"
        assert rows[key]["status"] == wanted and said in str(rows[key]["reason"]), f"{key}: {rows[key]['status']}, {rows[key]['reason']} is not {said}"


def test_a_kill_keeps_the_finished_pieces_and_dask_gives_the_same_bytes(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_webdataset(in_folder / "set", [(k, encoded(shown(i, 384)), c, u) for i, (k, _, c, u) in enumerate(samples(12 * PER_SHARD))])
    imaged("webdataset", "set")
    whole = Path("data/images/images.parquet").read_bytes()
    finished = lambda: sorted(p.name for p in Path("work/images").glob("*.parquet"))  # noqa: E731
    everything = finished()
    _forget()
    stage = subprocess.Popen([sys.executable, "-m", "tasks.images"], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    assert until(lambda: len(finished()) >= 3, 60)
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    kept = {name: (Path("work/images") / name).stat().st_mtime_ns for name in finished()}
    assert 3 <= len(kept) < len(everything)
    again = subprocess.run([sys.executable, "-m", "tasks.images"], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=True)
    assert f"images: 12 pieces, {len(kept)} kept from before, {12 - len(kept)} to make" in again.stdout
    assert Path("data/images/images.parquet").read_bytes() == whole and finished() == everything
    assert {name: (Path("work/images") / name).stat().st_mtime_ns for name in kept} == kept
    _forget()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    put_params("webdataset", "set", dask="local:2")
    images.main()
    assert Path("data/images/images.parquet").read_bytes() == whole and finished() == everything


def _forget() -> None:
    for file in [*Path("work").rglob("*.parquet"), *Path("data/images").glob("*")]:
        if file.parent.name != "inputs":
            file.unlink()


def test_a_thread_reads_what_another_reads(in_folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    as_parquet(in_folder / "set", samples(40))
    rows = imaged("parquet", "set") * 5
    reader = _training_sets.Reader()
    with ThreadPoolExecutor(8) as pool:
        assert [_pictures.pixel_digest(p) for p in pool.map(reader.pixels, rows)] == [r["pixel_digest"] for r in rows]
    assert _training_sets.reader() is _training_sets.reader()


def test_members_with_pictures_and_held_out_images_without_are_refused(in_folder: Path) -> None:
    found = {s: _training_sets.Source(s, form, "x", {}) for s, form in (("member", "parquet"), ("held_out", "clip_embeddings"))}
    with pytest.raises(UserError, match="must both have pictures, or both be clip_embeddings"):
        _training_sets.given(found)
    assert _training_sets.given({"member": found["member"]}) is None and not found["held_out"].has_pictures
