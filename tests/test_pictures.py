"""Pictures are decoded in one way, read from where they lie, and a broken one is named."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks import _pictures, images

Maker = Callable[[int], np.ndarray]


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def test_a_decompression_bomb_is_an_error(monkeypatch: pytest.MonkeyPatch, picture: Maker) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "pixels" in images.image({"key": "a", "data": encoded(picture(1))}, "member", 75)["reason"]


def test_alpha_is_laid_over_white_and_exif_turns_the_picture() -> None:
    clear = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    out = io.BytesIO()
    clear.save(out, "PNG")
    assert (_pictures.canonical(out.getvalue()) == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.new("RGB", (8, 4)).save(turned, "JPEG", exif=exif)
    assert _pictures.canonical(turned.getvalue()).shape == (8, 4, 3)


def test_an_image_folder_is_read_with_its_metadata_and_text_files(tmp_path: Path, picture: Maker) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(picture(ord(name[0]))).save(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png,an apple\nmissing.png,nothing\n")
    (tmp_path / "b.txt").write_text("a bear\n")
    files = sorted(p.name for p in tmp_path.iterdir())
    rows = {r["key"]: r for r in _pictures.rows("image_folder", tmp_path, files)}
    assert {k: r["caption"] for k, r in rows.items()} == {"a.png": "an apple", "b.png": "a bear", "c.png": None, "missing.png": "nothing"}
    assert "not in the folder" in rows["missing.png"]["reason"]


def test_metadata_cannot_name_a_file_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "folder" / "metadata.jsonl").write_text('{"file_name": "../secret.png", "text": "x"}\n')
    row = next(iter(_pictures.rows("image_folder", tmp_path / "folder", ["metadata.jsonl"])))
    assert row["data"] is None and "leaves the folder" in row["reason"]


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_is_read_as_struct_or_plain_bytes_with_laions_column_names(tmp_path: Path, picture: Maker, as_struct: bool) -> None:
    data = [encoded(picture(i)) for i in range(3)]
    column = [{"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)] if as_struct else data
    pq.write_table(pa.table({"image": column, "TEXT": ["x", "y", None], "URL": ["u", "v", "w"]}), tmp_path / "part.parquet")
    rows = list(_pictures.rows("parquet", tmp_path, ["part.parquet"]))
    assert [r["caption"] for r in rows] == ["x", "y", None] and [r["url"] for r in rows] == ["u", "v", "w"]
    assert [r["key"] for r in rows] == ([f"{i}.png" for i in range(3)] if as_struct else [f"part.parquet#{i}" for i in range(3)])


def test_generations_are_gathered_in_shards_that_find_them_again_and_what_is_not_kept_has_no_place(in_folder: Path, picture: Callable[..., np.ndarray],
                                                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pictures, "PICTURES_PER_SHARD", 4)
    pngs = [_pictures.png(picture(i)) if i != 2 else None for i in range(7)]
    writer = _pictures.GenerationWriter("v1")
    rows = writer.add([{"generation_id": 10 + i} for i in range(7)], pngs)
    writer.close()
    places = [(r["shard"], r["position"]) for r in rows]
    assert places[2:6] == [(None, None), ("pictures_00000.parquet", 2), ("pictures_00000.parquet", 3), ("pictures_00001.parquet", 0)]
    reader = _pictures.GenerationReader("v1")
    assert all((reader.pixels(r) == picture(i)).all() for i, r in enumerate(rows) if r["shard"])
    stored = pq.read_table(in_folder / "data" / "generations" / "v1" / "pictures" / "pictures_00001.parquet")
    assert stored.column("generation_id").to_pylist() == [15, 16]
