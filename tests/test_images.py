"""Every file becomes a row: good ones measured, bad ones with their reason."""

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


def test_a_good_picture_is_measured(picture: Maker) -> None:
    row = images.image({"key": "a", "data": encoded(picture(1)), "shard": "s", "position": 3}, "member", 75)
    assert (row["status"], row["width_px"], row["height_px"], row["position"]) == ("ok", 32, 32, 3)
    assert row["complexity_bytes"] > 0 and not row["is_degenerate"]


def test_the_same_pixels_in_another_file_share_the_pixel_digest_only(picture: Maker) -> None:
    one, two = (images.image({"key": k, "data": encoded(picture(1), compress_level=c)}, "member", 75) for k, c in (("a", 0), ("b", 9)))
    assert one["pixel_digest"] == two["pixel_digest"] and one["sha256"] != two["sha256"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty file"), (b"not a picture", "not readable"), (None, "no bytes")],
)
def test_a_broken_file_is_a_row_with_its_reason(data: bytes | None, reason: str) -> None:
    row = images.image({"key": "a", "data": data, "reason": None if data is not None else "no bytes"}, "member", 75)
    assert row["status"] == "error" and reason in row["reason"]


def test_a_truncated_picture_is_an_error(picture: Maker) -> None:
    data = encoded(picture(2), "JPEG")
    assert images.image({"key": "a", "data": data[: len(data) // 2]}, "member", 75)["status"] == "error"


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


def test_a_flat_picture_is_marked_degenerate() -> None:
    assert images.image({"key": "a", "data": encoded(np.full((8, 8, 3), 200, np.uint8))}, "member", 75)["is_degenerate"]


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


def test_two_rows_with_one_key_are_refused(picture: Maker) -> None:
    row = {"key": "same", "data": encoded(picture(1)), "shard": "s", "position": 0}
    with pytest.raises(ValueError, match="same key"):
        images.images(iter([("member", row), ("member", row)]), jpeg_quality=75)
